package link

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"komainu/fault"
)

func TestParseToken(t *testing.T) {
	// {"s":"https://control:8443","p":"00…","t":"secret"}
	good := "kmj1.eyJzIjoiaHR0cHM6Ly9jb250cm9sOjg0NDMiLCJwIjoiMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMCIsInQiOiJzZWNyZXQifQ"
	token, err := ParseToken("  " + good + "\n")
	if err != nil || token.Server != "https://control:8443" || token.Secret != "secret" {
		t.Errorf("%+v, %v", token, err)
	}
	for name, text := range map[string]string{
		"empty": "", "prefix": "kmj1.", "version": "kmj2." + good[5:], "not_base64": "kmj1.!!!!", "cut": good[:40], "not_json": "kmj1.eHh4", "no_fields": "kmj1.e30",
	} {
		if _, err := ParseToken(text); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseToken(f *testing.F) {
	f.Add("kmj1.e30")
	f.Add("kmj1.eyJzIjoiaHR0cHM6Ly9hIiwicCI6IiIsInQiOiJ4In0")
	f.Fuzz(func(t *testing.T, s string) {
		token, err := ParseToken(s)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%v", err)
			}
			return
		}
		if token.Secret == "" || len(token.Pin) != 64 || !strings.HasPrefix(token.Server, "https://") {
			t.Errorf("%+v is taken for a token", token)
		}
	})
}

func TestDurationsForPeople(t *testing.T) {
	for d, want := range map[time.Duration]string{
		6 * time.Minute: "6 minutes", time.Minute: "1 minute", 119 * time.Minute: "119 minutes", 2 * time.Hour: "2 hours", 47 * time.Hour: "47 hours",
		72*time.Hour + time.Minute: "3 days",
	} {
		if got := roughly(d); got != want {
			t.Errorf("%v is %q, want %q", d, got, want)
		}
	}
	if err := clockFault(-5 * time.Minute); err != nil {
		t.Errorf("five minutes are within the limit: %v", err)
	}
	if err := clockFault(-6 * time.Minute); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "6 minutes behind") {
		t.Error(err)
	}
	if err := clockFault(26 * time.Hour); err == nil || !strings.Contains(err.Error(), "26 hours ahead of") {
		t.Error(err)
	}
}

func TestIdentityFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); !fault.Is(err, fault.NotFound) {
		t.Errorf("none: %v", err)
	}
	for name, text := range map[string]string{"empty": "", "not_json": "x", "no_device": "{}", "no_key": `{"device":"d"}`} {
		if err := os.WriteFile(filepath.Join(dir, identityFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(dir); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "--force") {
			t.Errorf("%s: %v", name, err)
		}
	}
	id := Identity{Device: "d", PolicyKey: make([]byte, 32), Certificate: "one"}
	if err := id.save(dir); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, identityFile)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	next := id
	next.Certificate = "two"
	if err := id.replace(dir, next); err != nil {
		t.Error(err)
	}
	// The one that was renewed is not there any more.
	if err := id.replace(dir, next); !fault.Is(err, fault.Conflict) {
		t.Errorf("a late renewal: %v", err)
	}
	if got, err := Load(dir); err != nil || got.Certificate != "two" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestStaleServer: the time in the device's own certificate bounds how old a
// server's certificate may be, whatever the clock says.
func TestStaleServer(t *testing.T) {
	old := &x509.Certificate{NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1000, 0)}
	tr := trust{host: "h", roots: x509.NewCertPool(), since: time.Unix(2000, 0), now: func() time.Time { return time.Unix(500, 0) }}
	if err := tr.verify(tls.ConnectionState{PeerCertificates: []*x509.Certificate{old}}); !errors.Is(err, errStale) {
		t.Errorf("%v, want %v", err, errStale)
	}
}

func TestPauses(t *testing.T) {
	l := New(Config{Log: quietLog(t)})
	for name, tt := range map[string]struct {
		err         error
		wait        time.Duration
		refusals    int
		least, most time.Duration
	}{
		"not_enrolled":       {errNotEnrolled, firstWait, 0, time.Hour, time.Hour},
		"again":              {errAgain, longestWait, 0, 0, 0},
		"unreachable":        {fault.New(fault.Unavailable, "x"), time.Second, 0, time.Second / 2, 3 * time.Second / 2},
		"refused_first":      {fault.New(fault.Unauthentic, "x"), firstWait, 1, firstWait / 2, 3 * firstWait / 2},
		"refused_long":       {fault.New(fault.Unauthentic, "x"), longestWait, 9, refusedWait, refusedWait},
		"device_is_gone":     {fault.New(fault.NotFound, "x"), longestWait, 9, refusedWait, refusedWait},
		"copy":               {fault.New(fault.Conflict, "x"), firstWait, 0, longestWait / 2, 3 * longestWait / 2},
		"versions":           {fault.New(fault.Unsupported, "x"), firstWait, 0, longestWait / 2, 3 * longestWait / 2},
		"queue_of_the_other": {fault.New(fault.Exhausted, "x"), time.Second, 0, time.Second / 2, 3 * time.Second / 2},
	} {
		seen := map[time.Duration]bool{}
		for range 50 {
			got := l.pause(tt.err, tt.wait, tt.refusals)
			if seen[got] = true; got < tt.least || got > tt.most {
				t.Errorf("%s: %v, want %v to %v", name, got, tt.least, tt.most)
			}
		}
		if tt.least != tt.most && len(seen) < 10 {
			t.Errorf("%s: no jitter", name)
		}
	}
}

func quietLog(t *testing.T) *slog.Logger { return slog.New(slog.NewTextHandler(t.Output(), nil)) }
