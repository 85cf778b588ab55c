package link

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"komainu/fault"
	"komainu/wire"
)

// dialTLS connects and shakes hands within the dial limit.
func dialTLS(ctx context.Context, host string, config *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	if _, _, err := net.SplitHostPort(host); err != nil {
		host = net.JoinHostPort(host, "443")
	}
	d := tls.Dialer{Config: config}
	return d.DialContext(ctx, "tcp", host)
}

// Step is the outcome of one thing that must work for the link.
type Step struct {
	Name   string
	Target string
	OK     bool
	Detail string
	Took   time.Duration
}

// Test tries the way to the control plane, one thing after the other, and
// reports each. It stops after a step that the next ones stand on. Errors:
// fault.Conflict when the device is not enrolled, or the error of report.
func Test(ctx context.Context, dir string, now func() time.Time, report func(Step) error) error {
	id, err := Load(dir)
	if fault.Is(err, fault.NotFound) {
		return fault.New(fault.Conflict, "this device is not enrolled; there is nothing to connect to yet")
	}
	if err != nil {
		return err
	}
	u, err := url.Parse(id.Server)
	if err != nil {
		return fault.New(fault.Invalid, "the server's address %q: %w", id.Server, err)
	}
	t := tester{now: now, report: report}
	host, port := u.Hostname(), u.Port()
	if port == "" {
		port = "443"
	}
	address := net.JoinHostPort(host, port)
	t.step("resolve", host, func() (string, error) {
		addresses, err := net.DefaultResolver.LookupHost(ctx, host)
		return strings.Join(addresses, ", "), err
	})
	t.step("tcp", address, func() (string, error) {
		c, err := (&net.Dialer{Timeout: dialLimit}).DialContext(ctx, "tcp", address)
		if err != nil {
			return "", err
		}
		return "from " + c.LocalAddr().String(), c.Close()
	})
	config, err := id.tlsConfig(now)
	if err != nil {
		return err
	}
	t.step("tls", id.Server, func() (string, error) {
		c, err := dialTLS(ctx, address, config)
		if err != nil {
			return "", explain(address, err, now())
		}
		s := c.(*tls.Conn).ConnectionState()
		return fmt.Sprintf("%s, certificate of the pinned CA, valid until %s", tls.VersionName(s.Version), s.PeerCertificates[0].NotAfter.UTC().Format(time.DateOnly)), c.Close()
	})
	var ping struct {
		Time     time.Time `json:"time"`
		Protocol int       `json:"protocol"`
	}
	t.step("protocol", id.Server+"/agent/v1/ping", func() (string, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, id.Server+"/agent/v1/ping", nil)
		if err != nil {
			return "", err
		}
		if err := (client{tls: config, now: now}).do(req, &ping); err != nil {
			return "", err
		}
		if ping.Protocol < wire.Oldest {
			return "", fmt.Errorf("the control plane speaks protocol %d, this agent needs %d; upgrade the control plane", ping.Protocol, wire.Oldest)
		}
		return fmt.Sprintf("protocol %d", ping.Protocol), nil
	})
	t.step("clock", id.Server, func() (string, error) {
		if off := now().Sub(ping.Time); off.Abs() > clockLimit {
			return "", fmt.Errorf("%s", clockMessage(off))
		} else {
			return fmt.Sprintf("%s apart", off.Abs().Round(time.Millisecond)), nil
		}
	})
	t.step("certificate", string(id.Device), func() (string, error) {
		if left := id.NotAfter.Sub(now()); left < 0 {
			return "", fmt.Errorf("expired %s ago; it is renewed when the link comes up", (-left).Round(time.Minute))
		} else {
			return fmt.Sprintf("valid for %s", left.Round(time.Minute)), nil
		}
	})
	return t.err
}

type tester struct {
	now     func() time.Time
	report  func(Step) error
	stopped bool
	err     error
}

func (t *tester) step(name, target string, try func() (string, error)) {
	if t.stopped || t.err != nil {
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
