package notify

import (
	"crypto/tls"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/mail"
	"strings"
	"testing"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"komainu/finding"
)

// letter is a mail that the server took.
type letter struct {
	user, from string
	to         []string
	text       string
	encrypted  bool
}

// postOffice is a mail server. It asks for a password where it has one.
type postOffice struct {
	password string
	refuse   error
	got      chan letter
}

func (p *postOffice) NewSession(c *smtp.Conn) (smtp.Session, error) {
	_, encrypted := c.TLSConnectionState()
	return &mailSession{office: p, l: letter{encrypted: encrypted}}, nil
}

type mailSession struct {
	office *postOffice
	l      letter
}

func (s *mailSession) AuthMechanisms() []string {
	if s.office.password == "" {
		return nil
	}
	return []string{sasl.Plain}
}

func (s *mailSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, password string) error {
		if password != s.office.password {
			// Servers have been seen to repeat what they got.
			return errors.New("not valid: " + password)
		}
		s.l.user = user
		return nil
	}), nil
}

func (s *mailSession) Mail(from string, _ *smtp.MailOptions) error {
	if s.office.password != "" && s.l.user == "" {
		return smtp.ErrAuthRequired
	}
	s.l.from = from
	return s.office.refuse
}

func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.l.to = append(s.l.to, to)
	return nil
}

func (s *mailSession) Data(r io.Reader) error {
	text, err := io.ReadAll(r)
	s.l.text = string(text)
	s.office.got <- s.l
	return err
}

func (s *mailSession) Reset()        { s.l.to = nil }
func (s *mailSession) Logout() error { return nil }

// newPostOffice starts a server and returns the target that reaches it.
func newPostOffice(t *testing.T, p *postOffice, security string) Target {
	t.Helper()
	p.got = make(chan letter, 10)
	ca := newAuthority(t)
	server := smtp.NewServer(p)
	server.Domain = "mail.example"
	config := &tls.Config{Certificates: []tls.Certificate{ca.leaf}}
	server.AllowInsecureAuth = security == "none"
	if security != "none" {
		server.TLSConfig = config
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if security == "tls" {
		l = tls.NewListener(l, config)
	}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return Target{Host: "127.0.0.1", Port: port, Security: security, CA: ca.pem, From: "Komainu <komainu@example.org>", To: []string{"ops@example.org", "night@example.org"}}
}

func takeLetter(t *testing.T, p *postOffice) letter {
	t.Helper()
	select {
	case l := <-p.got:
		return l
	case <-t.Context().Done():
		t.Fatal("no mail")
		return letter{}
	}
}

func TestMailArrives(t *testing.T) {
	for _, security := range []string{"starttls", "tls"} {
		t.Run(security, func(t *testing.T) {
			b, p := newBench(t), &postOffice{password: secret}
			target := newPostOffice(t, p, security)
			target.Username = "komainu"
			v := b.create(Wanted{Name: "mail", Kind: SMTP, Target: target, Secret: new(secret)})
			m := alert("Shell <script>\r\nBcc: x@example.org", finding.High)
			m.Devices[0].Name = "<b>web-1</b>"
			b.tell(m)
			defer b.run()()
			v = b.until(v.ID, func(v Notification) bool { return v.Pending == 0 && v.LastDelivery != nil })
			if !v.LastDelivery.Ok {
				t.Fatal(v.LastDelivery.Detail)
			}
			l := takeLetter(t, p)
			if !l.encrypted || l.user != "komainu" || l.from != "komainu@example.org" || strings.Join(l.to, " ") != "ops@example.org night@example.org" {
				t.Errorf("letter %+v", l)
			}
			read, err := mail.ReadMessage(strings.NewReader(l.text))
			if err != nil {
				t.Fatal(err)
			}
			subject, err := new(mime.WordDecoder).DecodeHeader(read.Header.Get("Subject"))
			if err != nil || subject != "[Komainu] New alert (High): Shell <script> Bcc: x@example.org on <b>web-1</b>" || read.Header.Get("Bcc") != "" {
				t.Errorf("subject %q, %v, headers %v", subject, err, read.Header)
			}
			if id := read.Header.Get("X-Komainu-Delivery"); id == "" || read.Header.Get("Message-Id") != "<"+id+"@komainu>" {
				t.Errorf("ids %q, %q", id, read.Header.Get("Message-Id"))
			}
			media, params, err := mime.ParseMediaType(read.Header.Get("Content-Type"))
			if err != nil || media != "multipart/alternative" {
				t.Fatalf("%s, %v", media, err)
			}
			parts := multipart.NewReader(read.Body, params["boundary"])
			for _, want := range []struct{ media, text string }{{"text/plain", "Severity: High"}, {"text/html", "&lt;b&gt;web-1&lt;/b&gt;"}} {
				part, err := parts.NextPart()
				if err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(part)
				if err != nil || !strings.HasPrefix(part.Header.Get("Content-Type"), want.media) || !strings.Contains(string(text), want.text) {
					t.Errorf("part %s: %s, %v", part.Header.Get("Content-Type"), text, err)
				}
				if want.media == "text/html" && strings.Contains(string(text), "<script>") {
					t.Errorf("what a host has named is markup: %s", text)
				}
			}
		})
	}
}

func TestMailWithoutTLSForARelay(t *testing.T) {
	b, p := newBench(t), &postOffice{}
	target := newPostOffice(t, p, "none")
	v := b.create(Wanted{Name: "mail", Kind: SMTP, Target: target})
	got, err := b.Test(b.ctx, &ByID{v.ID})
	if err != nil || !got.Ok {
		t.Fatalf("%+v, %v", got, err)
	}
	if l := takeLetter(t, p); l.encrypted || !strings.Contains(l.text, "test message") {
		t.Errorf("%+v", l)
	}
}

func TestMailNeverFallsBackFromTLS(t *testing.T) {
	b, p := newBench(t), &postOffice{}
	target := newPostOffice(t, p, "none")
	target.Security = "starttls"
	v := b.create(Wanted{Name: "mail", Kind: SMTP, Target: target})
	if got, err := b.Test(b.ctx, &ByID{v.ID}); err != nil || got.Ok || !strings.Contains(got.Detail, "STARTTLS") || len(p.got) != 0 {
		t.Errorf("%+v, %v, %d letters", got, err, len(p.got))
	}
}

func TestMailChecksTheCertificate(t *testing.T) {
	for _, security := range []string{"starttls", "tls"} {
		b, p := newBench(t), &postOffice{}
		target := newPostOffice(t, p, security)
		target.CA = newAuthority(t).pem
		v := b.create(Wanted{Name: "mail", Kind: SMTP, Target: target})
		if got, err := b.Test(b.ctx, &ByID{v.ID}); err != nil || got.Ok || !strings.Contains(got.Detail, "certificate") {
			t.Errorf("%s: %+v, %v", security, got, err)
		}
	}
}

func TestAWrongPasswordIsNotRepeated(t *testing.T) {
	b, p := newBench(t), &postOffice{password: "right"}
	target := newPostOffice(t, p, "starttls")
	target.Username = "komainu"
	v := b.create(Wanted{Name: "mail", Kind: SMTP, Target: target, Secret: new(secret)})
	got, err := b.Test(b.ctx, &ByID{v.ID})
	if err != nil || got.Ok || strings.Contains(got.Detail, secret) || !strings.Contains(got.Detail, "not valid: …") {
		t.Errorf("%+v, %v", got, err)
	}
	if strings.Contains(b.log.String(), secret) {
		t.Error("the log holds the password")
	}
}

func TestMailThatIsRefusedForGoodIsGivenUp(t *testing.T) {
	b, p := newBench(t), &postOffice{refuse: &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 7, 1}, Message: "not you"}}
	v := b.create(Wanted{Name: "mail", Kind: SMTP, Target: newPostOffice(t, p, "starttls")})
	b.tell(alert("x", finding.High))
	defer b.run()()
	v = b.until(v.ID, func(v Notification) bool { return v.Failed == 1 })
	if !strings.Contains(v.FailedDetail, "not you") {
		t.Errorf("given up because of %q", v.FailedDetail)
	}
}
