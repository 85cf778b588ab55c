package sensitive

import (
	"encoding/binary"
	"path"
	"testing"

	"komainu/event"
)

func TestClassify(t *testing.T) {
	for file, want := range map[string]event.Sensitivity{
		"/root/.ssh/id_rsa":                     event.SSHPrivateKey,
		"/home/a/.ssh/id_work":                  event.SSHPrivateKey,
		"/home/a/.ssh/id_rsa.pub":               event.NotSensitive,
		"/home/a/.ssh/known_hosts":              event.NotSensitive,
		"/etc/ssh/ssh_host_rsa_key":             event.SSHPrivateKey,
		"/etc/ssh/ssh_host_rsa_key.pub":         event.NotSensitive,
		"/home/a/.aws/credentials":              event.CloudCredentials,
		"/srv/credentials":                      event.NotSensitive,
		"/home/a/.config/gcloud/credentials.db": event.CloudCredentials,
		"/etc/shadow":                           event.PasswordHashes,
		"/tmp/decoy/etc/shadow":                 event.PasswordHashes,
		"/usr/share/doc/shadow":                 event.NotSensitive,
		"/root/.kube/config":                    event.ClusterConfig,
		"/root/.git/config":                     event.NotSensitive,
		"/etc/kubernetes/admin.conf":            event.ClusterConfig,
		"/root/.docker/config.json":             event.TokenStore,
		"/root/.config/gh/hosts.yml":            event.TokenStore,
		"/var/www/app/.env":                     event.AppSecrets,
		"/var/www/app/.env.production":          event.AppSecrets,
		"/var/www/app/.env.example":             event.NotSensitive,
		"/root/.bash_history":                   event.ShellHistory,
		"/root/.pgpass":                         event.DatabaseSecrets,
		"/root/.gnupg/private-keys-v1.d/A.key":  event.KeyRing,
		"/etc/ssl/private/server.pem":           event.TLSPrivateKey,
		"/":                                     event.NotSensitive,
		"":                                      event.NotSensitive,
	} {
		class, byContent := Classify(file)
		if class != want {
			t.Errorf("%q is %q, want %q", file, class, want)
		}
		if byContent != (want == event.TLSPrivateKey) {
			t.Errorf("%q: by content %v", file, byContent)
		}
		if want != event.NotSensitive && !maybe(path.Base(file)) {
			t.Errorf("%q would not be noticed when it is created", file)
		}
	}
}

func TestEveryNameIsNoticedWhenItIsCreated(t *testing.T) {
	for name := range named {
		if !maybe(name) {
			t.Error(name)
		}
	}
	for name := range placed {
		if !maybe(path.Base(name)) {
			t.Error(name)
		}
	}
	for _, folder := range folders {
		if !maybe(path.Base(folder)) || !IsFolder("/home/a/"+folder) {
			t.Error(folder)
		}
	}
	if IsFolder("/home/a/notes.ssh") || IsFolder("/home/gcloud") {
		t.Error("a folder that only ends alike")
	}
}

func TestHoldsKey(t *testing.T) {
	for content, want := range map[string]bool{
		"-----BEGIN PRIVATE KEY-----\nx":                               true,
		"text\n-----BEGIN OPENSSH PRIVATE KEY-----\n":                  true,
		"-----BEGIN CERTIFICATE-----\nx\n-----END":                     false,
		"-----BEGIN CERTIFICATE-----\n-----BEGIN RSA PRIVATE KEY-----": true,
		"PRIVATE KEY-----":                                             false,
		"":                                                             false,
	} {
		if HoldsKey([]byte(content)) != want {
			t.Errorf("%q: %v", content, !want)
		}
	}
}

// created builds what the kernel writes of a name.
func created(name string, handle []byte) []byte {
	le := binary.LittleEndian
	info := make([]byte, infoHeaderSize+fsidSize+handleSize, 64)
	info[0] = infoNamed
	info[infoHeaderSize] = 9 // fsid
	le.PutUint32(info[infoHeaderSize+fsidSize:], uint32(len(handle)))
	le.PutUint32(info[infoHeaderSize+fsidSize+4:], 1)
	info = append(append(append(info, handle...), name...), 0, 0)
	le.PutUint16(info[2:], uint16(len(info)))
	b := make([]byte, metadataSize, 128)
	le.PutUint32(b, uint32(metadataSize+len(info)))
	b[4] = metadataVersion
	le.PutUint16(b[6:], metadataSize)
	le.PutUint64(b[8:], 0x100)
	le.PutUint32(b[16:], ^uint32(0))
	le.PutUint32(b[20:], 42)
	return append(b, info...)
}

func TestParse(t *testing.T) {
	var got []notice
	buffer := append(created("id_rsa", []byte{1, 2, 3, 4, 5, 6, 7, 8}), created(".env", []byte{1, 2, 3, 4})...)
	if err := parse(buffer, func(n notice) { got = append(got, n) }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].name != "id_rsa" || len(got[0].handle) != 8 || got[0].fsid[0] != 9 || got[0].pid != 42 || got[0].fd != -1 || got[1].name != ".env" {
		t.Errorf("%+v", got)
	}
	for n := 1; n < len(buffer)/2; n++ {
		if err := parse(buffer[:n], func(notice) { t.Error("an event of half a buffer") }); err == nil {
			t.Errorf("%d bytes have no error", n)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(created("id_rsa", []byte{1, 2, 3, 4, 5, 6, 7, 8}))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = parse(b, func(n notice) {
			if len(n.handle) > len(b) || len(n.name) > len(b) {
				t.Errorf("%+v", n)
			}
		})
	})
}
