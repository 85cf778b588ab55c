package connector

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"

	"komainu/deploy"
	"komainu/fault"
)

// host is an SSH server that lets everybody in, passes connections on, and
// runs nothing.
type host struct {
	address string
	key     ssh.Signer

	mu     sync.Mutex
	logins []ssh.PublicKey // that came, with users below
	users  []string
}

func newHost(t *testing.T) *host {
	t.Helper()
	signer, err := ssh.ParsePrivateKey([]byte(privateKey(t)))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{address: listener.Addr().String(), key: signer}
	config := &ssh.ServerConfig{PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		h.mu.Lock()
		defer h.mu.Unlock()
		if len(h.users) == 0 || h.users[len(h.users)-1] != c.User() {
			h.logins, h.users = append(h.logins, key), append(h.users, c.User())
		}
		return nil, nil
	}}
	config.AddHostKey(signer)
	var all sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			raw, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { serve(raw, config) })
		}
	})
	return h
}

func serve(raw net.Conn, config *ssh.ServerConfig) {
	defer raw.Close()
	conn, channels, requests, err := ssh.NewServerConn(raw, config)
	if err != nil {
		return
	}
	defer conn.Close()
	go ssh.DiscardRequests(requests)
	for c := range channels {
		var to struct {
			Host string
			Port uint32
			From string
			Of   uint32
		}
		if c.ChannelType() != "direct-tcpip" || ssh.Unmarshal(c.ExtraData(), &to) != nil {
			_ = c.Reject(ssh.Prohibited, "nothing runs here")
			continue
		}
		onwards, err := net.Dial("tcp", net.JoinHostPort(to.Host, fmt.Sprint(to.Port)))
		if err != nil {
			_ = c.Reject(ssh.ConnectionFailed, err.Error())
			continue
		}
		channel, more, err := c.Accept()
		if err != nil {
			onwards.Close()
			continue
		}
		go ssh.DiscardRequests(more)
		go func() {
			_, _ = io.Copy(onwards, channel)
			onwards.Close()
		}()
		go func() {
			_, _ = io.Copy(channel, onwards)
			channel.Close()
		}()
	}
}

// came returns the users that have logged in so far, and with what.
func (h *host) came() ([]string, []ssh.PublicKey) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.users), slices.Clone(h.logins)
}

// line is the host in known_hosts.
func (h *host) line() string {
	name, port, _ := net.SplitHostPort(h.address)
	return fmt.Sprintf("[%s]:%s %s", name, port, ssh.MarshalAuthorizedKey(h.key.PublicKey()))
}

func privateKey(t *testing.T) string {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block))
}

const sudoPassword = "correct horse"

// Stored secrets are used only where somebody has saved that they go.
func TestStoredSecretsStayWhereTheyAreSaved(t *testing.T) {
	b := newBench(t)
	ours, other, theirs := newHost(t), newHost(t), newHost(t)
	secret := &Secret{PrivateKey: privateKey(t), SudoPassword: sudoPassword}
	saved := SSH{Hosts: ours.address + "\n" + other.address, User: "ops", Port: 22, Sudo: "password", Credential: StoredKey, HostKeys: FirstUse}
	c := b.made(t, saved, secret)
	certificates := saved
	certificates.Credential = Certificate
	issued, err := b.Create(t.Context(), org, env, Change{Name: "certificates", Kind: KindSSH, SSH: &certificates, Secret: &Secret{SudoPassword: sudoPassword}})
	if err != nil {
		t.Fatal(err)
	}
	test := func(id string, change func(*SSH), typed *Secret) error {
		s := saved
		if id == issued.ID {
			s = certificates
		}
		change(&s)
		_, err := b.Test(t.Context(), org, id, &Change{Name: "ours", Kind: KindSSH, SSH: &s, Secret: typed})
		return err
	}
	name, port, _ := net.SplitHostPort(theirs.address)
	for what, change := range map[string]func(*SSH){
		"hosts":         func(s *SSH) { s.Hosts += "\n" + theirs.address },
		"another_host":  func(s *SSH) { s.Hosts = theirs.address },
		"port":          func(s *SSH) { s.Hosts, s.Port = name, number(port) },
		"jump":          func(s *SSH) { s.Jump = theirs.address },
		"user":          func(s *SSH) { s.User = "eve" },
		"user_of_a_one": func(s *SSH) { s.Hosts = "eve@" + ours.address },
		"host_keys":     func(s *SSH) { s.HostKeys, s.KnownHosts = Listed, theirs.line() },
	} {
		for typed, want := range map[*Secret]string{
			nil: "private key and the password for sudo", {SudoPassword: "x"}: "give the private key again", {PrivateKey: secret.PrivateKey}: "give the password for sudo again",
			secret: "",
		} {
			err := test(c.ID, change, typed)
			if want == "" && err != nil || want != "" && (!fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want)) {
				t.Errorf("%s with %v: %v, want %q", what, typed != nil, err, want)
			}
			if users, _ := theirs.came(); want != "" && len(users) > 0 {
				t.Errorf("%s: %v logged in at a host that is not saved", what, users)
			}
			theirs.mu.Lock()
			theirs.users, theirs.logins = nil, nil
			theirs.mu.Unlock()
		}
		if err := test(issued.ID, change, nil); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "give the password for sudo again") {
			t.Errorf("%s with certificates: %v", what, err)
		}
	}
	for what, change := range map[string]func(*SSH){
		"nothing": func(*SSH) {},
		"shorter": func(s *SSH) { s.Hosts = other.address },
		"tags":    func(s *SSH) { s.Hosts = "# ours\n" + other.address + " role=web\n" + ours.address },
		"no_sudo": func(s *SSH) { s.Sudo = "none" },
	} {
		if err := test(c.ID, change, nil); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := b.Test(t.Context(), org, c.ID, nil); err != nil {
		t.Error(err)
	}
}

func number(text string) (n int) {
	_, _ = fmt.Sscan(text, &n)
	return n
}

// reasons are those of the hosts of a report.
func reasons(r Report) (all []deploy.ReasonID) {
	for _, h := range r.Hosts {
		all = append(all, h.Reason.ID)
	}
	return all
}

// A test goes by the host keys that it is given. It pins them for what is
// saved, and for nothing else.
func TestHostKeysOfATest(t *testing.T) {
	b := newBench(t)
	ours, other := newHost(t), newHost(t)
	secret := &Secret{PrivateKey: privateKey(t)}
	try := func(id string, s SSH, secret *Secret) []deploy.ReasonID {
		t.Helper()
		report, err := b.Test(t.Context(), org, id, &Change{Name: "ours", Kind: KindSSH, SSH: &s, Secret: secret})
		if err != nil {
			t.Fatal(err)
		}
		return reasons(report)
	}
	pinned := func(id string) (hosts []string) {
		t.Helper()
		list, err := b.HostKeys(t.Context(), org, Query{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range list.Items {
			hosts = append(hosts, k.Host)
			if k.Offered != nil {
				hosts = append(hosts, "another")
			}
		}
		return hosts
	}
	s := SSH{Hosts: ours.address, User: "ops", Sudo: "none", Credential: StoredKey, HostKeys: Listed}
	changed := &host{address: ours.address, key: other.key}
	for listed, want := range map[*host]deploy.ReasonID{ours: "", other: deploy.HostKeyUnknown, changed: deploy.HostKeyChanged} {
		s.KnownHosts = listed.line()
		got := try("", s, secret)[0]
		refused := got == deploy.HostKeyUnknown || got == deploy.HostKeyChanged
		if refused && got != want || refused != (want != "") {
			t.Errorf("a new connector that lists %s: %s, want %q", s.KnownHosts, got, want)
		}
	}
	s.HostKeys, s.KnownHosts = FirstUse, ""
	try("", s, secret)
	var keys []hostKey
	if err := b.cfg.DB.NewSelect().Model(&keys).Scan(t.Context()); err != nil || len(keys) != 0 {
		t.Errorf("a connector that is not saved has pinned keys: %v %v", keys, err)
	}
	c := b.made(t, s, secret)
	more := s
	more.Hosts += "\n" + other.address
	try(c.ID, more, secret)
	if got := pinned(c.ID); got != nil {
		t.Errorf("a list that is not saved has pinned %v", got)
	}
	try(c.ID, s, nil)
	if diff := gocmp.Diff([]string{ours.address}, pinned(c.ID)); diff != "" {
		t.Error(diff)
	}
	// A pinned key counts also in a test of what is not saved, which notes
	// nothing.
	if _, err := b.cfg.DB.NewUpdate().Model(&hostKey{}).Set("key = ?", strings.TrimSpace(string(ssh.MarshalAuthorizedKey(other.key.PublicKey())))).Where("connector_id = ?", c.ID).Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := try(c.ID, more, secret); got[0] != deploy.HostKeyChanged || got[1] == deploy.HostKeyChanged {
		t.Errorf("%v", got)
	}
	if diff := gocmp.Diff([]string{ours.address}, pinned(c.ID)); diff != "" {
		t.Error(diff)
	}
	try(c.ID, s, nil)
	if diff := gocmp.Diff([]string{ours.address, "another"}, pinned(c.ID)); diff != "" {
		t.Error(diff)
	}
}

// Each host on the way gets a certificate of its own.
func TestCertificatesOnTheWay(t *testing.T) {
	b := newBench(t)
	jump, target := newHost(t), newHost(t)
	c := b.made(t, SSH{Hosts: target.address, User: "ops", Jump: "guest@" + jump.address, Sudo: "passwordless", Credential: Certificate, HostKeys: FirstUse}, nil)
	if _, err := b.Test(t.Context(), org, c.ID, nil); err != nil {
		t.Fatal(err)
	}
	for h, want := range map[*host]struct {
		user        string
		permissions ssh.Permissions
	}{
		jump:   {"guest", ssh.Permissions{CriticalOptions: map[string]string{"force-command": "false"}, Extensions: map[string]string{"permit-port-forwarding": ""}}},
		target: {"ops", ssh.Permissions{CriticalOptions: map[string]string{}, Extensions: map[string]string{}}},
	} {
		users, keys := h.came()
		if len(users) != 1 || users[0] != want.user {
			t.Errorf("%v came, not %s", users, want.user)
			continue
		}
		certificate, ok := keys[0].(*ssh.Certificate)
		if !ok || !slices.Equal(certificate.ValidPrincipals, []string{want.user}) || certificate.ValidBefore-certificate.ValidAfter > 7*60 {
			t.Errorf("%s has %+v", want.user, keys[0])
			continue
		}
		if diff := gocmp.Diff(want.permissions.CriticalOptions, certificate.CriticalOptions); diff != "" {
			t.Error(diff)
		}
		if diff := gocmp.Diff(want.permissions.Extensions, certificate.Extensions); diff != "" {
			t.Error(diff)
		}
	}
}

// The audit log says what matters of a connector, and nothing secret.
func TestConnectorsInTheAuditLog(t *testing.T) {
	b := newBench(t)
	h := newHost(t)
	secret := &Secret{PrivateKey: privateKey(t), SudoPassword: sudoPassword}
	s := SSH{Hosts: "web[01-30]\n" + h.address, User: "ops", Sudo: "password", Credential: StoredKey, HostKeys: FirstUse}
	c := b.made(t, s, secret)
	s.Hosts, s.User, s.Jump, s.Port = "adm@web01\nweb02:2022\n"+h.address, "root", "j@bastion:2200", 2222
	if _, err := b.Update(t.Context(), org, c.ID, Change{Version: 1, Name: "ours", Kind: KindSSH, SSH: &s}); err != nil {
		t.Fatal(err)
	}
	s.Hosts, s.Jump = h.address, ""
	change := Change{Name: "ours", Kind: KindSSH, SSH: &s, Secret: secret}
	for _, id := range []string{c.ID, ""} {
		if _, err := b.Test(t.Context(), org, id, &change); err != nil {
			t.Fatal(err)
		}
	}
	change.Secret = nil
	if _, err := b.Test(t.Context(), org, c.ID, &change); !fault.Is(err, fault.Invalid) {
		t.Fatal(err)
	}
	text, err := json.Marshal(b.audit)
	if err != nil {
		t.Fatal(err)
	}
	for _, hidden := range []string{sudoPassword, "PRIVATE KEY"} {
		if strings.Contains(string(text), hidden) {
			t.Errorf("%q is in the audit log", hidden)
		}
	}
	var got []map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	web := []any{}
	for n := range namedHosts {
		web = append(web, fmt.Sprintf("web%02d", n+1))
	}
	type m = map[string]any
	fields := func(more m) m {
		all := m{"credential": "key", "environment": env, "hostKeys": "first_use", "kind": "ssh", "sudo": "password"}
		maps.Copy(all, more)
		return all
	}
	want := []m{
		{"Action": "connector.create", "Target": c.ID, "Name": "ours", "Detail": fields(m{"hosts": 31., "user": "ops", "port": 22., "jump": "", "added": m{"count": 31., "names": web}})},
		{"Action": "connector.change", "Target": c.ID, "Name": "ours", "Detail": fields(m{
			"hosts": 3., "user": "root", "port": 2222., "jump": "j@bastion:2200",
			"was":     m{"hosts": 31., "user": "ops", "port": 22., "jump": ""},
			"added":   m{"count": 2., "names": []any{"adm@web01", "web02:2022"}},
			"removed": m{"count": 30., "names": web},
		})},
		{"Action": "connector.test", "Target": c.ID, "Name": "ours", "Detail": fields(m{"hosts": 1., "user": "root", "port": 2222., "jump": "", "saved": false, "tried": m{"count": 1., "names": []any{h.address}}})},
		{"Action": "connector.test", "Target": "", "Name": "ours", "Detail": fields(m{"hosts": 1., "user": "root", "port": 2222., "jump": "", "saved": false, "environment": "", "tried": m{"count": 1., "names": []any{h.address}}})},
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A list may have lines for keys that nobody may show any more, which count
// more than those that name them for a host.
func TestListedKeysThatAreRevoked(t *testing.T) {
	b := newBench(t)
	h, other := newHost(t), newHost(t)
	line := func(h *host) string {
		name, port, _ := net.SplitHostPort(h.address)
		return "[" + name + "]:" + port + " " + string(ssh.MarshalAuthorizedKey(h.key.PublicKey()))
	}
	settings := SSH{HostKeys: Listed, KnownHosts: line(h) + "@revoked * " + string(ssh.MarshalAuthorizedKey(h.key.PublicKey())) + line(other)}
	keys := &pins{c: b.Connectors, connector: "ours", policy: settings}
	if f, ok := errors.AsType[*deploy.Failure](keys.Check(h.address, h.key.PublicKey())); !ok || f.Reason.ID != deploy.HostKeyChanged || !strings.Contains(f.Reason.Detail, "revoked") {
		t.Errorf("a key that is revoked: %v", f)
	}
	if err := keys.Check(other.address, other.key.PublicKey()); err != nil {
		t.Error(err)
	}
	if _, err := parseKnownHosts("@revoked * " + string(ssh.MarshalAuthorizedKey(h.key.PublicKey()))); !fault.Is(err, fault.Invalid) {
		t.Errorf("a list that lets nobody in: %v", err)
	}
}

func TestKnownHostsNameTheLineThatIsWrong(t *testing.T) {
	good := "web " + string(ssh.MarshalAuthorizedKey(newHost(t).key.PublicKey()))
	_, err := parseKnownHosts("# of the first rack\n\n" + good + "db ssh-ed25519 AAAAdamaged\n" + strings.Repeat(good, 5))
	if err == nil || !strings.Contains(err.Error(), "line 4 ") {
		t.Errorf("%v, want line 4", err)
	}
}

// ssh writes names in lower case and addresses in their shortest form,
// whatever was typed.
func TestKnownHostsHoweverTheyAreWritten(t *testing.T) {
	b := newBench(t)
	key := newHost(t).key.PublicKey()
	listed := "db1.example.net,[db2.example.net]:2222,2001:db8::5,[2001:db8::6]:2222 " + string(ssh.MarshalAuthorizedKey(key))
	keys := &pins{c: b.Connectors, connector: "ours", policy: SSH{HostKeys: Listed, KnownHosts: listed}}
	for address, want := range map[string]bool{
		"DB1.Example.net:22": true, "db1.example.net.:22": true, "db1.example.net:2222": false, "DB2.example.net:2222": true, "db2.example.net:22": false,
		"[2001:DB8:0::5]:22": true, "[2001:db8::5]:2222": false, "[2001:db8:0:0::6]:2222": true, "db3.example.net:22": false,
	} {
		if err := keys.Check(address, key); (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
		if is := len(keys.Algorithms(address)) > 0; is != want {
			t.Errorf("%s has algorithms: %t", address, is)
		}
	}
}
