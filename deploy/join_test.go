package deploy_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"komainu/deploy"
)

// plane is a control plane as far as the installer speaks to it.
type plane struct {
	*httptest.Server
	ca   []byte // PEM
	pin  string
	asks []string
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	key, ca := certificate(t, "one", nil)
	p := &plane{ca: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}), pin: pinOf(ca)}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, leafKey.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asks = append(p.asks, r.Method+" "+r.URL.Path)
		if r.URL.Path == "/ca.pem" {
			_, _ = w.Write(p.ca)
			return
		}
		fmt.Fprintln(w, "answer")
	}))
	p.Config.ErrorLog = nil
	p.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{leaf}, PrivateKey: leafKey}}}
	p.StartTLS()
	t.Cleanup(p.Close)
	return p
}

func (p *plane) token(t *testing.T, pin string) string {
	t.Helper()
	body, err := json.Marshal(map[string]string{"s": p.URL, "p": pin, "t": "secret"})
	if err != nil {
		t.Fatal(err)
	}
	return "kmj1." + base64.RawURLEncoding.EncodeToString(body)
}

func pinOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// certificate is a CA of some kind; mention stands in its name and in an
// extension.
func certificate(t *testing.T, kind string, mention []byte) (key any, c *x509.Certificate) {
	t.Helper()
	var public any
	switch kind {
	case "rsa":
		k, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		key, public = k, k.Public()
	case "ed25519":
		pub, k, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key, public = k, pub
	default:
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		key, public = k, k.Public()
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Komainu " + kind, Organization: []string{string(mention)}}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if mention != nil {
		template.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Value: mention}}
		template.Subject.Organization = []string{hex.EncodeToString(mention)}
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(raw); err != nil {
		t.Fatal(err)
	}
	return key, c
}

// piece runs commands with the functions of the installer.
func piece(t *testing.T, token, commands string) (out string, code int) {
	t.Helper()
	dir := t.TempDir()
	script, ok := strings.CutSuffix(deploy.Installer(), "main \"$@\"\n")
	if !ok {
		t.Fatal("the installer does not end with its only call")
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-c", script+"\ndir=$1 token=$2\n"+commands, "install", dir, token)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return b.String(), exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), 0
}

// TestInstallerTrustsItsTokenAlone has the installer meet control planes that
// are that of the token and others, with each of the programs that it fetches
// with.
func TestInstallerTrustsItsTokenAlone(t *testing.T) {
	for _, tool := range []string{"curl", "wget"} {
		if _, err := exec.LookPath(tool); err != nil {
			continue
		}
		only := fmt.Sprintf("has() { [ \"$1\" = %s ]; }\n", tool)
		const work = "understand; trust; get $dir/x /install/plan $dir/all.pem; cat $dir/x; echo $server $address"
		p := newPlane(t)
		out, code := piece(t, p.token(t, p.pin), only+work)
		if want := "answer\n" + p.URL + " " + strings.TrimPrefix(p.URL, "https://") + "\n"; code != 0 || out != want {
			t.Errorf("%s: %d, %s", tool, code, out)
		}
		if diff := cmp.Diff([]string{"GET /ca.pem", "POST /install/plan"}, p.asks); diff != "" {
			t.Errorf("%s: %s", tool, diff)
		}

		// Another CA than that of the token: nothing is asked of it.
		p = newPlane(t)
		out, code = piece(t, p.token(t, strings.Repeat("ab", 32)), only+work)
		if code != 6 || !strings.Contains(out, "its CA is another one") || len(p.asks) != 1 {
			t.Errorf("%s: another pin: %d, %s%q", tool, code, out, p.asks)
		}

		// The right CA is shown, but the server has no certificate of it; and
		// one that mentions its key has another key.
		theirs := newPlane(t)
		mine := p.ca
		p.ca = theirs.ca
		out, code = piece(t, p.token(t, theirs.pin), only+work)
		if code != 6 || !strings.Contains(out, "does not show a certificate") {
			t.Errorf("%s: a stolen CA: %d, %s", tool, code, out)
		}
		p.ca = append(bytes.Clone(p.ca), mine...)
		if out, code = piece(t, p.token(t, p.pin), only+work); code != 0 {
			t.Errorf("%s: the second of two CAs: %d, %s", tool, code, out)
		}
		p.Close()
		if out, code = piece(t, p.token(t, p.pin), only+work); code != 4 {
			t.Errorf("%s: nobody there: %d, %s", tool, code, out)
		}
	}
}

func TestInstallerReadsKeys(t *testing.T) {
	_, genuine := certificate(t, "one", nil)
	for _, kind := range []string{"p256", "rsa", "ed25519"} {
		for _, mention := range [][]byte{nil, genuine.RawSubjectPublicKeyInfo} {
			_, c := certificate(t, kind, mention)
			file := filepath.Join(t.TempDir(), "der")
			if err := os.WriteFile(file, c.Raw, 0o600); err != nil {
				t.Fatal(err)
			}
			if out, code := piece(t, "", "key_of "+file); code != 0 || strings.TrimSpace(out) != pinOf(c) {
				t.Errorf("%s: %d %q, want %s", kind, code, out, pinOf(c))
			}
			for _, cut := range []int{0, 1, 4, 40, len(c.Raw) / 3} {
				if err := os.WriteFile(file, c.Raw[:cut], 0o600); err != nil {
					t.Fatal(err)
				}
				if out, _ := piece(t, "", "key_of "+file+" && echo found"); out != "" {
					t.Errorf("%s, %d bytes of it: %q", kind, cut, out)
				}
			}
		}
	}
}

// TestInstallerUsage has it called as people may, here without root.
func TestInstallerRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		token, says string
		code        int
	}{
		"not_ours":   {"hello", "no join token", 2},
		"damaged":    {"kmj1.####", "damaged", 2},
		"no_pin":     {"kmj1." + base64.RawURLEncoding.EncodeToString([]byte(`{"s":"https://cp:8443","t":"x"}`)), "damaged", 2},
		"no_address": {"kmj1." + base64.RawURLEncoding.EncodeToString([]byte(`{"s":"https://cp$(reboot)","p":"`+strings.Repeat("a", 64)+`","t":"x"}`)), "damaged", 2},
	} {
		if out, code := piece(t, c.token, "understand"); code != c.code || !strings.Contains(out, c.says) {
			t.Errorf("%s: %d, %s", name, code, out)
		}
	}
	for address, want := range map[string]string{"cp.example": "cp.example:443", "cp:8443": "cp:8443", "[2001:db8::1]": "[2001:db8::1]:443", "[::1]:8443": "[::1]:8443"} {
		token := "kmj1." + base64.RawURLEncoding.EncodeToString([]byte(`{"s":"https://`+address+`","p":"`+strings.Repeat("a", 64)+`","t":"x"}`))
		if out, _ := piece(t, token, "understand; echo $address"); out != want+"\n" {
			t.Errorf("%s: %q, want %s", address, out, want)
		}
	}
	// It is patient for as long as it is told to.
	for patience, want := range map[string]string{"1800": "patience 1800", "0": "patience 0", "": "a number of seconds", "x": "a number of seconds", "-1": "a number of seconds", "08": "a number of seconds", "9999999": "a number of seconds"} {
		const dry = `put_in() { echo "patience $patience"; }; id() { echo 0; }; systemctl() { :; }; main --patience "$word" kmj1.x`
		if out, code := piece(t, "", "word="+patience+"; token=; "+dry); !strings.Contains(out, want) || (code == 0) != strings.HasPrefix(want, "patience") {
			t.Errorf("--patience %q: %d, %s", patience, code, out)
		}
	}
	// Every reason ends it with a text, a remedy and a code of the contract.
	for _, id := range deploy.ReasonIDs() {
		out, code := piece(t, "", "problem "+string(id)+" 'a detail'")
		if code < 1 || code > 7 || !strings.Contains(out, "(a detail).\nWhat to do: ") || strings.Contains(out, "tried again by itself") {
			t.Errorf("%s: %d, %s", id, code, out)
		}
	}
}

// TestWays has the parsers of others read what is pasted.
func TestWays(t *testing.T) {
	p := newPlane(t)
	j := deploy.Join{Server: p.URL, CA: string(p.ca), Token: p.token(t, p.pin)}
	w := j.Ways()
	var cloud struct {
		Files []struct{ Path, Content, Permissions string } `yaml:"write_files"`
		Run   [][]string                                    `yaml:"runcmd"`
	}
	if err := yaml.Unmarshal([]byte(w.CloudInit), &cloud); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(w.CloudInit, "#cloud-config\n") || len(cloud.Files) != 3 || cloud.Files[0].Content != j.CA || cloud.Files[1].Content != j.Token || cloud.Files[1].Permissions != "0600" || len(cloud.Run) != 1 {
		t.Errorf("%+v\n%s", cloud, w.CloudInit)
	}
	if out, err := exec.CommandContext(t.Context(), "sh", "-n", "-c", cloud.Files[2].Content).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	var plays []struct {
		Vars  map[string]string
		Tasks []struct {
			Block []struct {
				Command map[string]string `yaml:"ansible.builtin.command"`
				Copy    map[string]string `yaml:"ansible.builtin.copy"`
				NoLog   bool              `yaml:"no_log"`
			}
		}
	}
	if err := yaml.Unmarshal([]byte(w.Ansible), &plays); err != nil {
		t.Fatal(err)
	}
	if len(plays) != 1 || plays[0].Vars["komainu_ca"] != j.CA || plays[0].Vars["komainu_token"] != j.Token || plays[0].Vars["komainu_installer"] != p.URL+"/install" {
		t.Errorf("%+v\n%s", plays, w.Ansible)
	}
	// The token comes to servers in one way only, of which nothing is logged.
	for _, task := range plays[0].Tasks[0].Block {
		hidden := task.NoLog && task.Copy["mode"] == "0600" && task.Copy["dest"] == "{{ komainu_folder.path }}/token"
		if strings.Contains(fmt.Sprint(task), "komainu_token") != hidden || task.Command["stdin"] != "" {
			t.Errorf("%+v", task)
		}
	}
	if strings.Count(w.Ansible, "komainu_token") != 3 || !strings.Contains(w.Ansible, "cmd: sh install --token-file token\n") { // the remark at the head, the variable, the copy
		t.Error(w.Ansible)
	}
}

// TestCloudInitTriesAgain has the script of a first boot meet what passes by
// and what does not. In the place of curl, installer and sleep are functions.
func TestCloudInitTriesAgain(t *testing.T) {
	var cloud struct {
		Files []struct{ Path, Content string } `yaml:"write_files"`
		Run   [][]string                       `yaml:"runcmd"`
	}
	w := deploy.Join{Server: "https://cp:8443", CA: "ca", Token: "kmj1.x"}.Ways()
	if err := yaml.Unmarshal([]byte(w.CloudInit), &cloud); err != nil {
		t.Fatal(err)
	}
	join := cloud.Files[2]
	if diff := cmp.Diff([][]string{{"sh", join.Path}}, cloud.Run); diff != "" {
		t.Fatal(diff)
	}
	for _, shell := range shells(t) {
		for name, c := range map[string]struct {
			answers string // of curl and, if that is 0, of the installer
			hours   string // that pass in a pause
			want    string
			code    int
		}{
			"at once":         {"0 0", "0", "curl sh ", 0},
			"busy":            {"0 1 0 0", "0", "curl sh sleep curl sh ", 0},
			"no network":      {"6 7 0 4 0 0", "0", "curl sleep curl sleep curl sh sleep curl sh ", 0},
			"refused":         {"0 6", "0", "curl sh ", 6},
			"not supported":   {"7 0 7", "0", "curl sleep curl sh ", 7},
			"for ever":        {strings.Repeat("0 1 ", 50), "0", strings.Repeat("curl sh sleep ", 19) + "curl sh ", 1},
			"never connected": {strings.Repeat("7 ", 50), "0", strings.Repeat("curl sleep ", 19) + "curl ", 4},
			"for hours":       {strings.Repeat("0 1 ", 50), "2", "curl sh sleep curl sh ", 1},
		} {
			dir := filepath.Join(t.TempDir(), "komainu-join")
			log := dir + ".log"
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			before := `uptime=1000; cut() { echo $uptime; }
				answer() { printf '%s ' "$1" >>` + log + `; }
				sleep() { answer sleep; uptime=$((uptime + 3600 * ` + c.hours + `)); }
				curl() { answer curl; next; }
				sh() { answer sh; [ "$*" = "install --patience 1800 --token-file token" ] || exit 99; next; }
				next() { read -r got rest <` + log + `.answers; echo "$rest" >` + log + `.answers; return $got; }
				echo ` + c.answers + ` >` + log + ".answers\n"
			out, code := ran(t, shell, dir, before+strings.ReplaceAll(join.Content, "/run/komainu-join", dir))
			called, err := os.ReadFile(log)
			if err != nil || string(called) != c.want || code != c.code || strings.Contains(out, "kmj1.") {
				t.Errorf("%q, %s: %d, %s (%v), want %d, %s\n%s", shell, name, code, called, err, c.code, c.want, out)
			}
			if _, err := os.Stat(dir); !os.IsNotExist(err) {
				t.Errorf("%q, %s: the folder with the token: %v", shell, name, err)
			}
		}
	}
}

// TestLine has the shells of people run what they paste. What it runs in the
// end is not run here.
func TestLine(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("curl is not installed, which the line calls")
	}
	p := newPlane(t)
	j := deploy.Join{Server: p.URL, CA: string(p.ca), Token: p.token(t, p.pin)}
	theirs := deploy.Join{Server: p.URL, CA: string(newPlane(t).ca), Token: j.Token}
	const (
		person = `id() { echo 1000; }; sudo() { echo "sudo $*"; pwd; cat install; cat; return 6; }; `
		root   = `id() { echo 0; }; sudo() { echo sudo is not there; return 127; }; sh() { echo "root $*"; cat install; cat; }; `
	)
	folder := t.TempDir()
	t.Setenv("TMPDIR", folder)
	for _, shell := range [][]string{{"sh"}, {"bash"}, {"bash", "--posix"}, {"dash"}, {"busybox", "sh"}, {"zsh"}, {"mksh"}, {"ksh"}} {
		if _, err := exec.LookPath(shell[0]); err != nil {
			t.Logf("%s is not installed", shell[0])
			continue
		}
		for name, c := range map[string]struct {
			before, line, want string
			code               int
		}{
			"person":     {person, j.Ways().Line, "sudo sh install --token-file -\n" + folder, 6},
			"root":       {root, j.Ways().Line, "root install --token-file -\nanswer\n" + j.Token + "\n", 0},
			"image":      {root, j.Ways().Image, "root install --image --token-file -\nanswer\n" + j.Token + "\n", 0},
			"another CA": {root, theirs.Ways().Line, "", 1},
			"no folder":  {"mktemp() { return 1; }; " + root, j.Ways().Line, "", 1},
		} {
			here := t.TempDir()
			out, code := ran(t, shell, here, c.before+c.line)
			if code != c.code || !strings.Contains(out, c.want) || c.want == "" && strings.Contains(out, "root") || c.want != "" && !strings.Contains(out, "answer\n"+j.Token+"\n") {
				t.Errorf("%q, %s: %d\n%s\n%s", shell, name, code, c.line, out)
			}
			for _, dir := range []string{here, folder} {
				if list, err := os.ReadDir(dir); err != nil || len(list) != 0 {
					t.Errorf("%q, %s leaves %v in %s (%v)", shell, name, list, dir, err)
				}
			}
		}
	}
	// The token is no argument of any program.
	for _, line := range []string{j.Ways().Line, j.Ways().Image} {
		if strings.Count(line, j.Token) != 1 || !strings.Contains(line, "&& echo '"+j.Token+"' | $s sh install ") {
			t.Error(line)
		}
	}
}
