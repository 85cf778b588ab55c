// Package remote runs scripts as root on other machines over SSH.
//
// A host is not trusted. It may hang at any point, answer without end, answer
// nonsense, or be another one than yesterday: every wait has a limit, what is
// read is bounded in bytes and in memory, and whatever goes wrong comes back
// as a deploy.Failure that says what to do about it. What a host is called
// and who may log in is up to the caller, who also pins host keys.
//
// How a script gets there: the command that sshd hands to the login shell of
// the user is one short line that every shell reads alike. It starts sh,
// through sudo where that is wanted, and sh says when it is there. Only then
// are the script, its arguments and its input sent, over standard input: so
// nothing but a shell of root ever sees them, they are in no list of processes
// and in no log of sudo, and their size has no limit.
package remote

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"komainu/deploy"
)

// Sudo is how the user of a login becomes root. A user that is called root
// needs none of it.
type Sudo string

// The ways.
const (
	NoSudo       Sudo = "none"         // the user is root
	Passwordless Sudo = "passwordless" // sudo asks for nothing
	WithPassword Sudo = "password"     // sudo may ask for the password
)

// HostKeys decides whether a host is who it should be. Its methods are called
// from several goroutines.
type HostKeys interface {
	// Check returns nil for a key that an address may have. Errors:
	// *deploy.Failure with HostKeyChanged or HostKeyUnknown.
	Check(address string, key ssh.PublicKey) error
	// Algorithms are those of the keys that an address is known by, so that it
	// is asked for one of them; nil when it is not known. Certificates of hosts
	// are asked for only here.
	Algorithms(address string) []string
}

// Hop is a host on the way.
type Hop struct {
	Address string // host:port
	User    string
	// Auth are tried in their order. Methods of one kind count as one: all
	// keys belong into one ssh.PublicKeys or ssh.PublicKeysCallback.
	Auth []ssh.AuthMethod
}

// Config says how to come to a host.
type Config struct {
	Hop
	Jump     []Hop // passed through in this order
	HostKeys HostKeys
	Sudo     Sudo
	Password string // for sudo, which gets it when it asks
	Limits   Limits
}

// becomes reports whether sudo is needed.
func (c Config) becomes() bool {
	return c.User != "root" && (c.Sudo == Passwordless || c.Sudo == WithPassword)
}

// Limits bound what a host may take. The zero value has the defaults.
type Limits struct {
	Connect time.Duration // for the way to each hop with its login, 15 s
	Silence time.Duration // of a script, 90 s
	Total   time.Duration // of a script, 15 minutes
	Output  int64         // bytes of one script, 1 MiB
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Connect: cmp.Or(l.Connect, 15*time.Second), Silence: cmp.Or(l.Silence, 90*time.Second),
		Total: cmp.Or(l.Total, 15*time.Minute), Output: cmp.Or(l.Output, 1<<20),
	}
}

// Host is a connection to a host. It implements deploy.Host.
type Host struct {
	cfg     Config
	client  *ssh.Client
	hops    []*ssh.Client // with client as the last one
	wires   []*wire       // below hops
	base    net.Conn      // below all, set before anything runs on it
	running sync.Mutex    // one script at a time
	alive   sync.WaitGroup

	once  sync.Once
	cause error // why the connection was ended, set before ended is closed
	ended chan struct{}
}

var _ deploy.Host = (*Host)(nil)

// RemoteIP returns the IP address of the host; "" behind a jump host, which
// alone knows it.
func (h *Host) RemoteIP() string {
	address, ok := h.base.RemoteAddr().(*net.TCPAddr)
	if !ok || len(h.cfg.Jump) > 0 {
		return ""
	}
	return address.IP.String()
}

// errClosed is the cause of a connection that its owner has closed.
var errClosed = errors.New("the connection is closed")

// Dial connects to a host and logs in. Errors are *deploy.Failure, and that of
// ctx when it ends.
func Dial(ctx context.Context, cfg Config) (*Host, error) {
	cfg.Limits = cfg.Limits.withDefaults()
	if strings.ContainsAny(cfg.Password, "\r\n\x00") {
		return nil, deploy.Fail(deploy.SudoPassword, "the password for sudo has a line break in it")
	}
	h := &Host{cfg: cfg, ended: make(chan struct{})}
	for i, hop := range append(slices.Clone(cfg.Jump), cfg.Hop) {
		if err := h.connect(ctx, hop); err != nil {
			h.Close()
			if i < len(cfg.Jump) {
				err = ofJump(hop.Address, err)
			}
			return nil, err
		}
	}
	h.client = h.hops[len(h.hops)-1]
	h.alive.Go(h.keepAlive)
	h.alive.Go(func() { h.end(lost(h.client.Wait())) })
	return h, nil
}

// Close ends the connection. A script that runs is cut off.
func (h *Host) Close() error {
	h.end(errClosed)
	for _, c := range h.hops {
		_ = c.Wait() // returns why it ended, which is that we did it
	}
	h.alive.Wait()
	return nil
}

// end cuts the connection for a reason, of which the first one counts. It
// does not wait for the host.
func (h *Host) end(cause error) {
	h.once.Do(func() {
		h.cause = cause
		close(h.ended)
		if h.base != nil {
			_ = h.base.Close() // carries all the others; nothing is said to the host, which could take its time
		}
	})
}

// why says why the connection has ended, nil while it has not.
func (h *Host) why() error {
	select {
	case <-h.ended:
		return h.cause
	default:
		return nil
	}
}

// Hosts that nothing comes from are asked for a sign of life after interval
// and given up after patience.
const (
	interval = 15 * time.Second
	patience = 45 * time.Second
)

// keepAlive asks the host for signs of life until the connection ends. It
// finds hosts that are gone, and keeps firewalls from forgetting the
// connection.
func (h *Host) keepAlive() {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-h.ended:
			return
		case <-tick.C:
		}
		late := time.AfterFunc(patience, func() {
			h.end(deploy.Failf(deploy.ConnectionLost, "no sign of life for %v", patience))
		})
		_, _, err := h.client.SendRequest("keepalive@openssh.com", true, nil)
		late.Stop()
		if err != nil {
			h.end(lost(err))
			return
		}
	}
}

// lost is the failure for a connection that broke.
func lost(err error) error {
	if err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
		return deploy.Fail(deploy.ConnectionLost, "")
	}
	return deploy.Fail(deploy.ConnectionLost, plain(err.Error()))
}
