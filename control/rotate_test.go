package control_test

import (
	"strings"
	"testing"

	"komainu/agent/link"
)

// TestDevicesFollowTheNextCA replaces the CA under a connected device: it
// renews, the old CA is dropped, and the device comes back to a server that
// shows a certificate of the new one.
func TestDevicesFollowTheNextCA(t *testing.T) {
	p := start(t, t.TempDir())
	c := p.admin(t)
	d := enrolled(t, c)
	eventually(t, func() string {
		if !d.link.State().Connected {
			return "the device is not connected"
		}
		return ""
	})
	d.send(t.Context(), t)
	d.acknowledged(t, 1)
	if code, out, text := command(t, "ca", "rotate", "--state", p.state); code != 0 {
		t.Fatalf("%d %s%s", code, out, text)
	}
	eventually(t, func() string {
		if _, out, _ := command(t, "ca", "status", "--state", p.state); !strings.Contains(out, "no other CA") {
			return "the old CA is not dropped: " + out
		}
		return ""
	})
	now, err := link.Load(d.dir)
	if err != nil || now.Certificate == d.id.Certificate || now.Authority() != d.id.Authority() || strings.Count(now.CA, "BEGIN") != 2 {
		t.Errorf("the device: %v, CAs %d", err, strings.Count(now.CA, "BEGIN"))
	}
	p.stop()
	again := start(t, p.state, "--listen", strings.TrimPrefix(p.url, "https://"))
	c = again.client(t, "")
	if _, err := c.SignIn(t.Context(), "admin", "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if got, err := c.Device(t.Context(), string(d.id.Device)); err != nil || !got.Connected {
			return "the device does not come back"
		}
		return ""
	})
}
