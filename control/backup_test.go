package control_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"filippo.io/age"

	"komainu/agent/link"
	"komainu/control/client"
	"komainu/control/db"
	"komainu/event"
	"komainu/fault"
	"komainu/policy"
	"komainu/wire"
)

// device is an enrolled device whose link runs and that sends events.
type device struct {
	id     link.Identity
	dir    string
	link   *link.Link
	spool  *spool
	sent   atomic.Uint64
	ending context.CancelFunc
}

// enrolled enrols a device and keeps its link running until the test ends.
func enrolled(t *testing.T, c *client.Client) *device {
	t.Helper()
	list, err := c.Environments(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	token, err := c.CreateJoinToken(t.Context(), list.Items[0].ID, client.JoinTokenRequest{Label: "test"})
	if err != nil {
		t.Fatal(err)
	}
	facts := wire.Facts{Hostname: "web-1", OS: "linux", Distribution: "debian", AgentVersion: "1.0"}
	d := &device{dir: t.TempDir(), spool: &spool{records: make(chan [][]byte)}}
	if d.id, err = link.Enrol(t.Context(), link.EnrolOptions{Dir: d.dir, Token: token.Token, Facts: facts}); err != nil {
		t.Fatal(err)
	}
	d.link = link.New(link.Config{
		Dir: d.dir, Facts: func() wire.Facts { return facts }, Epoch: 7, Sources: []link.Source{d.spool.source(1)},
		PolicyVersion: func() uint64 { return 0 },
		ApplyPolicy: func(s policy.Signed) (uint64, error) {
			doc, err := policy.Open(s, d.id.PolicyKey)
			if err != nil {
				return 0, err
			}
			return doc.Version, nil
		},
		Health: func() []byte { return []byte(`{"healthy":true}`) },
		Counts: func() (uint64, uint64) { return 0, 0 }, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	ctx, cancel := context.WithCancel(t.Context())
	linked := make(chan error, 1)
	go func() { linked <- d.link.Run(ctx) }()
	d.ending = func() { cancel(); <-linked }
	t.Cleanup(d.ending)
	return d
}

// send sends one event and returns false when ctx ended before it was taken.
func (d *device) send(ctx context.Context, t *testing.T) bool {
	t.Helper()
	n := d.sent.Add(1)
	record, err := wire.EncodeEvent(&event.Event{ID: event.ID{Epoch: 7, Source: event.FromFile, Seq: n}, Time: time.Now(), Action: event.FileCreated, File: &event.File{Path: "/srv/x"}})
	if err != nil {
		t.Error(err)
		return false
	}
	select {
	case d.spool.records <- [][]byte{record}:
		return true
	case <-ctx.Done():
		return false
	}
}

func (d *device) acknowledged(t *testing.T, n uint64) {
	t.Helper()
	eventually(t, func() string {
		if d.spool.acked.Load() < n {
			return "not everything is acknowledged"
		}
		return ""
	})
}

// stored counts the events of the device in the store.
func stored(t *testing.T, c *client.Client, d *device) int {
	t.Helper()
	n, next := 0, ""
	for {
		page, err := c.Timeline(t.Context(), string(d.id.Device), client.Query{"limit": "1000", "cursor": next})
		if err != nil {
			t.Log(err)
			return -1
		}
		n += len(page.Items)
		if next = page.Next; next == "" {
			return n
		}
	}
}

// TestRestoreBringsEverythingBack backs a control plane up while events flow,
// wipes it, and restores the backup elsewhere: the device comes back by itself,
// with a certificate that it got after the backup, and what was acknowledged
// before the backup is there.
func TestRestoreBringsEverythingBack(t *testing.T) {
	p := start(t, t.TempDir())
	c := p.admin(t)
	d := enrolled(t, c)
	const before = 200
	for range before {
		d.send(t.Context(), t)
	}
	d.acknowledged(t, before)
	ctx, cancel := context.WithCancel(t.Context())
	flowing := make(chan struct{})
	go func() {
		defer close(flowing)
		for d.send(ctx, t) {
		}
	}()
	folder := t.TempDir()
	file := filepath.Join(folder, "komainu.backup")
	secret := filepath.Join(folder, "passphrase")
	if err := os.WriteFile(secret, []byte("not a good passphrase\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, text := command(t, "backup", "--state", p.state, "--to", file, "--passphrase-file", secret)
	if code != 0 || !strings.Contains(out, "found whole") {
		t.Fatalf("%d %s%s", code, out, text)
	}
	t.Log(out)
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup: %v, %v", info, err)
	}

	// After the backup the device renews its certificate; the restored control
	// plane has never seen the new one.
	d.renew(t)
	cancel()
	<-flowing
	if code := p.stop(); code != 0 {
		t.Fatal(code)
	}
	address := strings.TrimPrefix(p.url, "https://")
	if err := os.RemoveAll(p.state); err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	code, out, text = command(t, "restore", "--state", state, "--from", file, "--passphrase-file", secret)
	if code != 0 || !strings.Contains(out, "devices          1") {
		t.Fatalf("%d %s%s", code, out, text)
	}
	t.Log(out)
	again := start(t, state, "--listen", address)
	c = again.client(t, "")
	if _, err := c.SignIn(t.Context(), "admin", "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if got, err := c.Device(t.Context(), string(d.id.Device)); err != nil || !got.Connected {
			return "the device does not come back: " + fmt.Sprint(d.link.State().Error)
		}
		return ""
	})
	eventually(t, func() string {
		if n := stored(t, c, d); n < before {
			return fmt.Sprintf("%d of %d events that were acknowledged before the backup are there", n, before)
		}
		return ""
	})
	// And it goes on from there.
	d.send(t.Context(), t)
	d.acknowledged(t, d.sent.Load()-1) // one was counted, and not taken, when the flow ended
	db, err := db.Open(state)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if n, err := db.NewSelect().Table("audit_log").Where("action = 'backup.make'").Count(t.Context()); err != nil || n != 1 {
		t.Errorf("the backup is in the audit log %d times, %v", n, err)
	}
}

// renew gives the device another certificate, as its link does it every few
// days.
func (d *device) renew(t *testing.T) {
	t.Helper()
	old, err := link.Load(d.dir)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair([]byte(old.Certificate), []byte(old.Key))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(old.CA))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(map[string]string{"csr": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr}))})
	if err != nil {
		t.Fatal(err)
	}
	agent := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}},
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, NextProtos: []string{link.ALPN}}}
			return dialer.DialContext(ctx, network, address)
		},
	}}
	defer agent.CloseIdleConnections()
	res, err := agent.Post(old.Server+"/agent/v1/renew", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	next := old
	if err := json.NewDecoder(res.Body).Decode(&next); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s %v", res.Status, err)
	}
	next.Key = string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	text, err := json.Marshal(next)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.dir, "identity.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if now, err := link.Load(d.dir); err != nil || now.Certificate == old.Certificate {
		t.Fatalf("the certificate is not renewed: %v", err)
	}
}

// TestRestoreRefuses names what it does not restore, and leaves nothing.
func TestRestoreRefuses(t *testing.T) {
	p := start(t, t.TempDir())
	folder := t.TempDir()
	file := filepath.Join(folder, "komainu.backup")
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if code, out, text := command(t, "backup", "--state", p.state, "--to", file, "--recipient", key.Recipient().String()); code != 0 {
		t.Fatalf("%d %s%s", code, out, text)
	}
	write := func(name, text string) string {
		name = filepath.Join(folder, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	good := write("key", key.String()+"\n")
	plain := filepath.Join(folder, "plain.backup")
	p.stop()
	if code, out, text := command(t, "backup", "--state", p.state, "--to", plain); code != 0 { // of one that does not run
		t.Fatalf("%d %s%s", code, out, text)
	}
	content, err := os.ReadFile(plain)
	if err != nil {
		t.Fatal(err)
	}
	spoiled := bytes.Clone(content)
	spoiled[len(spoiled)/2] ^= 1
	for name, tt := range map[string]struct{ args, says string }{
		"no_key":    {"--from " + file, "is encrypted"},
		"wrong_key": {"--from " + file + " --passphrase-file " + good, "cannot be decrypted"},
		"cut":       {"--from " + write("cut", string(content[:len(content)-100])), "damaged or incomplete"},
		"spoiled":   {"--from " + write("spoiled", string(spoiled)), "damaged or incomplete"},
		"other":     {"--from " + good, "no backup of Komainu"},
		"nothing":   {"", "--from"},
		"no_file":   {"--from " + folder + "/none", "no such file"},
		"not_empty": {"--from " + plain + " --state " + p.state, "is not empty"},
	} {
		t.Run(name, func(t *testing.T) {
			state := filepath.Join(t.TempDir(), "state")
			code, _, text := command(t, append([]string{"restore", "--state", state}, strings.Fields(tt.args)...)...)
			if code == 0 || !strings.Contains(text, tt.says) {
				t.Errorf("%d %s", code, text)
			}
			left, _ := os.ReadDir(state) // there may be none
			left = slices.DeleteFunc(left, func(e os.DirEntry) bool { return e.Name() == "lock" })
			if len(left) > 0 {
				t.Errorf("it leaves %v", left)
			}
		})
	}
	state := filepath.Join(t.TempDir(), "state")
	if code, out, text := command(t, "restore", "--state", state, "--from", file, "--identity", good); code != 0 || !strings.Contains(out, "users            1") {
		t.Errorf("%d %s%s", code, out, text)
	}
}

// TestCommandsNeedAControlPlane: what only a running one can do says so.
func TestCommandsNeedAControlPlane(t *testing.T) {
	if code, _, text := command(t, "log", "level", "--to", "debug", "--state", t.TempDir()); code == 0 || !strings.Contains(text, "no control plane runs") {
		t.Errorf("%d %s", code, text)
	}
	p := start(t, t.TempDir())
	if code, out, text := command(t, "log", "level", "--to", "debug", "--state", p.state); code != 0 || !strings.Contains(out, "debug") {
		t.Errorf("%d %s%s", code, out, text)
	}
	if code, _, text := command(t, "log", "level", "--to", "loud", "--state", p.state); code != fault.ExitUsage || !strings.Contains(text, "loud") {
		t.Errorf("%d %s", code, text)
	}
}
