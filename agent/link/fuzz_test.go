package link

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// FuzzIdentity loads what may be left of the file of an identity: what loads
// can be used or is refused, and never makes the agent fall.
func FuzzIdentity(f *testing.F) {
	good, err := json.Marshal(Identity{Device: "d", Server: "https://127.0.0.1:1", PolicyKey: make([]byte, 32), NotAfter: time.Unix(1, 0)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(`{"device":"d","policyKey":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","server":"::","ca":"x","certificate":"-----BEGIN CERTIFICATE-----"}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, identityFile), content, 0o600); err != nil {
			t.Fatal(err)
		}
		id, err := Load(dir)
		if err != nil {
			return
		}
		if id.Device == "" {
			t.Fatal("an identity of no device")
		}
		if _, err := id.server(); err == nil {
			_, _ = id.tlsConfig(time.Now)
		}
		id.renewAt()
	})
}

// FuzzRefused reads answers of what may be no control plane at all.
func FuzzRefused(f *testing.F) {
	f.Add("503", []byte(`{"kind":"unavailable","message":"no","id":"x"}`))
	f.Add("200", []byte("<html>"))
	f.Fuzz(func(t *testing.T, status string, text []byte) {
		if err := refused("host", status, text); err == nil || err.Error() == "" {
			t.Fatal("a refusal without a word")
		}
	})
}
