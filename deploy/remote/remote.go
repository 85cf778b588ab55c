// Package remote runs scripts as root on servers over SSH.
//
// The servers are not trusted: whatever one sends is bounded in size and time,
// and whatever goes wrong becomes a reason of package deploy that says what to
// do about it.
package remote

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"komainu/deploy"
)

// Sudo is how the user of a login becomes root.
type Sudo string

// The ways.
const (
	NoSudo       Sudo = "none"         // the user is root
	Passwordless Sudo = "passwordless" // sudo asks for nothing
	WithPassword Sudo = "password"
)

// HostKeys decides whether a host is who it should be.
type HostKeys interface {
	// Check returns nil for a key that an address may have. Errors:
	// *deploy.Failure with HostKeyChanged or HostKeyUnknown.
	Check(address string, key ssh.PublicKey) error
	// Algorithms are those of the keys that an address is known by, so that it
	// is asked for one of them; nil when it is not known.
	Algorithms(address string) []string
}

// Hop is a host on the way.
type Hop struct {
	Address string // host:port
	User    string
}

// Config says how to come to a host.
type Config struct {
	Hop
	Jump     []Hop // passed through in this order, with the same credentials
	Auth     []ssh.AuthMethod
	HostKeys HostKeys
	Sudo     Sudo
	Password string // for sudo
	Limits   Limits
}

// Limits bound what a host may take. The zero value has the defaults.
type Limits struct {
	Connect time.Duration // for a connection with its login, 15 s
	Silence time.Duration // of a script, 90 s
	Output  int64         // bytes of one script, 1 MiB
}

func (l Limits) withDefaults() Limits {
	if l.Connect == 0 {
		l.Connect = 15 * time.Second
	}
	if l.Silence == 0 {
		l.Silence = 90 * time.Second
	}
	if l.Output == 0 {
		l.Output = 1 << 20
	}
	return l
}

// Host is a server that somebody is logged in to. It is a deploy.Host for one
// script at a time.
type Host struct {
	cfg     Config
	clients []*ssh.Client // the hops, then the host
}

// Dial logs in. Errors: *deploy.Failure.
func Dial(ctx context.Context, cfg Config) (*Host, error) {
	cfg.Limits = cfg.Limits.withDefaults()
	h := &Host{cfg: cfg}
	for i, hop := range append(append([]Hop{}, cfg.Jump...), cfg.Hop) {
		client, err := h.dial(ctx, hop)
		if err != nil {
			h.Close()
			if i < len(cfg.Jump) {
				err = ofJump(hop, err)
			}
			return nil, err
		}
		h.clients = append(h.clients, client)
	}
	return h, nil
}

// ofJump says that it was a host on the way that failed.
func ofJump(hop Hop, err error) error {
	if f, ok := errors.AsType[*deploy.Failure](err); ok {
		f.Reason.Detail = strings.TrimSuffix("jump host "+hop.Address+": "+f.Reason.Detail, ": ")
	}
	return err
}

func (h *Host) dial(ctx context.Context, hop Hop) (*ssh.Client, error) {
	ctx, cancel := context.WithTimeout(ctx, h.cfg.Limits.Connect)
	defer cancel()
	conn, err := h.connect(ctx, hop.Address)
	if err != nil {
		return nil, err
	}
	// The handshake knows no context: closing the connection ends it.
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var refused error
	client := &ssh.ClientConfig{
		User: hop.User, Auth: h.cfg.Auth, ClientVersion: "SSH-2.0-Komainu",
		HostKeyAlgorithms: h.cfg.HostKeys.Algorithms(hop.Address),
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			refused = h.cfg.HostKeys.Check(hop.Address, key)
			return refused
		},
	}
	if client.HostKeyAlgorithms == nil {
		client.HostKeyAlgorithms = algorithms
	}
	c, channels, requests, err := ssh.NewClientConn(conn, hop.Address, client)
	if err != nil {
		conn.Close()
		return nil, loginFailure(ctx, refused, err)
	}
	if !stop() { // the time was up at the last moment
		c.Close()
		return nil, timedOut(ctx, "while it logged in")
	}
	return ssh.NewClient(c, channels, requests), nil
}

// algorithms of host keys, the best first. RSA is taken with SHA-2 only.
var algorithms = []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}

// connect opens a connection, through the last host that is logged in to.
func (h *Host) connect(ctx context.Context, address string) (net.Conn, error) {
	if len(h.clients) == 0 {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err != nil {
			return nil, connectFailure(ctx, address, err)
		}
		return conn, nil
	}
	conn, err := h.clients[len(h.clients)-1].DialContext(ctx, "tcp", address)
	if refused, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
		if refused.Reason == ssh.ConnectionFailed {
			return nil, deploy.Failf(deploy.Unreachable, "from the jump host: %s", text(refused.Message))
		}
		return nil, deploy.Fail(deploy.JumpRefused, text(refused.Message))
	}
	if err != nil {
		return nil, connectFailure(ctx, address, err)
	}
	return conn, nil
}

func timedOut(ctx context.Context, when string) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return deploy.Fail(deploy.TimedOut, when)
}

func connectFailure(ctx context.Context, address string, err error) error {
	dns, isDNS := errors.AsType[*net.DNSError](err)
	switch {
	case ctx.Err() != nil:
		return timedOut(ctx, "no connection to "+address)
	case isDNS && dns.IsNotFound:
		return deploy.Fail(deploy.NameNotFound, dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return deploy.Fail(deploy.ConnectionRefused, address)
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return deploy.Fail(deploy.TimedOut, "no connection to "+address)
	}
	return deploy.Fail(deploy.Unreachable, text(err.Error()))
}

// loginFailure says why a connection did not become a login. The library has
// no types for these errors, only texts.
func loginFailure(ctx context.Context, refused, err error) error {
	message := text(strings.TrimPrefix(err.Error(), "ssh: handshake failed: "))
	switch {
	case refused != nil:
		return refused
	case ctx.Err() != nil:
		return timedOut(ctx, "while it logged in")
	case strings.Contains(message, "unable to authenticate"), strings.Contains(message, "too many authentication failures"):
		return deploy.Fail(deploy.LoginRefused, message)
	case strings.Contains(message, "no common algorithm"):
		return deploy.Fail(deploy.LoginRefused, message+"; its sshd is too old")
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET), strings.Contains(message, "EOF"), strings.Contains(message, "reset by peer"), strings.Contains(message, "broken pipe"):
		return deploy.Fail(deploy.ConnectionLost, "sshd ended the connection during the login")
	}
	return deploy.Fail(deploy.OutputGarbled, message)
}

// text makes what a host says safe to show.
func text(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > 400 {
		s = strings.ToValidUTF8(s[:400], "") + "…"
	}
	return strings.TrimSpace(s)
}

// Close logs out.
func (h *Host) Close() error {
	for i := len(h.clients) - 1; i >= 0; i-- {
		_ = h.clients[i].Close() // nothing is lost with it
	}
	return nil
}
