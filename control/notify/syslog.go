package notify

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"komainu/finding"
)

// tlsDialer opens TLS connections under the rules of dialer.
type tlsDialer struct{ config *tls.Config }

// DialContext opens a connection and shakes hands.
func (d *tlsDialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return (&tls.Dialer{NetDialer: &dialer, Config: d.config}).DialContext(ctx, network, address)
}

// levels are the severities of syslog.
var levels = map[finding.Severity]int{finding.Informational: 6, finding.Low: 5, finding.Medium: 4, finding.High: 3}

// maxDatagram is the longest message that receivers take over UDP without
// being asked (RFC 5426).
const maxDatagram = 2048

// element names our structured data; the number is the one that RFC 5612 sets
// aside for those who have none of their own.
const element = "komainu@32473"

// encode returns a message of RFC 5424: what people read in the text, what
// programs read in structured data.
func (m *Message) encode(facility int, host string) []byte {
	level, ok := levels[m.Severity]
	if !ok {
		level = 6
	}
	var b strings.Builder
	fmt.Fprintf(&b, "<%d>1 %s %s komainu %d %s [%s", facility*8+level, m.Time.UTC().Format("2006-01-02T15:04:05.000Z"), printable(host, 255), os.Getpid(), printable(m.Event, 32), element)
	put := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, ` %s="%s"`, name, parameter.Replace(oneLine(value)))
		}
	}
	put("id", m.ID)
	put("severity", m.Severity.String())
	put("kind", m.Subject.Kind)
	put("subject", m.Subject.ID)
	put("incident", m.Subject.Incident)
	put("status", m.Status)
	put("test", strconv.FormatBool(m.Test))
	put("category", strings.Join(m.Subject.Categories, ","))
	put("threat", m.Subject.ThreatName)
	put("rule", m.Subject.Rule)
	for i, d := range m.Devices {
		if i == maxDevices {
			break
		}
		put("device", d.Name)
	}
	if c := m.Change; c != nil {
		put("from", c.From)
		put("by", c.By)
	}
	put("link", m.Link)
	b.WriteString("] \ufeff" + m.line())
	return []byte(b.String())
}

// maxDevices bounds the devices in a line.
const maxDevices = 5

// parameter escapes what ends a value of structured data.
var parameter = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`)

// printable makes a header field: visible ASCII, "-" for nothing.
func printable(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), limit)]
}

// syslog sends a message by UDP, or framed by its length over TCP or TLS.
func (n *Notifier) syslog(ctx context.Context, t *Target, m *Message) (string, error) {
	text := m.encode(*t.Facility, n.cfg.Host)
	address := net.JoinHostPort(t.Host, strconv.Itoa(t.Port))
	if t.Protocol == "udp" {
		if len(text) > maxDatagram {
			for text = text[:maxDatagram]; !utf8.Valid(text); {
				text = text[:len(text)-1]
			}
		}
		c, err := dialer.DialContext(ctx, "udp", address)
		if err != nil {
			return "", err
		}
		defer c.Close()
		if _, err := c.Write(text); err != nil {
			return "", err
		}
		return "sent; UDP does not tell whether it arrived", nil
	}
	dial := dialer.DialContext
	if t.Protocol == "tls" {
		config, err := t.tls()
		if err != nil {
			return "", err
		}
		dial = (&tlsDialer{config}).DialContext
	}
	c, err := dial(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(deadline)
	}
	if _, err := fmt.Fprintf(c, "%d %s", len(text), text); err != nil {
		return "", err
	}
	return n.closed(c)
}

// closeWait is how long a receiver may take to close its side.
const closeWait = 2 * time.Second

// closed ends our side of a connection and waits for the other one to end
// too. Syslog has no answers; that a receiver has read to the end and closed
// is the only sign that a message is not lost on the way.
func (n *Notifier) closed(c net.Conn) (string, error) {
	half, ok := c.(interface{ CloseWrite() error })
	if !ok {
		return "sent", nil
	}
	if err := half.CloseWrite(); err != nil {
		return "", err
	}
	_ = c.SetReadDeadline(time.Now().Add(closeWait))
	switch _, err := io.Copy(io.Discard, io.LimitReader(c, 4096)); {
	case err == nil:
		return "the receiver read it to the end", nil
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "sent; the receiver keeps the connection open, so it is not known whether it was read", nil
	default:
		return "", fmt.Errorf("the receiver broke off: %w", err)
	}
}
