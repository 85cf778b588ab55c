package notify

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/db"
	"komainu/fault"
	"komainu/finding"
)

const (
	org    = "org"
	secret = "a-secret-of-sixteen-or-more"
)

// buffer is a log that several goroutines write to.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// bench is a notifier over a database in a folder.
type bench struct {
	*Notifier
	t       *testing.T
	dir     string
	ctx     context.Context
	log     *buffer
	audit   []access.Change
	changed chan string
	pause   time.Duration
	now     func() time.Time
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir(), log: &buffer{}, pause: time.Millisecond, now: time.Now, changed: make(chan string, 1000)}
	b.ctx = access.WithActor(t.Context(), access.Actor{Kind: access.User, Name: "kim", Organization: org})
	b.reopen()
	t.Cleanup(func() { b.Notifier.db.Close() })
	return b
}

// reopen starts anew over the same folder, as after a crash.
func (b *bench) reopen() {
	b.t.Helper()
	if b.Notifier != nil {
		b.Notifier.db.Close()
	}
	state, err := db.Open(b.dir)
	b.must(err)
	b.must(db.Migrate(b.t.Context(), state, Migrations))
	b.Notifier, err = Open(Config{
		DB: state, Dir: filepath.Join(b.dir, "keys"), Log: slog.New(slog.NewTextHandler(b.log, nil)), Version: "test", Host: "plane", Now: func() time.Time { return b.now() },
		Record: func(_ context.Context, _ bun.IDB, c access.Change) error { b.audit = append(b.audit, c); return nil },
		Changed: func(_, id string) {
			select {
			case b.changed <- id:
			default:
			}
		},
		Pause: func(int) time.Duration { return b.pause },
	})
	b.must(err)
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

// run delivers until the returned func is called.
func (b *bench) run() (stop func()) {
	ctx, cancel := context.WithCancel(b.ctx)
	done := make(chan error, 1)
	n := b.Notifier
	go func() { done <- n.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Error(err)
		}
	})
}

func (b *bench) create(w Wanted) Notification {
	b.t.Helper()
	v, err := b.Create(b.ctx, &CreateInput{Body: w})
	b.must(err)
	return v
}

func (b *bench) get(id string) Notification {
	b.t.Helper()
	v, err := b.Get(b.ctx, &ByID{id})
	b.must(err)
	return v
}

// tell enqueues a message as the desk does.
func (b *bench) tell(m Message) {
	b.t.Helper()
	b.must(b.db.RunInTx(b.ctx, nil, func(ctx context.Context, tx bun.Tx) error { return b.Enqueue(ctx, tx, org, m) }))
	b.Wake()
}

// until waits until the notification is as wanted.
func (b *bench) until(id string, ok func(Notification) bool) Notification {
	b.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		v := b.get(id)
		if ok(v) {
			return v
		}
		select {
		case <-b.changed:
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			b.t.Fatalf("still %+v; log:\n%s", v, b.log)
		}
	}
}

func alert(title string, s finding.Severity) Message {
	return Message{
		Event: "alert.created", Severity: s, Title: title, Summary: "What happened.", Status: "New", Link: "https://plane.example/alerts/da1",
		Devices: []Device{{"dev", "web-1"}}, Subject: Subject{Kind: "alert", ID: "da1", Categories: []string{"Malware"}, DetectionSource: []string{"Antivirus"}},
	}
}

// authority makes certificates for 127.0.0.1.
type authority struct {
	pem  string
	leaf tls.Certificate
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "receiver"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return authority{string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
}

// received is what a webhook got.
type received struct {
	Message
	header http.Header
	body   []byte
}

// receiver is an HTTPS server that answers what answer says.
type receiver struct {
	*httptest.Server
	ca  string
	got chan received
}

func newReceiver(t *testing.T, answer func(w http.ResponseWriter, r received)) *receiver {
	t.Helper()
	r := &receiver{got: make(chan received, 100)}
	r.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		got := received{header: req.Header, body: body}
		if err := json.Unmarshal(body, &got.Message); err != nil {
			t.Errorf("body %s: %v", body, err)
		}
		r.got <- got
		if answer != nil {
			answer(w, got)
		}
	}))
	ca := newAuthority(t)
	r.ca = ca.pem
	r.TLS = &tls.Config{Certificates: []tls.Certificate{ca.leaf}}
	r.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	r.StartTLS()
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) wanted(name string) Wanted {
	return Wanted{Name: name, Kind: Webhook, Target: Target{URL: r.URL, CA: r.ca}, Secret: new(secret)}
}

func take(t *testing.T, from chan received) received {
	t.Helper()
	select {
	case got := <-from:
		return got
	case <-time.After(10 * time.Second):
		t.Fatal("nothing arrived")
		return received{}
	}
}

func TestWebhookIsSignedAndVerifiable(t *testing.T) {
	b, r := newBench(t), newReceiver(t, nil)
	v := b.create(r.wanted("hook"))
	defer b.run()()
	b.tell(alert("Reverse shell", finding.High))
	got := take(t, r.got)
	if got.Title != "Reverse shell" || got.Severity != finding.High || got.Version != 1 || got.ID == "" || got.Devices[0].Name != "web-1" {
		t.Errorf("got %+v", got.Message)
	}
	if got.header.Get(DeliveryHeader) != got.ID || got.header.Get(EventHeader) != "alert.created" || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("headers %v", got.header)
	}
	// As docs/notifications.md tells receivers to do it.
	stamp, _, ok := strings.Cut(strings.TrimPrefix(got.header.Get(SignatureHeader), "t="), ",v1=")
	var seconds int64
	if _, err := fmt.Sscan(stamp, &seconds); !ok || err != nil || time.Since(time.Unix(seconds, 0)).Abs() > time.Minute {
		t.Fatalf("signature %q, %v", got.header.Get(SignatureHeader), err)
	}
	if want := Sign(secret, time.Unix(seconds, 0), got.body); got.header.Get(SignatureHeader) != want {
		t.Errorf("signature %q, want %q", got.header.Get(SignatureHeader), want)
	}
	if Sign("another", time.Unix(seconds, 0), got.body) == got.header.Get(SignatureHeader) {
		t.Error("the secret does not matter")
	}
	v = b.until(v.ID, func(v Notification) bool { return v.LastDelivery != nil && v.Pending == 0 })
	if !v.LastDelivery.Ok || v.LastDelivery.Detail != "HTTP status 200" {
		t.Errorf("last delivery %+v", v.LastDelivery)
	}
}

// TestSignatureIsTheDocumentedOne pins the example of docs/notifications.md.
func TestSignatureIsTheDocumentedOne(t *testing.T) {
	got := Sign("0123456789abcdef", time.Unix(1767225600, 0), []byte(`{"id":"x"}`))
	doc, err := os.ReadFile("../../docs/notifications.md")
	if err != nil || !strings.Contains(string(doc), got) {
		t.Errorf("the document lacks %s, %v", got, err)
	}
}

func TestOrderAndIDsHoldOverFailures(t *testing.T) {
	failures := 3
	r := newReceiver(t, func(w http.ResponseWriter, _ received) {
		if failures > 0 {
			failures--
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	b := newBench(t)
	v := b.create(r.wanted("hook"))
	for i := range 5 {
		b.tell(alert(fmt.Sprint("alert ", i), finding.Low))
	}
	defer b.run()()
	first := take(t, r.got)
	for range 3 {
		if again := take(t, r.got); again.ID != first.ID || string(again.body) != string(first.body) {
			t.Errorf("%s %q after %s", again.ID, again.Title, first.ID)
		}
	}
	for i := 1; i < 5; i++ {
		if got := take(t, r.got); got.Title != fmt.Sprint("alert ", i) || got.ID == first.ID {
			t.Errorf("%q in place %d", got.Title, i)
		}
	}
	b.until(v.ID, func(v Notification) bool { return v.Pending == 0 && v.Failed == 0 })
}

// TestACrashInTheMiddle stops between the receiver's taking of a message and
// our knowing it.
func TestACrashInTheMiddle(t *testing.T) {
	hang := make(chan struct{})
	var once sync.Once
	r := newReceiver(t, func(_ http.ResponseWriter, got received) {
		if got.Title == "second" {
			once.Do(func() { <-hang })
		}
	})
	b := newBench(t)
	v := b.create(r.wanted("hook"))
	stop := b.run()
	for _, title := range []string{"first", "second", "third"} {
		b.tell(alert(title, finding.Low))
	}
	take(t, r.got)
	taken := take(t, r.got)
	stop()
	close(hang)
	b.reopen()
	defer b.run()()
	again, third := take(t, r.got), take(t, r.got)
	if taken.Title != "second" || again.ID != taken.ID || string(again.body) != string(taken.body) || third.Title != "third" {
		t.Errorf("%q, %q, %q", taken.Title, again.Title, third.Title)
	}
	b.until(v.ID, func(v Notification) bool { return v.Pending == 0 })
	select {
	case more := <-r.got:
		t.Errorf("%q arrived again", more.Title)
	default:
	}
}

func TestARolledBackChangeIsNotTold(t *testing.T) {
	b := newBench(t)
	v := b.create(newReceiver(t, nil).wanted("hook"))
	err := b.db.RunInTx(b.ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		return errors.Join(b.Enqueue(ctx, tx, org, alert("never", finding.High)), errors.New("no"))
	})
	if err == nil || b.get(v.ID).Pending != 0 {
		t.Errorf("%v, %d pending", err, b.get(v.ID).Pending)
	}
}

func TestWhatIsRefusedIsGivenUpWithItsReason(t *testing.T) {
	r := newReceiver(t, func(w http.ResponseWriter, got received) {
		if got.Title == "bad" {
			http.Error(w, "the secret of another host", http.StatusBadRequest)
		}
	})
	b := newBench(t)
	v := b.create(r.wanted("hook"))
	b.tell(alert("bad", finding.Low))
	b.tell(alert("good", finding.Low))
	defer b.run()()
	for range maxRefused {
		take(t, r.got)
	}
	if got := take(t, r.got); got.Title != "good" {
		t.Errorf("%q", got.Title)
	}
	v = b.until(v.ID, func(v Notification) bool { return v.Pending == 0 })
	if v.Failed != 1 || !strings.Contains(v.FailedDetail, "400") || strings.Contains(v.FailedDetail, "another host") {
		t.Errorf("%d failed: %q", v.Failed, v.FailedDetail)
	}
}

func TestAReceiverThatStaysDownIsGivenUp(t *testing.T) {
	b := newBench(t)
	v := b.create(Wanted{Name: "down", Kind: Webhook, Target: Target{URL: "http://127.0.0.1:1"}, Secret: new(secret)})
	b.tell(alert("a", finding.Low))
	b.tell(alert("b", finding.Low))
	b.now = func() time.Time { return time.Now().Add(25 * time.Hour) }
	defer b.run()()
	v = b.until(v.ID, func(v Notification) bool { return v.Failed == 2 })
	if !strings.Contains(v.FailedDetail, "refused") || v.LastDelivery.Ok {
		t.Errorf("%+v, %q", v.LastDelivery, v.FailedDetail)
	}
}

func TestPauses(t *testing.T) {
	total := time.Duration(0)
	for i := 1; i < maxAttempts; i++ {
		if p := pause(i); p < firstPause || p > longPause || i > 1 && p < pause(i-1) {
			t.Errorf("pause %d is %v", i, p)
		}
		total += pause(i)
	}
	if total < 18*time.Hour || total > maxAge {
		t.Errorf("a message is tried for %v", total)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	other := newReceiver(t, nil)
	r := newReceiver(t, func(w http.ResponseWriter, _ received) {
		w.Header().Set("Location", other.URL)
		w.WriteHeader(http.StatusTemporaryRedirect)
	})
	b := newBench(t)
	w := r.wanted("hook")
	w.Target.CA += other.ca
	v := b.create(w)
	got, err := b.Test(b.ctx, &ByID{v.ID})
	if err != nil || got.Ok || !strings.Contains(got.Detail, "redirect") {
		t.Errorf("%+v, %v", got, err)
	}
	select {
	case <-other.got:
		t.Error("it was followed")
	default:
	}
}

func TestCertificatesAreVerified(t *testing.T) {
	b, r := newBench(t), newReceiver(t, nil)
	w := r.wanted("hook")
	w.Target.CA = newAuthority(t).pem
	v := b.create(w)
	got, err := b.Test(b.ctx, &ByID{v.ID})
	if err != nil || got.Ok || !strings.Contains(got.Detail, "certificate") {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestMetadataServicesAreOutOfReach(t *testing.T) {
	b := newBench(t)
	for _, url := range []string{"https://169.254.169.254/latest", "https://[fe80::1]/", "https://[fd00:ec2::254]/", "https://0.0.0.0/", "https://[::ffff:169.254.169.254]/"} {
		v := b.create(Wanted{Name: url, Kind: Webhook, Target: Target{URL: url}, Secret: new(secret)})
		got, err := b.Test(b.ctx, &ByID{v.ID})
		if err != nil || got.Ok || !strings.Contains(got.Detail, "not sent there") {
			t.Errorf("%s: %+v, %v", url, got, err)
		}
	}
}

func TestWhatIsWanted(t *testing.T) {
	b, r := newBench(t), newReceiver(t, nil)
	w := r.wanted("hook")
	w.MinSeverity = new(finding.Medium)
	w.On = []Trigger{OnAlert, OnStatus}
	v := b.create(w)
	pending := func(m Message) int {
		t.Helper()
		before := b.get(v.ID).Pending
		b.tell(m)
		return b.get(v.ID).Pending - before
	}
	edit := func(m Message, f func(*Message)) Message { f(&m); return m }
	high := alert("x", finding.High)
	for name, c := range map[string]struct {
		m    Message
		want int
	}{
		"severe":                   {high, 1},
		"not severe enough":        {alert("x", finding.Low), 0},
		"a test":                   {edit(high, func(m *Message) { m.Test = true }), 0},
		"an incident":              {edit(high, func(m *Message) { m.Event = "incident.created" }), 0},
		"a change":                 {edit(high, func(m *Message) { m.Event = "alert.changed" }), 1},
		"risen to what is wanted":  {edit(high, func(m *Message) { m.Event, m.Was = "alert.raised", finding.Low }), 1},
		"risen above what is told": {edit(high, func(m *Message) { m.Event, m.Was = "alert.raised", finding.Medium }), 0},
	} {
		if got := pending(c.m); got != c.want {
			t.Errorf("%s: %d", name, got)
		}
	}
	w = r.wanted("hook")
	w.Enabled, w.Secret = new(false), nil
	if _, err := b.Update(b.ctx, &UpdateInput{ID: v.ID, Body: w}); err != nil {
		t.Fatal(err)
	}
	if got := pending(high); got != 0 {
		t.Errorf("a disabled one: %d", got)
	}
}

func TestRefusedNotifications(t *testing.T) {
	b := newBench(t)
	hook := func(url string) Wanted {
		return Wanted{Name: "x", Kind: Webhook, Target: Target{URL: url}, Secret: new(secret)}
	}
	smtp := Target{Host: "mail.example", From: "a@example.org", To: []string{"b@example.org"}}
	for name, w := range map[string]Wanted{
		"http to another host":    hook("http://example.org/"),
		"a password in the URL":   hook("https://user:hunter2hunter2@example.org/"),
		"no URL":                  hook("example"),
		"a file":                  hook("file:///etc/passwd"),
		"no secret":               {Name: "x", Kind: Webhook, Target: Target{URL: "https://example.org"}},
		"a short secret":          {Name: "x", Kind: Webhook, Target: Target{URL: "https://example.org"}, Secret: new("short")},
		"a broken CA":             {Name: "x", Kind: Webhook, Target: Target{URL: "https://example.org", CA: "hello"}, Secret: new(secret)},
		"no recipient":            {Name: "x", Kind: SMTP, Target: Target{Host: "mail.example", From: "a@example.org"}},
		"a header in an address":  {Name: "x", Kind: SMTP, Target: Target{Host: "mail.example", From: "a@example.org\r\nBcc: c@example.org", To: smtp.To}},
		"a password without TLS":  {Name: "x", Kind: SMTP, Target: Target{Host: "mail.example", From: smtp.From, To: smtp.To, Security: "none", Username: "u"}, Secret: new(secret)},
		"a password for nobody":   {Name: "x", Kind: SMTP, Target: smtp, Secret: new(secret)},
		"a secret for syslog":     {Name: "x", Kind: Syslog, Target: Target{Host: "log.example"}, Secret: new(secret)},
		"a facility of one's own": {Name: "x", Kind: Syslog, Target: Target{Host: "log.example", Facility: new(24)}},
		"an unknown kind":         {Name: "x", Kind: "pigeon"},
		"an unknown trigger":      {Name: "x", Kind: Syslog, Target: Target{Host: "log.example"}, On: []Trigger{"never"}},
	} {
		_, err := b.Create(b.ctx, &CreateInput{Body: w})
		if !fault.Is(err, fault.Invalid) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
	}
	v := b.create(Wanted{Name: "x", Kind: Syslog, Target: Target{Host: "log.example"}})
	if v.Target.Port != 6514 || v.Target.Protocol != "tls" || *v.Target.Facility != 13 {
		t.Errorf("filled to %+v", v.Target)
	}
	if _, err := b.Create(b.ctx, &CreateInput{Body: Wanted{Name: "x", Kind: Syslog, Target: Target{Host: "log.example"}}}); !fault.Is(err, fault.Conflict) {
		t.Errorf("the same name: %v", err)
	}
	if _, err := b.Update(b.ctx, &UpdateInput{ID: v.ID, Body: Wanted{Name: "y", Kind: Syslog, Target: Target{Host: "log.example"}, Version: 7}}); !fault.Is(err, fault.Conflict) {
		t.Errorf("a stale change: %v", err)
	}
	stranger := access.WithActor(b.ctx, access.Actor{Organization: "another"})
	if _, err := b.Get(stranger, &ByID{v.ID}); !fault.Is(err, fault.NotFound) {
		t.Errorf("of another organization: %v", err)
	}
	if err := b.Delete(stranger, &ByID{v.ID}); !fault.Is(err, fault.NotFound) {
		t.Errorf("of another organization: %v", err)
	}
}

// TestSecretsStayInside looks in every answer, every log line, the audit log
// and the files of the database.
func TestSecretsStayInside(t *testing.T) {
	r := newReceiver(t, func(w http.ResponseWriter, _ received) { w.WriteHeader(http.StatusForbidden) })
	b := newBench(t)
	var answers []any
	v := b.create(r.wanted("hook"))
	answers = append(answers, v)
	w := r.wanted("renamed")
	w.Target.URL += "/token-in-path"
	if _, err := b.Update(b.ctx, &UpdateInput{ID: v.ID, Body: Wanted{Name: "hook", Kind: Webhook, Target: w.Target}}); !fault.Is(err, fault.Invalid) {
		t.Errorf("the secret would go elsewhere: %v", err)
	}
	u, err := b.Update(b.ctx, &UpdateInput{ID: v.ID, Body: w})
	b.must(err)
	test, err := b.Test(b.ctx, &ByID{v.ID})
	b.must(err)
	b.tell(alert("x", finding.High))
	stop := b.run()
	b.until(v.ID, func(v Notification) bool { return v.Failed == 1 })
	stop()
	list, err := b.List(b.ctx, &ListInput{})
	b.must(err)
	answers = append(answers, u, test, list, b.get(v.ID), b.audit)
	text, err := json.Marshal(answers)
	b.must(err)
	for place, content := range map[string]string{"an answer": string(text), "the log": b.log.String()} {
		if strings.Contains(content, secret) {
			t.Errorf("%s holds the secret: %s", place, content)
		}
	}
	if strings.Contains(b.log.String(), "token-in-path") {
		t.Errorf("the log holds the path of the URL: %s", b.log)
	}
	audit, err := json.Marshal(b.audit)
	b.must(err)
	if strings.Contains(string(audit), "token-in-path") {
		t.Errorf("the audit log holds the path of the URL: %s", audit)
	}
	files, err := filepath.Glob(filepath.Join(b.dir, db.File+"*"))
	b.must(err)
	if len(files) < 1 {
		t.Fatal("no files of the database")
	}
	for _, name := range files {
		content, err := os.ReadFile(name)
		b.must(err)
		if bytes.Contains(content, []byte(secret)) {
			t.Errorf("%s holds the secret", name)
		}
	}
	if info, err := os.Stat(filepath.Join(b.dir, "keys", "notify.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v", info, err)
	}
	// A secret that somebody has moved to another row does not open there.
	other := b.create(r.wanted("other"))
	_, err = b.db.NewRaw("UPDATE notifications SET secret = (SELECT secret FROM notifications WHERE id = ?) WHERE id = ?", v.ID, other.ID).Exec(b.ctx)
	b.must(err)
	if got, err := b.Test(b.ctx, &ByID{other.ID}); err != nil || got.Ok || !strings.Contains(got.Detail, "enter it again") {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestTheQueueIsBounded(t *testing.T) {
	b := newBench(t)
	v := b.create(newReceiver(t, nil).wanted("hook"))
	_, err := b.db.NewRaw(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
		INSERT INTO notification_outbox (id, notification_id, message, created_at, attempts, dead, detail) SELECT 'm' || i, ?, '{}', '2026-01-01', 0, FALSE, '' FROM n`, maxPending, v.ID).Exec(b.ctx)
	b.must(err)
	b.tell(alert("one too many", finding.High))
	if v := b.get(v.ID); v.Pending != maxPending || v.Dropped != 1 {
		t.Errorf("%d pending, %d dropped", v.Pending, v.Dropped)
	}
}

func TestASlowTargetHoldsUpNoOther(t *testing.T) {
	hang := make(chan struct{})
	slow := newReceiver(t, func(http.ResponseWriter, received) { <-hang })
	fast := newReceiver(t, nil)
	b := newBench(t)
	b.create(slow.wanted("slow"))
	b.create(fast.wanted("fast"))
	stop := b.run()
	b.tell(alert("x", finding.High))
	take(t, slow.got)
	take(t, fast.got)
	stop()
	close(hang)
}
