package control_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"komainu/control"
	"komainu/control/client"
)

// secret is something that nobody may find.
type secret struct {
	name  string
	forms []string // in which it may be written
}

// formsOf are the ways in which programs write bytes down.
func formsOf(name string, raw []byte) secret {
	quoted, _ := json.Marshal(string(raw)) // a string has no error
	s := secret{name: name, forms: []string{string(raw), hex.EncodeToString(raw), strings.Trim(string(quoted), `"`), url.QueryEscape(string(raw))}}
	// Base64 depends on where in a text the bytes begin.
	for skip := range 3 {
		text := base64.StdEncoding.EncodeToString(append(make([]byte, skip), raw...))
		if len(text) > 16 {
			s.forms = append(s.forms, text[8:len(text)-4])
		}
	}
	return s
}

// watcher keeps everything that leaves a process.
type watcher struct {
	mu   sync.Mutex
	seen map[string]*bytes.Buffer
}

func (w *watcher) take(where string, p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen[where] == nil {
		w.seen[where] = new(bytes.Buffer)
	}
	w.seen[where].Write(p)
}

// stream is a writer whose bytes are kept.
type stream struct {
	w     *watcher
	where string
	also  io.Writer
}

func (s stream) Write(p []byte) (int, error) {
	s.w.take(s.where, p)
	if s.also != nil {
		return s.also.Write(p)
	}
	return len(p), nil
}

// look reports every place where a secret stands.
func (w *watcher) look(t *testing.T, secrets []secret) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	total := 0
	for where, b := range w.seen {
		total += b.Len()
		for _, s := range secrets {
			for _, form := range s.forms {
				if i := strings.Index(b.String(), form); i >= 0 {
					t.Errorf("%s stands in %s: …%q…", s.name, where, b.String()[max(0, i-60):i])
					break
				}
			}
		}
	}
	t.Logf("looked at %d bytes from %d places", total, len(w.seen))
}

// folder takes every file below a folder.
func (w *watcher) folder(t *testing.T, name, dir string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		if err == nil {
			rel, _ := filepath.Rel(dir, path) // it is below
			w.take(name+" "+rel, text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// echoingHost is a server that takes every login, asks for the password of
// sudo, and says aloud what it is given, in every way that a host can say
// something.
func echoingHost(t *testing.T, w *watcher) string {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil }}
	config.AddHostKey(key)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer raw.Close()
				_, channels, requests, err := ssh.NewServerConn(raw, config)
				if err != nil {
					return
				}
				go ssh.DiscardRequests(requests)
				for c := range channels {
					channel, requests, err := c.Accept()
					if err != nil {
						return
					}
					go func() {
						for r := range requests {
							_ = r.Reply(r.Type == "exec", nil)
							if r.Type == "exec" {
								w.take("a command on a host", r.Payload)
								go echo(channel, string(r.Payload[4:]))
							}
						}
					}()
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return l.Addr().String()
}

func echo(channel ssh.Channel, command string) {
	defer channel.Close()
	_, after, asks := strings.Cut(command, "-p '")
	prompt, _, _ := strings.Cut(after, "'")
	password := ""
	if asks {
		_, _ = io.WriteString(channel.Stderr(), prompt)
		buffer := make([]byte, 256)
		n, _ := channel.Read(buffer)
		password = strings.TrimSpace(string(buffer[:n]))
	}
	_, after, _ = strings.Cut(command, "echo komainu-begin-")
	word, _, _ := strings.Cut(after, ";")
	fmt.Fprintf(channel, "the password is %s\nkomainu-begin-%s\nthe password is %s\n", password, word, password)
	fmt.Fprintf(channel.Stderr(), "the password is %s\n", password)
	for _, line := range []string{"fact os_name " + password, "fact hostname " + password, "fact uid 0", "fact system Linux", "fact arch x86_64", "fact init systemd", "fact os debian", "fact others " + password, "fail conflicting_agent " + password} {
		fmt.Fprintf(channel, "komainu:%s\n", line)
	}
	_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{90}))
}

// TestSecretsOfConnectorsStayInside looks for what a connector logs in with in
// every byte that leaves the process, and in every byte that is at rest.
func TestSecretsOfConnectorsStayInside(t *testing.T) {
	w := &watcher{seen: map[string]*bytes.Buffer{}}
	state := t.TempDir()
	p := start(t, state)
	admin := p.admin(t)
	ca, err := os.ReadFile(filepath.Join(state, "keys", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	c := newRecorder(t, p.url, ca, admin, w)

	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	passphrase, password := "phrase-"+rand.Text(), "sudo-"+rand.Text()+`"\é`
	block, err := ssh.MarshalPrivateKeyWithPassphrase(private, "test", []byte(passphrase))
	if err != nil {
		t.Fatal(err)
	}
	text := string(pem.EncodeToMemory(block))
	secrets := []secret{formsOf("the private key", private.Seed()), formsOf("the passphrase", []byte(passphrase)), formsOf("the password of sudo", []byte(password)), {"a private key", []string{"PRIVATE KEY-----\nb3BlbnNzaC1r", `PRIVATE KEY-----\nb3BlbnNzaC1r`}}}
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); len(line) > 40 && !strings.HasPrefix(line, "b3BlbnNzaC1r") {
			secrets = append(secrets, formsOf("a line of the key", []byte(line)))
		}
	}

	host := echoingHost(t, w)
	environment := c.environment()
	settings := func(more string) string {
		return fmt.Sprintf(`{"hosts":%q,"user":"operator","sudo":"password","hostKeys":"first_use"%s}`, host, more)
	}
	values, err := json.Marshal(map[string]string{"privateKey": text, "passphrase": passphrase, "sudoPassword": password})
	if err != nil {
		t.Fatal(err)
	}
	wrong, err := json.Marshal(map[string]string{"privateKey": text, "passphrase": "no-" + passphrase, "sudoPassword": password})
	if err != nil {
		t.Fatal(err)
	}
	body := func(name, ssh string, secret []byte) string {
		return fmt.Sprintf(`{"name":%q,"kind":"ssh","ssh":%s,"secret":%s}`, name, ssh, secret)
	}
	at := "/api/v1/environments/" + environment + "/connectors"
	c.send("POST", at, body("wrong", settings(`,"credential":"key"`), wrong), 422)
	c.send("POST", at, body("garbled", settings(`,"credential":"key"`), bytes.Replace(values, []byte("BEGIN"), []byte("BEGUN"), 1)), 422)
	c.send("POST", at, body("unknown", settings(`,"credential":"key","nosuch":1`), values), 422)
	c.send("POST", at+"/test", body("tried", settings(`,"credential":"key"`), values), 200)
	made := c.send("POST", at, body("kept", settings(`,"credential":"key"`), values), 200)
	c.send("POST", at, body("certificates", settings(`,"credential":"certificate"`), values), 200)
	var kept struct {
		ID      string
		Version int
	}
	if err := json.Unmarshal(made, &kept); err != nil {
		t.Fatal(err)
	}
	c.send("POST", "/api/v1/connectors/"+kept.ID+"/test", `{}`, 0)
	c.send("PUT", "/api/v1/connectors/"+kept.ID, fmt.Sprintf(`{"version":%d,"name":"kept","kind":"ssh","ssh":%s}`, kept.Version, settings(`,"credential":"key"`)), 200)
	c.send("PUT", "/api/v1/environments/"+environment+"/plan", `{"version":1,"servers":true}`, 200)
	eventually(t, func() string {
		if text := string(c.send("GET", "/api/v1/machines?environment="+environment, "", 200)); !strings.Contains(text, "conflicting_agent") {
			return "no machine was worked on: " + text
		}
		return ""
	})
	c.everything()

	copied := filepath.Join(t.TempDir(), "backup")
	if code := control.Command(t.Context(), []string{"backup", "--state", state, "--to", copied}, control.Env{Version: "test", Stdout: stream{w, "the backup's output", nil}, Stderr: stream{w, "the backup's complaints", t.Output()}}); code != 0 {
		t.Fatalf("backup: %d", code)
	}
	p.stop()
	restored := filepath.Join(t.TempDir(), "state")
	if code := control.Command(t.Context(), []string{"restore", "--state", restored, "--from", copied}, control.Env{Version: "test", Stdout: stream{w, "the output of restore", nil}, Stderr: stream{w, "the complaints of restore", t.Output()}}); code != 0 {
		t.Fatalf("restore: %d", code)
	}
	w.take("the process's log", p.said.Bytes())
	w.folder(t, "state", state)
	w.folder(t, "restored", restored)
	w.look(t, secrets)
}

// recorder talks to the API and keeps every byte of the answers.
type recorder struct {
	t     *testing.T
	url   string
	token string
	http  *http.Client
	w     *watcher
}

func newRecorder(t *testing.T, address string, ca []byte, admin *client.Client, w *watcher) *recorder {
	t.Helper()
	token, err := admin.CreateToken(t.Context(), "recorder", "admin", 3600)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &recorder{t: t, url: address, token: token.Token, w: w, http: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}, Timeout: time.Minute}}
}

// send makes a request; status is what must come back, 0 anything.
func (c *recorder) send(method, path, body string, status int) []byte {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+c.token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := c.http.Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	defer answer.Body.Close()
	head, err := httputil.DumpResponse(answer, false)
	if err != nil {
		c.t.Fatal(err)
	}
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	c.w.take(method+" "+path, append(head, text...))
	if status != 0 && answer.StatusCode != status {
		c.t.Errorf("%s %s: %s %s", method, path, answer.Status, text)
	}
	return text
}

func (c *recorder) environment() string {
	c.t.Helper()
	var list struct{ Items []struct{ ID string } }
	if err := json.Unmarshal(c.send("GET", "/api/v1/environments", "", 200), &list); err != nil || len(list.Items) == 0 {
		c.t.Fatal(err)
	}
	return list.Items[0].ID
}

// everything asks for all that there is to read, and for every thing that the
// lists name.
func (c *recorder) everything() {
	c.t.Helper()
	var api struct {
		Paths map[string]map[string]json.RawMessage
	}
	if err := json.Unmarshal(c.send("GET", "/api/openapi.json", "", 200), &api); err != nil {
		c.t.Fatal(err)
	}
	ids := map[string][]string{}
	for _, list := range []string{"/api/v1/environments", "/api/v1/machines", "/api/v1/audit", "/api/v1/environments/" + c.environment() + "/connectors"} {
		var l struct{ Items []struct{ ID string } }
		if json.Unmarshal(c.send("GET", list, "", 200), &l) == nil {
			kind := list[strings.LastIndexByte(list, '/')+1:]
			for _, i := range l.Items {
				ids[kind] = append(ids[kind], i.ID)
			}
		}
	}
	asked := 0
	for path, methods := range api.Paths {
		if methods["get"] == nil || strings.HasSuffix(path, "/stream") {
			continue
		}
		if !strings.Contains(path, "{") {
			c.send("GET", path, "", 0)
			asked++
			continue
		}
		kind := strings.Split(strings.TrimPrefix(path, "/api/v1/"), "/")[0]
		for _, id := range ids[kind] {
			c.send("GET", strings.Replace(path, "{id}", id, 1), "", 0)
			asked++
		}
	}
	if asked < 20 {
		c.t.Errorf("only %d things were asked for", asked)
	}
}
