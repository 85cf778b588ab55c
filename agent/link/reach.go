package link

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"

	"komainu/fault"
)

// Step is the outcome of one thing that must work for the link.
type Step struct {
	Name    string
	Target  string
	OK      bool
	Skipped bool // not tried, because an earlier step failed
	Detail  string
	Took    time.Duration
}

// Test tries the way to the control plane, one thing after the other, and
// reports each. What stands on a step that failed is skipped. Errors:
// fault.Conflict when the device is not enrolled, or the error of report.
func Test(ctx context.Context, dir string, proxy Proxy, now func() time.Time, report func(Step) error) error {
	id, err := Load(dir)
	if fault.Is(err, fault.NotFound) {
		return fault.New(fault.Conflict, "this device is not enrolled; there is nothing to connect to yet")
	}
	if err != nil {
		return err
	}
	u, err := id.server()
	if err != nil {
		return err
	}
	config, err := id.tlsConfig(now)
	if err != nil {
		return err
	}
	t := tester{report: report}
	// What has to be found and reached from here is the proxy, where there is one.
	next, host := hostPort(u), u.Hostname()
	if proxy.address != "" {
		next = proxy.address
		host, _, _ = net.SplitHostPort(next) // it was put together
	}
	t.step("resolve", host, func() (string, error) {
		addresses, err := net.DefaultResolver.LookupHost(ctx, host)
		return strings.Join(addresses, ", "), err
	})
	t.step("tcp", next, func() (string, error) {
		c, err := (&net.Dialer{Timeout: dialLimit}).DialContext(ctx, "tcp", next)
		if err != nil {
			return "", err
		}
		return "from " + c.LocalAddr().String(), c.Close()
	})
	if proxy.address != "" {
		t.step("proxy", hostPort(u), func() (string, error) {
			ctx, cancel := context.WithTimeout(ctx, dialLimit)
			defer cancel()
			c, err := proxy.dial(ctx, "tcp", hostPort(u))
			if err != nil {
				return "", err
			}
			return "a tunnel through " + proxy.address, c.Close()
		})
	}
	t.step("tls", id.Server, func() (string, error) {
		c, err := dialTLS(ctx, proxy, hostPort(u), config)
		if err != nil {
			return "", explain(u.Host, err)
		}
		s := c.(*tls.Conn).ConnectionState()
		return fmt.Sprintf("%s, certificate of the pinned CA, valid until %s", tls.VersionName(s.Version), s.PeerCertificates[0].NotAfter.UTC().Format(time.DateOnly)), c.Close()
	})
	var p ping
	t.step("protocol", id.Server+"/agent/v1/ping", func() (string, error) {
		c := newClient(proxy, config)
		defer c.close()
		if p, err = c.ping(ctx, id.Server); err != nil {
			return "", err
		}
		if err := speaks(p.Protocol); err != nil {
			return "", err
		}
		return fmt.Sprintf("protocol %d", p.Protocol), nil
	})
	t.step("clock", id.Server, func() (string, error) {
		off := now().Sub(p.Time)
		return off.Abs().Round(time.Millisecond).String() + " apart", clockFault(off)
	})
	t.step("latency", id.Server+"/agent/v1/ping", func() (string, error) {
		c := newClient(proxy, config)
		defer c.close()
		return latency(ctx, c, id.Server)
	})
	t.step("certificate", string(id.Device), func() (string, error) {
		left := id.NotAfter.Sub(now())
		if left < 0 {
			return "", fmt.Errorf("expired %s ago; it is renewed when the link comes up", roughly(-left))
		}
		return "valid for " + roughly(left), nil
	})
	return t.err
}

// latency asks a few times over one connection and returns the shortest and
// the longest that an answer took.
func latency(ctx context.Context, c client, server string) (string, error) {
	const asked = 5
	var shortest, longest time.Duration
	for i := range asked + 1 {
		start := time.Now()
		if _, err := c.ping(ctx, server); err != nil {
			return "", err
		}
		took := time.Since(start)
		switch {
		case i == 0: // it makes the connection
		case i == 1:
			shortest, longest = took, took
		default:
			shortest, longest = min(shortest, took), max(longest, took)
		}
	}
	return fmt.Sprintf("%s to %s for an answer, %d asked", shortest.Round(10*time.Microsecond), longest.Round(10*time.Microsecond), asked), nil
}

type tester struct {
	report  func(Step) error
	stopped bool
	err     error
}

func (t *tester) step(name, target string, try func() (string, error)) {
	if t.err != nil {
		return
	}
	if t.stopped {
		t.err = t.report(Step{Name: name, Target: target, Skipped: true})
		return
	}
	start := time.Now()
	detail, err := try()
	s := Step{Name: name, Target: target, OK: err == nil, Detail: detail, Took: time.Since(start)}
	if err != nil {
		s.Detail, t.stopped = err.Error(), true
	}
	t.err = t.report(s)
}
