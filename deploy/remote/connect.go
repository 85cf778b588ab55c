package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/crypto/ssh"

	"komainu/deploy"
)

// algorithms are modern ones that OpenSSH has had since version 7. The order
// of host keys is fixed, so that a host whose key was pinned at first sight
// shows the same one the next time.
var (
	modern = ssh.Config{
		KeyExchanges: []string{
			ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519, ssh.KeyExchangeECDHP256, ssh.KeyExchangeECDHP384, ssh.KeyExchangeECDHP521,
			ssh.KeyExchangeDH16SHA512, ssh.KeyExchangeDH14SHA256,
		},
		Ciphers: []string{
			ssh.CipherAES128GCM, ssh.CipherAES256GCM, ssh.CipherChaCha20Poly1305, ssh.CipherAES128CTR, ssh.CipherAES192CTR, ssh.CipherAES256CTR,
		},
		MACs: []string{ssh.HMACSHA256ETM, ssh.HMACSHA512ETM, ssh.HMACSHA256, ssh.HMACSHA512},
	}
	hostKeyAlgorithms = []string{
		ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
	}
)

// loginBytes is what a host may send until the login is done.
const loginBytes = 1 << 20

// connect adds a hop to the way.
func (h *Host) connect(ctx context.Context, hop Hop) error {
	late := deploy.Failf(deploy.TimedOut, "the login at %s was not done within %v", hop.Address, h.cfg.Limits.Connect)
	ctx, cancel := context.WithTimeoutCause(ctx, h.cfg.Limits.Connect, late)
	defer cancel()
	raw, err := h.open(ctx, hop.Address)
	if err != nil {
		return err
	}
	w := &wire{Conn: raw, flooded: func() {
		h.end(deploy.Fail(deploy.OutputFlood, "more bytes than a login or a script of ours has a use for"))
	}}
	w.allow(loginBytes)
	if h.base == nil {
		h.base = raw
	}
	h.wires = append(h.wires, w)
	stop := context.AfterFunc(ctx, func() { h.end(context.Cause(ctx)) })
	login := &login{host: h, address: hop.Address, keys: h.cfg.HostKeys}
	conn, channels, requests, err := ssh.NewClientConn(w, hop.Address, login.config(hop))
	if !stop() {
		<-h.ended // the time was up at the last moment
	}
	if ended := h.why(); ended != nil {
		if err == nil {
			conn.Close()
		}
		return ended
	}
	if err != nil {
		return login.failure(err)
	}
	h.hops = append(h.hops, ssh.NewClient(conn, channels, requests))
	return nil
}

// open opens a connection to an address, from here or from the last hop.
func (h *Host) open(ctx context.Context, address string) (net.Conn, error) {
	if len(h.hops) == 0 {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		return conn, notOpened(ctx, err)
	}
	conn, err := h.hops[len(h.hops)-1].DialContext(ctx, "tcp", address)
	if err == nil {
		return conn, nil
	}
	if refused, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
		return nil, notForwarded(refused, h.cfg.Jump[len(h.hops)-1].Address)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return nil, ofJump(h.cfg.Jump[len(h.hops)-1].Address, lost(err))
}

// notOpened is the failure for a connection from here.
func notOpened(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	dns, isDNS := errors.AsType[*net.DNSError](err)
	address, isAddress := errors.AsType[*net.AddrError](err)
	timeout, isTimeout := errors.AsType[net.Error](err)
	switch {
	case isDNS && dns.IsNotFound:
		return deploy.Fail(deploy.NameNotFound, plain(dns.Name))
	case errors.Is(ctx.Err(), context.Canceled):
		return context.Cause(ctx)
	case isDNS:
		return deploy.Failf(deploy.Unreachable, "DNS does not answer: %s", plain(dns.Error()))
	case isAddress:
		return deploy.Failf(deploy.NameNotFound, "%s is no address: %s", plain(address.Addr), address.Err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return deploy.Fail(deploy.ConnectionRefused, "")
	case ctx.Err() != nil, isTimeout && timeout.Timeout():
		return deploy.Fail(deploy.TimedOut, "no connection")
	}
	if call, ok := errors.AsType[syscall.Errno](err); ok {
		return deploy.Fail(deploy.Unreachable, call.Error())
	}
	return deploy.Fail(deploy.Unreachable, plain(err.Error()))
}

// notForwarded is the failure for a connection that a jump host does not
// make. Its words are those of its operating system.
func notForwarded(err *ssh.OpenChannelError, jump string) error {
	detail := fmt.Sprintf("from the jump host %s: %s", jump, plain(err.Message))
	if err.Reason != ssh.ConnectionFailed {
		return deploy.Fail(deploy.JumpRefused, detail)
	}
	for words, id := range map[string]deploy.ReasonID{
		"refused": deploy.ConnectionRefused, "timed out": deploy.TimedOut, "not known": deploy.NameNotFound, "no address associated": deploy.NameNotFound,
	} {
		if strings.Contains(strings.ToLower(err.Message), words) {
			return deploy.Fail(id, detail)
		}
	}
	return deploy.Fail(deploy.Unreachable, detail)
}

// ofJump says that it was a host on the way that failed.
func ofJump(address string, err error) error {
	f, ok := errors.AsType[*deploy.Failure](err)
	if !ok {
		return err
	}
	id := f.Reason.ID
	if id == deploy.LoginRefused {
		id = deploy.JumpRefused
	}
	detail := "jump host " + address
	if f.Reason.Detail != "" {
		detail += ": " + f.Reason.Detail
	}
	return deploy.Fail(id, detail)
}

// login is what becomes known while one logs in.
type login struct {
	host    *Host
	address string
	keys    HostKeys
	trusted atomic.Bool // the host key is the right one
}

func (l *login) config(hop Hop) *ssh.ClientConfig {
	algorithms := l.keys.Algorithms(hop.Address)
	if algorithms == nil {
		algorithms = hostKeyAlgorithms
	}
	return &ssh.ClientConfig{
		Config: modern, User: hop.User, Auth: hop.Auth, HostKeyAlgorithms: algorithms, ClientVersion: "SSH-2.0-Komainu",
		HostKeyCallback: l.check,
	}
}

// check is called at every exchange of keys, those of a connection that has
// long been there included.
func (l *login) check(_ string, _ net.Addr, key ssh.PublicKey) error {
	err := l.keys.Check(l.address, key)
	if err == nil {
		l.trusted.Store(true)
		return nil
	}
	if _, ok := errors.AsType[*deploy.Failure](err); !ok {
		err = deploy.Failf(deploy.ConnectorFailed, "check the host key: %v", err)
	}
	l.host.end(err)
	return err
}

// failure says why a login did not come to be.
func (l *login) failure(err error) error {
	text := plain(strings.TrimPrefix(err.Error(), "ssh: handshake failed: "))
	negotiation, outdated := errors.AsType[*ssh.AlgorithmNegotiationError](err)
	network, isNetwork := errors.AsType[*net.OpError](err)
	switch {
	case outdated && negotiation.What == "host key" && l.keys.Algorithms(l.address) != nil:
		return deploy.Failf(deploy.HostKeyChanged, "it has no key of the kind that is known, but %s", plain(strings.Join(negotiation.RequestedAlgorithms, ", ")))
	case outdated:
		return deploy.Failf(deploy.LoginRefused, "its sshd is too old: all that it has for %s is %s", negotiation.What, plain(strings.Join(negotiation.RequestedAlgorithms, ", ")))
	case isNetwork:
		return deploy.Fail(deploy.ConnectionLost, plain(network.Err.Error()))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return deploy.Fail(deploy.ConnectionLost, "sshd closed the connection before the login was done; see MaxStartups, MaxAuthTries and its journal")
	case l.trusted.Load():
		return deploy.Fail(deploy.LoginRefused, strings.TrimPrefix(text, "ssh: "))
	}
	return deploy.Failf(deploy.OutputGarbled, "what answers is not a sound SSH server: %s", strings.TrimPrefix(text, "ssh: "))
}

// wire is a connection that takes a number of bytes and no more.
type wire struct {
	net.Conn
	left    atomic.Int64
	flooded func() // called when more come
}

// allow sets how many bytes may come from now on.
func (w *wire) allow(n int64) { w.left.Store(n) }

// more adds to them.
func (w *wire) more(n int64) { w.left.Add(n) }

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if w.left.Add(-int64(n)) < 0 {
		w.flooded()
		return 0, io.EOF
	}
	return n, err
}

// longest is how much of what a host says is kept.
const longest = 300

// plain makes one short line without control characters of what a host says.
func plain(text string) string {
	text = strings.Join(strings.FieldsFunc(strings.ToValidUTF8(text, "?"), func(r rune) bool {
		return r <= ' ' || r >= 0x7f && r < 0xa0 || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e || r >= 0x2066 && r <= 0x2069
	}), " ")
	if len(text) > longest {
		text = "…" + strings.ToValidUTF8(text[len(text)-longest:], "")
	}
	return text
}
