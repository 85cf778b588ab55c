package gateway_test

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"komainu/agent/link"
	"komainu/control/enrol"
	"komainu/deploy"
	"komainu/fault"
)

// TestEnrolmentThatFails goes through the ways to fail. Each has its message
// and its kind, sends nothing to a stranger, spends no use of the token and
// leaves the host as it was.
func TestEnrolmentThatFails(t *testing.T) {
	p := newPlane(t)
	other := newPlane(t)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	foreign := httptest.NewUnstartedServer(http.NotFoundHandler())
	foreign.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	foreign.StartTLS()
	t.Cleanup(foreign.Close)
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	at := func(server string) func(*enrol.TokenRequest) {
		return func(r *enrol.TokenRequest) { r.Server = server }
	}
	for _, tt := range []struct {
		name  string
		edit  func(*enrol.TokenRequest)
		spoil func(t *testing.T, o *link.EnrolOptions, token enrol.Token)
		kind  fault.Kind
		says  string
	}{
		{"not_a_token", nil, func(_ *testing.T, o *link.EnrolOptions, _ enrol.Token) { o.Token = "hello" }, fault.Invalid, "begins with kmj1."},
		{"half_a_token", nil, func(_ *testing.T, o *link.EnrolOptions, _ enrol.Token) { o.Token = o.Token[:len(o.Token)/2] }, fault.Invalid, "damaged"},
		{"of_no_server", nil, func(_ *testing.T, o *link.EnrolOptions, _ enrol.Token) { o.Token = "kmj1.e30" }, fault.Invalid, "incomplete"},
		{"expired", func(r *enrol.TokenRequest) { r.Lasts = time.Minute }, func(t *testing.T, o *link.EnrolOptions, _ enrol.Token) {
			p.clock.move(2 * time.Minute)
			t.Cleanup(func() { p.clock.move(-2 * time.Minute) })
		}, fault.Unauthentic, "expired at"},
		{"revoked", nil, func(t *testing.T, _ *link.EnrolOptions, token enrol.Token) {
			if err := p.ids.RevokeToken(t.Context(), "prod", token.ID); err != nil {
				t.Fatal(err)
			}
		}, fault.Unauthentic, "was revoked"},
		{"of_another_control_plane", nil, func(_ *testing.T, o *link.EnrolOptions, _ enrol.Token) {
			_, o.Token = other.token(at("https://" + p.address))
		}, fault.Unauthentic, "its CA is another one; nothing was sent"},
		{"unknown_here", nil, func(t *testing.T, o *link.EnrolOptions, _ enrol.Token) {
			o.Token = withSecret(t, o.Token, "guessed")
		}, fault.Unauthentic, "not known here"},
		{"unreachable", at("https://" + closed.Addr().String()), nil, fault.Unavailable, "cannot be reached"},
		{"no_such_host", at("https://komainu.invalid"), nil, fault.Unavailable, "cannot be reached"},
		{"no_tls", at("https://" + plain.Listener.Addr().String()), nil, fault.Unavailable, "is not a Komainu control plane"},
		{"something_else", at(foreign.URL), nil, fault.Unavailable, "is not a Komainu control plane"},
		{"clock_behind", nil, func(_ *testing.T, o *link.EnrolOptions, _ enrol.Token) {
			o.Now = func() time.Time { return time.Now().Add(-10 * time.Minute) }
		}, fault.Conflict, "this machine's clock is 10 minutes behind the control plane's"},
		{"clock_years_behind", nil, func(_ *testing.T, o *link.EnrolOptions, _ enrol.Token) {
			o.Now = func() time.Time { return time.Unix(0, 0) }
		}, fault.Conflict, "days behind"},
		{"clock_ahead", nil, func(_ *testing.T, o *link.EnrolOptions, _ enrol.Token) {
			o.Now = func() time.Time { return time.Now().AddDate(1, 0, 0) }
		}, fault.Conflict, "days ahead"},
		{"too_old_control_plane", at("https://" + oldPlane(t, p)), nil, fault.Unsupported, "upgrade the control plane"},
		{"no_environment", nil, func(t *testing.T, _ *link.EnrolOptions, _ enrol.Token) {
			p.locked(func() { p.register = fault.New(fault.NotFound, "the environment is gone") })
			t.Cleanup(func() { p.locked(func() { p.register = nil }) })
		}, fault.NotFound, "the environment is gone"},
		{"registrar_breaks", nil, func(t *testing.T, _ *link.EnrolOptions, _ enrol.Token) {
			p.locked(func() { p.register = errors.New("secret detail") })
			t.Cleanup(func() { p.locked(func() { p.register = nil }) })
		}, fault.Internal, "internal error"},
		{"folder_is_a_file", nil, func(t *testing.T, o *link.EnrolOptions, _ enrol.Token) {
			if err := os.WriteFile(o.Dir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, fault.Internal, "keep an identity"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			token, text := p.token(tt.edit)
			o := link.EnrolOptions{Dir: filepath.Join(t.TempDir(), "state"), Token: text, Facts: facts}
			if tt.spoil != nil {
				tt.spoil(t, &o, token)
			}
			registered := len(p.devices)
			_, err := link.Enrol(t.Context(), o)
			if !fault.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%v: %v, want %v and %q", fault.KindOf(err), err, tt.kind, tt.says)
			}
			if strings.Contains(err.Error(), "secret detail") {
				t.Error("an internal error leaves the control plane")
			}
			if _, err := link.Load(o.Dir); err == nil {
				t.Error("an identity is left behind")
			}
			if left, err := os.ReadDir(o.Dir); err == nil && len(left) != 0 {
				t.Errorf("left behind: %v", left)
			}
			if n := p.uses(token.ID); n != 0 {
				t.Errorf("%d uses were spent", n)
			}
			if len(p.devices) != registered {
				t.Error("a device was registered")
			}
		})
	}
}

func TestUsesOfATokenEnd(t *testing.T) {
	p := newPlane(t)
	token, text := p.token(func(r *enrol.TokenRequest) { r.MaxUses = 3 })
	results := make(chan error)
	for range 8 {
		dir := t.TempDir()
		go func() {
			_, err := link.Enrol(t.Context(), link.EnrolOptions{Dir: dir, Token: text, Facts: facts})
			results <- err
		}()
	}
	in := 0
	for range 8 {
		switch err := <-results; {
		case err == nil:
			in++
		case !fault.Is(err, fault.Unauthentic) || !strings.Contains(err.Error(), "used up"):
			t.Error(err)
		}
	}
	if in != 3 || p.uses(token.ID) != 3 || len(p.devices) != 3 {
		t.Errorf("%d of 8 came in with 3 uses; %d are counted, %d devices", in, p.uses(token.ID), len(p.devices))
	}
}

// TestCopyEnrols: the identity that a copy has put away is known until it has
// its own, and never again.
func TestCopyEnrols(t *testing.T) {
	p := newPlane(t)
	a := p.enrol()
	if err := link.PutAway(a.dir); err != nil {
		t.Fatal(err)
	}
	if was, err := link.Away(a.dir); err != nil || was.Device != a.id.Device {
		t.Errorf("device %s, %v", was.Device, err)
	}
	_, text := p.token(nil)
	if id, err := link.Enrol(t.Context(), link.EnrolOptions{Dir: a.dir, Token: text, Facts: facts}); err != nil || id.Device == a.id.Device {
		t.Fatalf("device %s, %v", id.Device, err)
	}
	if was, err := link.Away(a.dir); !fault.Is(err, fault.NotFound) {
		t.Errorf("it is still a copy of %s, %v", was.Device, err)
	}
}

func TestEnrollingAgain(t *testing.T) {
	p := newPlane(t)
	a := p.enrol()
	_, text := p.token(nil)
	o := link.EnrolOptions{Dir: a.dir, Token: text, Facts: facts}
	if _, err := link.Enrol(t.Context(), o); !fault.Is(err, fault.Conflict) || !strings.Contains(err.Error(), "--force") {
		t.Errorf("a second enrolment: %v", err)
	}
	if id, err := link.Load(a.dir); err != nil || id.Device != a.id.Device {
		t.Errorf("the identity has changed: %v, %v", id.Device, err)
	}
	a.run()
	eventually(t, a.connected)
	o.Force = true
	id, err := link.Enrol(t.Context(), o)
	if err != nil || id.Device == a.id.Device {
		t.Fatalf("device %s, %v", id.Device, err)
	}
	a.link.Enrolled()
	eventually(t, func() string {
		for _, s := range p.gateway.Sessions() {
			if s.Device == id.Device {
				return ""
			}
		}
		return "the link did not take up its new identity"
	})
}

// TestAddressesOfTheControlPlane: an address of its own needs no
// configuration; that of something before it does.
func TestAddressesOfTheControlPlane(t *testing.T) {
	if l, err := net.Listen("tcp", "127.0.0.2:0"); err != nil {
		t.Skip("this host has no second loopback address")
	} else {
		l.Close()
	}
	p := newPlane(t)
	f := forward(t, "127.0.0.2:0", p.address)
	token, text := p.token(func(r *enrol.TokenRequest) { r.Server = "https://" + f.address() })
	_, err := link.Enrol(t.Context(), link.EnrolOptions{Dir: t.TempDir(), Token: text, Facts: facts})
	if !fault.Is(err, fault.Unauthentic) || !strings.Contains(err.Error(), "does not name 127.0.0.2") {
		t.Errorf("enrolment by a name that the certificate does not have: %v", err)
	}
	if p.uses(token.ID) != 0 {
		t.Error("a use was spent")
	}
}

func TestConnectivity(t *testing.T) {
	p := newPlane(t)
	a := p.enrol()
	var steps []link.Step
	test := func(now func() time.Time) (names []string, failed link.Step) {
		steps = nil
		err := link.Test(t.Context(), a.dir, link.Proxy{}, now, func(s link.Step) error {
			if !s.Skipped {
				names = append(names, s.Name)
			}
			if !s.OK && !s.Skipped {
				failed = s
			}
			steps = append(steps, s)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return names, failed
	}
	names, failed := test(time.Now)
	if got := strings.Join(names, " "); got != "resolve tcp tls protocol clock latency certificate" || failed.Name != "" {
		t.Errorf("steps %s, failed %+v", got, failed)
	}
	if _, failed := test(func() time.Time { return time.Now().Add(3 * time.Hour) }); failed.Name != "clock" || !strings.Contains(failed.Detail, "3 hours ahead") {
		t.Errorf("with a clock that is off: %+v", failed)
	}
	p.stop()
	if names, failed := test(time.Now); failed.Name != "tcp" || len(names) != 2 {
		t.Errorf("without a server: %v, %+v", names, failed)
	}
	if last := steps[len(steps)-1]; len(steps) != 7 || last.Name != "certificate" || !last.Skipped || last.OK {
		t.Errorf("what could not be tried: %+v", steps)
	}
	p.start()
	if err := link.Test(t.Context(), t.TempDir(), link.Proxy{}, time.Now, nil); !fault.Is(err, fault.Conflict) {
		t.Errorf("without an enrolment: %v", err)
	}
}

// TestProofOfAnEnrolledAgent has a real identity prove itself until it is
// revoked.
func TestProofOfAnEnrolledAgent(t *testing.T) {
	p := newPlane(t)
	_, token := p.token(nil)
	dir := t.TempDir()
	id, err := link.Enrol(t.Context(), link.EnrolOptions{Dir: dir, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := id.Prove("no nonce"); !fault.Is(err, fault.Invalid) {
		t.Errorf("it signs anything: %v", err)
	}
	n := deploy.NewNonce()
	proof, err := id.Prove(n)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.ids.Proves(t.Context(), id.Device, n, proof.String()); err != nil {
		t.Error(err)
	}
	if err := p.ids.Proves(t.Context(), id.Device, deploy.NewNonce(), proof.String()); !fault.Is(err, fault.Unauthentic) {
		t.Errorf("a proof from before is believed: %v", err)
	}
	if err := p.ids.Revoke(t.Context(), id.Device); err != nil {
		t.Fatal(err)
	}
	if err := p.ids.Proves(t.Context(), id.Device, n, proof.String()); !fault.Is(err, fault.Unauthentic) {
		t.Errorf("a device that is revoked proves itself: %v", err)
	}
	id.Key = ""
	if _, err := id.Prove(n); !fault.Is(err, fault.Invalid) {
		t.Errorf("without a key: %v", err)
	}
}
