package access_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/audit"
	"komainu/control/db"
	"komainu/control/rest"
	"komainu/fault"
)

// cheap is a cost that tests can pay.
var cheap = access.Hashing{Passes: 1, Memory: 64, Threads: 1}

// bench is an access slice with a clock of its own.
type bench struct {
	*access.Access
	db  *bun.DB
	log *audit.Log
	now time.Time
}

func open(t *testing.T) (*bench, string) {
	t.Helper()
	d, err := db.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if err := db.Migrate(t.Context(), d, access.Migrations, audit.Migrations); err != nil {
		t.Fatal(err)
	}
	b := &bench{db: d, now: time.Date(2026, 11, 1, 8, 0, 0, 0, time.UTC)}
	clock := func() time.Time { return b.now }
	b.log = audit.New(d, clock)
	b.Access = access.New(d, access.Config{Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Version: "test", Hashing: cheap, Now: clock, Record: b.log.Record})
	password, err := b.Bootstrap(t.Context(), "Example")
	if err != nil {
		t.Fatal(err)
	}
	return b, password
}

// signIn returns the context that a handler gets after a sign-in.
func (b *bench) signIn(t *testing.T, name, password string) (context.Context, *http.Cookie, error) {
	t.Helper()
	in := &access.SignInInput{}
	in.Body.Name, in.Body.Password = name, password
	r := httptest.NewRequest("POST", "/api/v1/session", nil)
	ctx, err := b.Gate(r, rest.Public)
	if err != nil {
		t.Fatal(err)
	}
	out, err := b.SignIn(ctx, in)
	if err != nil {
		return nil, nil, err
	}
	ctx, err = b.as(t, &out.SetCookie, "", rest.SignedIn)
	return ctx, &out.SetCookie, err
}

func (b *bench) as(t *testing.T, cookie *http.Cookie, bearer string, need rest.Permission) (context.Context, error) {
	t.Helper()
	r := httptest.NewRequest("GET", "/api/v1/devices", nil)
	if cookie != nil {
		r.AddCookie(cookie)
	}
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	return b.Gate(r, need)
}

func TestFirstStart(t *testing.T) {
	b, password := open(t)
	if again, err := b.Bootstrap(t.Context(), "Example"); err != nil || again != "" {
		t.Fatalf("a second start made %q, %v", again, err)
	}
	var hash string
	if err := b.db.NewRaw("SELECT password_hash FROM users").Scan(t.Context(), &hash); err != nil || !strings.HasPrefix(hash, "$argon2id$") || strings.Contains(hash, password) {
		t.Errorf("stored %q, %v", hash, err)
	}
	ctx, cookie, err := b.signIn(t, "admin", password)
	if err != nil {
		t.Fatal(err)
	}
	s, err := b.Session(ctx, nil)
	if err != nil || !s.MustChangePassword || s.Organization.Name != "Example" || s.Role != access.Admin {
		t.Errorf("session %+v, %v", s, err)
	}
	if _, err := b.as(t, cookie, "", access.ReadDevices); !fault.Is(err, fault.Denied) || !strings.Contains(err.Error(), "change the one-time password") {
		t.Errorf("before the password is changed: %v", err)
	}
	change := &access.PasswordInput{}
	for _, c := range []struct{ current, next, want string }{
		{"wrong", "a long enough password", "current password is wrong"},
		{password, password, "is the current one"},
		{password, "short", "at least 12"},
		{password, "the-admin-password", "name of the user"},
		{password, "xxxxxxxxxxxxxxxx", "one character"},
	} {
		change.Body.Current, change.Body.New = c.current, c.next
		if _, err := b.ChangePassword(ctx, change); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("change to %q: %v", c.next, err)
		}
	}
	_, other, err := b.signIn(t, "admin", password)
	if err != nil {
		t.Fatal(err)
	}
	change.Body.Current, change.Body.New = password, "correct horse battery"
	if s, err := b.ChangePassword(ctx, change); err != nil || s.MustChangePassword {
		t.Fatalf("session %+v, %v", s, err)
	}
	if _, err := b.as(t, cookie, "", access.ReadDevices); err != nil {
		t.Errorf("after the password is changed: %v", err)
	}
	if _, err := b.as(t, other, "", rest.SignedIn); !fault.Is(err, fault.Unauthentic) {
		t.Errorf("another session outlives the password: %v", err)
	}
	if _, _, err := b.signIn(t, "admin", password); !fault.Is(err, fault.Unauthentic) {
		t.Errorf("the one-time password still works: %v", err)
	}
}

func TestResetAdminWhileOthersWork(t *testing.T) {
	b, password := open(t)
	_, cookie, err := b.signIn(t, "admin", password)
	if err != nil {
		t.Fatal(err)
	}
	name, next, err := b.ResetAdmin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.as(t, cookie, "", rest.SignedIn); !fault.Is(err, fault.Unauthentic) {
		t.Errorf("the old session: %v", err)
	}
	if _, _, err := b.signIn(t, name, next); err != nil {
		t.Error(err)
	}
}

func TestSessionsEnd(t *testing.T) {
	b, password := open(t)
	_, cookie, err := b.signIn(t, "admin", password)
	if err != nil {
		t.Fatal(err)
	}
	step := func(d time.Duration, want bool) {
		t.Helper()
		b.now = b.now.Add(d)
		if _, err := b.as(t, cookie, "", rest.SignedIn); (err == nil) != want {
			t.Errorf("after %v more: %v", d, err)
		}
	}
	for range 7 {
		step(100*time.Minute, true) // used often enough
	}
	step(21*time.Minute, false) // 12 hours after the sign-in
	_, cookie, err = b.signIn(t, "admin", password)
	if err != nil {
		t.Fatal(err)
	}
	step(time.Hour, true)
	step(121*time.Minute, false) // idle
}

func TestGuessingIsSlowedDown(t *testing.T) {
	b, password := open(t)
	for range 5 {
		if _, _, err := b.signIn(t, "admin", "wrong"); !fault.Is(err, fault.Unauthentic) {
			t.Fatal(err)
		}
	}
	if _, _, err := b.signIn(t, "admin", password); !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "try again in 15s") {
		t.Errorf("the sixth: %v", err)
	}
	if _, _, err := b.signIn(t, "somebody", "else"); !fault.Is(err, fault.Unauthentic) {
		t.Errorf("another name: %v", err)
	}
	b.now = b.now.Add(16 * time.Second)
	if _, _, err := b.signIn(t, "admin", password); err != nil {
		t.Errorf("after the pause: %v", err)
	}
}

func TestTokens(t *testing.T) {
	b, password := open(t)
	ctx, _, err := b.signIn(t, "admin", password)
	if err != nil {
		t.Fatal(err)
	}
	in := &access.CreateTokenInput{}
	in.Body.Label, in.Body.Role, in.Body.ExpiresInSeconds = "siem", access.Reader, 3600
	token, err := b.CreateToken(ctx, in)
	if err != nil || !strings.HasPrefix(token.Token, "kmt_") {
		t.Fatalf("%+v, %v", token, err)
	}
	as, err := b.as(t, nil, token.Token, access.ReadDevices)
	if err != nil {
		t.Fatal(err)
	}
	if a := access.ActorOf(as); a.Kind != access.Token || a.Name != "siem" || a.Role != access.Reader || a.Organization == "" {
		t.Errorf("actor %+v", a)
	}
	if _, err := b.as(t, nil, token.Token, access.TriageAlerts); !fault.Is(err, fault.Denied) {
		t.Errorf("a reader triages: %v", err)
	}
	list, err := b.ListTokens(ctx, &rest.Paging{Limit: 10})
	if err != nil || list.Total != 1 || list.Items[0].Token != "" || list.Items[0].LastUsed == nil {
		t.Errorf("list %+v, %v", list, err)
	}
	b.now = b.now.Add(2 * time.Hour)
	if _, err := b.as(t, nil, token.Token, access.ReadDevices); !fault.Is(err, fault.Unauthentic) || !strings.Contains(err.Error(), "expired") {
		t.Errorf("after its time: %v", err)
	}
	if err := b.DeleteToken(ctx, &access.ByID{ID: token.ID}); err != nil {
		t.Error(err)
	}
	if _, err := b.as(t, nil, token.Token, access.ReadDevices); !fault.Is(err, fault.Unauthentic) || !strings.Contains(err.Error(), "not known") {
		t.Errorf("after its deletion: %v", err)
	}
}

func TestTheLastAdministratorStays(t *testing.T) {
	b, password := open(t)
	ctx, _, err := b.signIn(t, "admin", password)
	if err != nil {
		t.Fatal(err)
	}
	id := access.ActorOf(ctx).ID
	change := &access.ChangeUserInput{ID: id}
	change.Body.Role = new(access.Reader)
	if _, err := b.ChangeUser(ctx, change); !fault.Is(err, fault.Conflict) {
		t.Errorf("it becomes a reader: %v", err)
	}
	if err := b.DeleteUser(ctx, &access.ByID{ID: id}); !fault.Is(err, fault.Conflict) {
		t.Errorf("it is deleted: %v", err)
	}
	create := &access.CreateUserInput{}
	create.Body.Name, create.Body.Role = "second", access.Admin
	u, err := b.CreateUser(ctx, create)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.CreateUser(ctx, create); !fault.Is(err, fault.Conflict) {
		t.Errorf("a name is given twice: %v", err)
	}
	if _, _, err := b.signIn(t, "SECOND", u.OneTimePassword); err != nil {
		t.Errorf("names differ only in case: %v", err)
	}
	if _, err := b.ChangeUser(ctx, change); err != nil {
		t.Errorf("there is another one: %v", err)
	}
}

// TestEveryChangeIsRecorded also shows that a change without its entry does
// not happen.
func TestEveryChangeIsRecorded(t *testing.T) {
	b, password := open(t)
	ctx, _, err := b.signIn(t, "admin", password)
	if err != nil {
		t.Fatal(err)
	}
	create := &access.CreateUserInput{}
	create.Body.Name, create.Body.Role = "reader", access.Reader
	u, err := b.CreateUser(ctx, create)
	if err != nil {
		t.Fatal(err)
	}
	change := &access.ChangeUserInput{ID: u.ID}
	change.Body.Role, change.Body.ResetPassword = new(access.Operator), true
	if _, err := b.ChangeUser(ctx, change); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteUser(ctx, &access.ByID{ID: u.ID}); err != nil {
		t.Fatal(err)
	}
	list, err := b.log.List(ctx, &audit.ListInput{Paging: rest.Paging{Limit: 100}})
	if err != nil {
		t.Fatal(err)
	}
	var actions []string
	for _, e := range list.Items {
		actions = append(actions, string(e.Actor.Kind)+" "+e.Action)
		if strings.Contains(string(e.Detail), password) || strings.Contains(string(e.Detail), u.OneTimePassword) {
			t.Errorf("a secret in %s", e.Detail)
		}
	}
	want := []string{"user user.delete", "user user.change", "user user.create", "user session.create", "system user.create"}
	if !slices.Equal(actions, want) {
		t.Errorf("recorded %q, want %q", actions, want)
	}
	for _, q := range []string{"DELETE FROM audit_log", "UPDATE audit_log SET action = ''"} {
		if _, err := b.db.ExecContext(t.Context(), q); err == nil || !strings.Contains(err.Error(), "append only") {
			t.Errorf("%s: %v", q, err)
		}
	}
	broken := access.New(b.db, access.Config{Log: slog.Default(), Hashing: cheap, Record: func(context.Context, bun.IDB, access.Change) error { return errors.New("no room") }})
	create.Body.Name = "ghost"
	if _, err := broken.CreateUser(ctx, create); err == nil {
		t.Error("a change without its entry")
	}
	users, err := b.ListUsers(ctx, &rest.Paging{Limit: 10})
	if err != nil || users.Total != 1 {
		t.Errorf("users %+v, %v", users, err)
	}
}

func TestAnotherSiteCannotUseTheCookie(t *testing.T) {
	b, password := open(t)
	_, cookie, err := b.signIn(t, "admin", password)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("POST", "/api/v1/tokens", nil)
	r.AddCookie(cookie)
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	if _, err := b.Gate(r, rest.SignedIn); !fault.Is(err, fault.Denied) {
		t.Errorf("error %v", err)
	}
	if !cookie.HttpOnly || !cookie.Secure || cookie.SameSite != http.SameSiteStrictMode {
		t.Errorf("cookie %v", cookie)
	}
}
