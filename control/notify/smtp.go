package notify

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"strings"

	"github.com/wneessen/go-mail"
)

var page = template.Must(template.New("mail").Parse(`<!doctype html>
<html lang="en"><body style="font-family:sans-serif;color:#222">
<h2 style="font-size:18px">{{.Line}}</h2>
{{with .Summary}}<p>{{.}}</p>{{end}}
<table style="border-collapse:collapse">{{range .Facts}}<tr><th style="text-align:left;padding:2px 16px 2px 0">{{.Name}}</th><td>{{.Value}}</td></tr>{{end}}</table>
{{with .Link}}<p><a href="{{.}}">Open in Komainu</a></p>{{end}}
</body></html>
`))

type fact struct{ Name, Value string }

func (m *Message) facts() []fact {
	var list []fact
	add := func(name, value string) {
		if value = oneLine(value); value != "" {
			list = append(list, fact{name, value})
		}
	}
	if m.Event == EventTest {
		return nil
	}
	add("Severity", m.Severity.String())
	add("Status", m.Status)
	add("Device", m.deviceNames())
	add("Category", strings.Join(m.Subject.Categories, ", "))
	add("Threat", m.Subject.ThreatName)
	add("Rule", m.Subject.Rule)
	add("Assigned to", m.Subject.Assignee)
	if !m.Subject.FirstActivity.IsZero() {
		add("First activity", m.Subject.FirstActivity.UTC().Format("2006-01-02 15:04:05 UTC"))
		add("Last activity", m.Subject.LastActivity.UTC().Format("2006-01-02 15:04:05 UTC"))
	}
	return list
}

func (m *Message) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n\n", m.line())
	if m.Summary != "" {
		fmt.Fprintf(&b, "%s\n\n", oneLine(m.Summary))
	}
	for _, f := range m.facts() {
		fmt.Fprintf(&b, "%s: %s\n", f.Name, f.Value)
	}
	if m.Link != "" {
		fmt.Fprintf(&b, "\n%s\n", m.Link)
	}
	return b.String()
}

func (m *Message) html() (string, error) {
	var b strings.Builder
	err := page.Execute(&b, map[string]any{"Line": m.line(), "Summary": m.Summary, "Facts": m.facts(), "Link": m.Link})
	return b.String(), err
}

// mechanisms are the ways to sign in, best first.
var mechanisms = []mail.SMTPAuthType{mail.SMTPAuthSCRAMSHA256PLUS, mail.SMTPAuthSCRAMSHA256, mail.SMTPAuthSCRAMSHA1PLUS, mail.SMTPAuthSCRAMSHA1, mail.SMTPAuthPlain, mail.SMTPAuthLogin}

// mail sends a message as text and HTML.
func (n *Notifier) mail(ctx context.Context, t *Target, secret string, m *Message) (string, error) {
	letter := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := letter.From(t.From); err != nil {
		return "", refusal{fmt.Errorf("the address of the sender: %w", err)}
	}
	if err := letter.To(t.To...); err != nil {
		return "", refusal{fmt.Errorf("the address of a recipient: %w", err)}
	}
	letter.Subject("[Komainu] " + m.line())
	letter.SetDateWithValue(m.Time)
	// The same in every attempt, so that mail systems can drop the second.
	letter.SetMessageIDWithValue(m.ID + "@komainu")
	letter.SetGenHeader("X-Komainu-Delivery", m.ID)
	letter.SetGenHeader("Auto-Submitted", "auto-generated")
	html, err := m.html()
	if err != nil {
		return "", err
	}
	letter.SetBodyString(mail.TypeTextPlain, m.text())
	letter.AddAlternativeString(mail.TypeTextHTML, html)

	config, err := t.tls()
	if err != nil {
		return "", err
	}
	options := []mail.Option{mail.WithPort(t.Port), mail.WithTimeout(attempt), mail.WithTLSConfig(config), mail.WithTLSPolicy(mail.TLSMandatory), mail.WithoutNoop()}
	switch t.Security {
	case "tls":
		tlsDial := &tlsDialer{config}
		options = append(options, mail.WithSSL(), mail.WithDialContextFunc(tlsDial.DialContext))
	case "none":
		options = append(options, mail.WithTLSPolicy(mail.NoTLS), mail.WithDialContextFunc(dialer.DialContext))
	default:
		options = append(options, mail.WithDialContextFunc(dialer.DialContext))
	}
	if t.Username != "" {
		// The strongest that the server offers. A password never travels in
		// the clear: without TLS there is none.
		options = append(options, mail.WithOpportunisticSMTPAuth(mechanisms...), mail.WithUsername(t.Username), mail.WithPassword(secret))
	}
	client, err := mail.NewClient(t.Host, options...)
	if err != nil {
		return "", refusal{err}
	}
	if err := client.DialAndSendWithContext(ctx, letter); err != nil {
		// The server may repeat what it was sent.
		err = hide(err, secret)
		if s, ok := errors.AsType[*mail.SendError](err); ok && !s.IsTemp() && s.ErrorCode() >= 500 {
			return "", refusal{err}
		}
		return "", err
	}
	return fmt.Sprintf("the server took it for %d recipients", len(t.To)), nil
}
