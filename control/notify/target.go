package notify

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"komainu/fault"
)

// Kind is how a notification is sent.
type Kind string

// The kinds.
const (
	Webhook Kind = "webhook"
	SMTP    Kind = "smtp"
	Syslog  Kind = "syslog"
)

// Target is where a notification goes: each kind has its own fields.
type Target struct {
	// Webhook.
	URL string `json:"url,omitempty" maxLength:"2000" doc:"webhook: https, or http to this host itself"`

	// SMTP and syslog.
	Host string `json:"host,omitempty" maxLength:"253"`
	Port int    `json:"port,omitempty" minimum:"1" maximum:"65535"`

	// SMTP.
	Security string   `json:"security,omitempty" enum:"starttls,tls,none" doc:"smtp: starttls (default, never without), tls from the start, or none, which sends no password"`
	Username string   `json:"username,omitempty" maxLength:"254" doc:"smtp: empty for no sign-in"`
	From     string   `json:"from,omitempty" maxLength:"254"`
	To       []string `json:"to,omitempty" maxItems:"20"`

	// Syslog.
	Protocol string `json:"protocol,omitempty" enum:"udp,tcp,tls" doc:"syslog: tls when left out"`
	Facility *int   `json:"facility,omitempty" minimum:"0" maximum:"23" doc:"syslog: 13 (log audit) when left out"`

	// CA is trusted instead of the system's, when it is set.
	CA string `json:"ca,omitempty" maxLength:"20000" doc:"certificates of a CA of your own, PEM"`
}

// minSecret is the length of the shortest key of a webhook.
const minSecret = 16

// defaultFacility is "log audit".
const defaultFacility = 13

// check validates a target and fills what was left out. It never repeats a
// secret, nor a URL, which can hold one.
func (t *Target) check(kind Kind, secret string) error {
	if _, err := t.roots(); err != nil {
		return err
	}
	keep := Target{CA: t.CA}
	switch kind {
	case Webhook:
		keep.URL = t.URL
		if err := checkURL(t.URL); err != nil {
			return err
		}
		if len(secret) < minSecret {
			return fault.New(fault.Invalid, "secret: a webhook needs one of at least %d characters; messages are signed with it", minSecret)
		}
	case SMTP:
		keep.Host, keep.Port, keep.Security, keep.Username, keep.From, keep.To = t.Host, t.Port, t.Security, t.Username, t.From, t.To
		if keep.Security == "" {
			keep.Security = "starttls"
		}
		if keep.Port == 0 {
			keep.Port = map[string]int{"starttls": 587, "tls": 465, "none": 25}[keep.Security]
		}
		if !slices.Contains([]string{"starttls", "tls", "none"}, keep.Security) {
			return fault.New(fault.Invalid, "target.security %q: want starttls, tls or none", keep.Security)
		}
		if keep.Security == "none" && (keep.Username != "" || secret != "") {
			return fault.New(fault.Invalid, "target.security none sends no password; choose starttls or tls, or leave username and secret out")
		}
		if (keep.Username == "") != (secret == "") {
			return fault.New(fault.Invalid, "username and secret go together: give both to sign in, or neither")
		}
		if len(keep.To) == 0 {
			return fault.New(fault.Invalid, "target.to: name at least one recipient")
		}
		for _, a := range append([]string{keep.From}, keep.To...) {
			if p, err := mail.ParseAddress(a); err != nil || strings.ContainsAny(a, "\r\n") || p.Address == "" {
				return fault.New(fault.Invalid, "%q is no mail address", a)
			}
		}
	case Syslog:
		keep.Host, keep.Port, keep.Protocol, keep.Facility = t.Host, t.Port, t.Protocol, t.Facility
		if keep.Protocol == "" {
			keep.Protocol = "tls"
		}
		if !slices.Contains([]string{"udp", "tcp", "tls"}, keep.Protocol) {
			return fault.New(fault.Invalid, "target.protocol %q: want udp, tcp or tls", keep.Protocol)
		}
		if keep.Port == 0 {
			keep.Port = map[string]int{"udp": 514, "tcp": 601, "tls": 6514}[keep.Protocol]
		}
		if keep.Facility == nil {
			keep.Facility = new(defaultFacility)
		}
		if *keep.Facility < 0 || *keep.Facility > 23 {
			return fault.New(fault.Invalid, "target.facility %d: want 0 to 23", *keep.Facility)
		}
		if secret != "" {
			return fault.New(fault.Invalid, "syslog has no secret; leave it out")
		}
	default:
		return fault.New(fault.Invalid, "kind %q: want webhook, smtp or syslog", kind)
	}
	if kind != Webhook && (keep.Host == "" || strings.ContainsAny(keep.Host, " /\r\n\t@")) {
		return fault.New(fault.Invalid, "target.host: give a host name or an address")
	}
	if keep.Port < 0 || keep.Port > 65535 {
		return fault.New(fault.Invalid, "target.port %d: want 1 to 65535", keep.Port)
	}
	*t = keep
	return nil
}

func checkURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "":
		return fault.New(fault.Invalid, "target.url is no URL with a host")
	case u.User != nil:
		return fault.New(fault.Invalid, "target.url holds a password; leave it out, messages are signed with the secret")
	case u.Fragment != "":
		return fault.New(fault.Invalid, "target.url has a part after #, which is never sent; leave it out")
	case u.Scheme == "https":
		return nil
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if u.Scheme == "http" && (u.Hostname() == "localhost" || err == nil && ip.IsLoopback()) {
		return nil
	}
	return fault.New(fault.Invalid, "target.url: want https; http is for receivers on this host itself (localhost)")
}

// roots are the CAs that the target trusts; nil are the system's.
func (t *Target) roots() (*x509.CertPool, error) {
	if strings.TrimSpace(t.CA) == "" {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(t.CA)) {
		return nil, fault.New(fault.Invalid, "target.ca holds no certificate in PEM form")
	}
	return pool, nil
}

func (t *Target) tls() (*tls.Config, error) {
	pool, err := t.roots()
	return &tls.Config{RootCAs: pool, ServerName: t.Host, MinVersion: tls.VersionTLS12}, err
}

// where names a target in logs and the audit log, without what may be secret.
func (t *Target) where() string {
	if t.URL != "" {
		if u, err := url.Parse(t.URL); err == nil {
			return u.Host
		}
	}
	return net.JoinHostPort(t.Host, fmt.Sprint(t.Port))
}

// endpoint is where the target sends its secret, or proof of it.
func (t *Target) endpoint() string {
	return strings.Join([]string{t.URL, t.Host, fmt.Sprint(t.Port), t.CA, t.Security}, "\x00")
}

// attempt bounds one delivery, from the name to the last answer.
const attempt = 10 * time.Second

// dialer refuses, after names are resolved, the addresses at which clouds
// answer with the credentials of the host, and those that are no host's.
// Private networks stay reachable: that is where receivers are.
var dialer = net.Dialer{Timeout: attempt, Control: func(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	ip := at.Addr().Unmap().WithZone("")
	if ip.IsLinkLocalUnicast() || ip.IsMulticast() || ip.IsUnspecified() || slices.Contains(metadata, ip) {
		return refusal{fmt.Errorf("%s is link-local, a metadata service or no host; notifications are not sent there", ip)}
	}
	return nil
}}

var metadata = []netip.Addr{netip.MustParseAddr("fd00:ec2::254"), netip.MustParseAddr("100.100.100.200")}

// refusal is an error that trying again will hardly mend.
type refusal struct{ error }

func (r refusal) Unwrap() error { return r.error }

// plain takes from errors what may hold a secret: the URL.
func plain(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		return u.Err
	}
	return err
}
