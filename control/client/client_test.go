package client_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"komainu/control/client"
	"komainu/fault"
)

// serve answers every request with one status and body.
func serve(t *testing.T, status int, body string) (*httptest.Server, []byte) {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Authorization", r.Header.Get("Authorization"))
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}))
	t.Cleanup(s.Close)
	return s, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

func TestErrorsKeepTheirKind(t *testing.T) {
	for _, c := range []struct {
		name   string
		status int
		body   string
		kind   fault.Kind
		want   string
	}{
		{"problem", 409, `{"kind":"conflict","message":"changed meanwhile"}`, fault.Conflict, "changed meanwhile"},
		{"internal", 500, `{"kind":"internal","message":"internal error","id":"abc"}`, fault.Internal, "(abc)"},
		{"a_proxy", 502, `<html>bad gateway</html>`, fault.Unavailable, "not from a control plane"},
		{"another_version", 200, `[1]`, fault.Internal, "same version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, ca := serve(t, c.status, c.body)
			api, err := client.New(client.Options{Server: s.URL, CA: ca, Token: "kmt_x"})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := api.Devices(t.Context(), nil); fault.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v: %v", fault.KindOf(err), err)
			}
		})
	}
}

func TestTrust(t *testing.T) {
	s, ca := serve(t, 200, `{"items":[],"total":0,"next":""}`)
	key := sha256.Sum256(s.Certificate().RawSubjectPublicKeyInfo)
	for _, c := range []struct {
		name string
		o    client.Options
		kind fault.Kind // Internal: it works
	}{
		{"its_ca", client.Options{CA: ca}, fault.Internal},
		{"the_system", client.Options{}, fault.Unauthentic},
		{"another_pin", client.Options{Pin: strings.Repeat("ab", 32)}, fault.Unauthentic},
		// The server of this test sends its certificate alone: a pin is of a CA
		// that travels with it.
		{"pin_of_the_leaf", client.Options{Pin: hex.EncodeToString(key[:])}, fault.Unauthentic},
		{"no_pin", client.Options{Pin: "ab"}, fault.Invalid},
		{"no_ca", client.Options{CA: []byte("x")}, fault.Invalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Server = s.URL
			api, err := client.New(c.o)
			if err == nil {
				_, err = api.Devices(t.Context(), nil)
			}
			if (err == nil) != (c.kind == fault.Internal) || err != nil && fault.KindOf(err) != c.kind {
				t.Errorf("%v", err)
			}
		})
	}
	for _, server := range []string{"", "http://localhost", "localhost:8443", "https://"} {
		if _, err := client.New(client.Options{Server: server}); !fault.Is(err, fault.Invalid) {
			t.Errorf("server %q: %v", server, err)
		}
	}
	gone, _ := client.New(client.Options{Server: "https://127.0.0.1:1", CA: ca})
	if _, err := gone.Devices(t.Context(), nil); !fault.Is(err, fault.Unavailable) || fault.Exit(err) != fault.ExitUnreachable {
		t.Errorf("nobody there: %v", err)
	}
}
