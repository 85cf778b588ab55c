package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"time"

	"komainu/fault"
	"komainu/health"
)

// joinToken is a join token as its creation answers it.
type joinToken struct {
	ID, Token string
	Uses      int
}

func (f *foe) token(ctx context.Context, a *api, env string, seconds, uses int) (joinToken, error) {
	var t joinToken
	err := a.call(ctx, "POST", "/environments/"+env+"/join-tokens", map[string]any{"label": "hostile", "expiresInSeconds": seconds, "maxUses": uses}, &t)
	return t, err
}

// uses is how often the control plane has let a token be used.
func (f *foe) uses(ctx context.Context, id string) (int, error) {
	var list struct{ Items []joinToken }
	if err := f.api.call(ctx, "GET", "/environments/"+f.env+"/join-tokens?limit=200", nil, &list); err != nil {
		return 0, err
	}
	for _, t := range list.Items {
		if t.ID == id {
			return t.Uses, nil
		}
	}
	return 0, fault.New(fault.NotFound, "the control plane does not list the token %s", id)
}

// devices counts what the control plane has registered.
func (f *foe) devices(ctx context.Context) (int, error) {
	var list struct{ Total int }
	err := f.api.call(ctx, "GET", "/devices?limit=1", nil, &list)
	return list.Total, err
}

// device is who the agent with this state is, "" before it has enrolled.
func (f *foe) device(state string) (string, error) {
	text, err := os.ReadFile(filepath.Join(state, "identity.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	var id struct{ Device string }
	if err == nil {
		err = json.Unmarshal(text, &id)
	}
	return id.Device, err
}

// refused tries to enrol with a token and sees that nothing has come of it on
// either side but a message.
func (f *foe) refused(ctx context.Context, state string, t joinToken, code int, texts ...string) error {
	before, err := f.device(state)
	if err != nil {
		return err
	}
	known, err := f.devices(ctx)
	if err != nil {
		return err
	}
	used := 0
	if t.ID != "" {
		if used, err = f.uses(ctx, t.ID); err != nil {
			return err
		}
	}
	args := []string{"enrol", t.Token}
	if before != "" {
		args = []string{"enrol", "--force", t.Token}
	}
	if err := f.cli(ctx, state, args...).want(code, texts...); err != nil {
		return err
	}
	if now, err := f.device(state); err != nil || now != before {
		return fmt.Errorf("the device was %q and is %q now: %w", before, now, err)
	}
	litter, err := filepath.Glob(filepath.Join(state, ".identity*"))
	if err != nil || len(litter) != 0 {
		return fmt.Errorf("left behind: %v, %w", litter, err)
	}
	if now, err := f.devices(ctx); err != nil || now != known {
		return fmt.Errorf("%d devices were registered, %d are now: %w", known, now, err)
	}
	if t.ID != "" {
		if now, err := f.uses(ctx, t.ID); err != nil || now != used {
			return fmt.Errorf("the token was used %d times, %d times now: %w", used, now, err)
		}
	}
	return nil
}

func (f *foe) joinSteps() []step {
	bad := func(token func(ctx context.Context) (joinToken, error), code int, texts ...string) func(context.Context) error {
		return func(ctx context.Context) error {
			t, err := token(ctx)
			if err != nil {
				return err
			}
			return f.refused(ctx, f.agentDir(), t, code, texts...)
		}
	}
	text := func(s string) func(context.Context) (joinToken, error) {
		return func(context.Context) (joinToken, error) { return joinToken{Token: s}, nil }
	}
	return []step{
		{"what is no join token is refused as that", bad(text("hunter2"), fault.ExitUsage, "this is no join token", "kmj1.")},
		{"a join token that was cut off is refused as that", bad(f.cutToken, fault.ExitUsage, "damaged")},
		{"a join token with another secret is refused as unknown", bad(f.guessedToken, fault.ExitRefused, "not known here")},
		{"a join token of another control plane is refused as that", bad(f.foreignToken, fault.ExitRefused, "not known here", "another control plane")},
		{"a server that is not the token's gets no secret", bad(f.misledToken, fault.ExitRefused, "its CA is another one", "nothing was sent")},
		{"a join token that was revoked is refused as that", bad(f.revokedToken, fault.ExitRefused, "was revoked")},
		{"a server where nobody listens is named", bad(f.deafToken, fault.ExitUnreachable, "cannot be reached")},
		{"a server that is no control plane is named", f.otherServer},
		{"then the agent enrols, and is healthy", f.enrol},
		{"a join token that is used up is refused as that, the device stays", f.usedToken},
		{"a device that is enrolled is not enrolled again by accident", f.enrolledAlready},
	}
}

func (f *foe) cutToken(ctx context.Context) (joinToken, error) {
	t, err := f.token(ctx, f.api, f.env, 3600, 1)
	t.Token = t.Token[:len(t.Token)*2/3]
	return t, err
}

func (f *foe) guessedToken(ctx context.Context) (joinToken, error) {
	t, err := f.token(ctx, f.api, f.env, 3600, 1)
	if err == nil {
		t.Token, err = editToken(t.Token, "t", "a guess")
	}
	return t, err
}

// foreignToken is a secret of the other control plane, shown to this one.
func (f *foe) foreignToken(ctx context.Context) (joinToken, error) {
	mine, err := f.token(ctx, f.api, f.env, 3600, 1)
	if err != nil {
		return mine, err
	}
	env, err := f.theirs.environment(ctx)
	if err != nil {
		return mine, err
	}
	foreign, err := f.token(ctx, f.theirs, env.ID, 3600, 1)
	if err != nil {
		return mine, err
	}
	secret, err := tokenField(foreign.Token, "t")
	if err == nil {
		mine.Token, err = editToken(mine.Token, "t", secret)
	}
	return mine, err
}

// misledToken leads to the other control plane with the pin of this one.
func (f *foe) misledToken(ctx context.Context) (joinToken, error) {
	t, err := f.token(ctx, f.api, f.env, 3600, 1)
	if err == nil {
		t.Token, err = redirect(t.Token, f.other.URL)
	}
	return t, err
}

func (f *foe) revokedToken(ctx context.Context) (joinToken, error) {
	t, err := f.token(ctx, f.api, f.env, 3600, 1)
	if err == nil {
		err = f.api.call(ctx, "DELETE", "/environments/"+f.env+"/join-tokens/"+t.ID, nil, nil)
	}
	return t, err
}

func (f *foe) deafToken(ctx context.Context) (joinToken, error) {
	t, err := f.token(ctx, f.api, f.env, 3600, 1)
	if err != nil {
		return t, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return t, err
	}
	t.Token, err = redirect(t.Token, "https://"+l.Addr().String())
	return t, errors.Join(err, l.Close())
}

// otherServer leads the agent to web servers that are something else.
func (f *foe) otherServer(ctx context.Context) error {
	page := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<h1>It works!</h1>") })
	plain, tls := httptest.NewServer(page), httptest.NewUnstartedServer(page)
	tls.StartTLS()
	defer plain.Close()
	defer tls.Close()
	for _, url := range []string{strings.Replace(plain.URL, "http:", "https:", 1), tls.URL} {
		t, err := f.token(ctx, f.api, f.env, 3600, 1)
		if err == nil {
			t.Token, err = redirect(t.Token, url)
		}
		if err == nil {
			err = f.refused(ctx, f.agentDir(), t, fault.ExitUnreachable, "is not a Komainu control plane")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", url, err)
		}
	}
	return nil
}

func (f *foe) enrol(ctx context.Context) error {
	t, err := f.token(ctx, f.api, f.env, 3600, 1)
	if err != nil {
		return err
	}
	if err := f.cli(ctx, f.agentDir(), "enrol", t.Token).want(fault.ExitOK); err != nil {
		return err
	}
	if n, err := f.uses(ctx, t.ID); err != nil || n != 1 {
		return fmt.Errorf("the token was used %d times: %w", n, err)
	}
	return f.stack.WaitHealthy(ctx)
}

func (f *foe) usedToken(ctx context.Context) error {
	t, err := f.token(ctx, f.api, f.env, 3600, 1)
	if err != nil {
		return err
	}
	state := filepath.Join(f.dir, "second")
	second, err := f.startSkewed(ctx, state, 0)
	if err != nil {
		return err
	}
	defer second.Stop()
	if err := f.cli(ctx, state, "enrol", t.Token).want(fault.ExitOK); err != nil {
		return err
	}
	if err := f.refused(ctx, f.agentDir(), t, fault.ExitRefused, "is used up"); err != nil {
		return err
	}
	return f.condition(ctx, f.agentDir(), "link", health.OK, "")
}

func (f *foe) enrolledAlready(ctx context.Context) error {
	t, err := f.token(ctx, f.api, f.env, 3600, 1)
	if err != nil {
		return err
	}
	before, err := f.device(f.agentDir())
	if err != nil {
		return err
	}
	if err := f.cli(ctx, f.agentDir(), "enrol", t.Token).want(fault.ExitFailed, "is enrolled in", "--force"); err != nil {
		return err
	}
	if now, err := f.device(f.agentDir()); err != nil || now != before {
		return fmt.Errorf("the device was %q and is %q now: %w", before, now, err)
	}
	if n, err := f.uses(ctx, t.ID); err != nil || n != 0 {
		return fmt.Errorf("the token was used %d times: %w", n, err)
	}
	return nil
}

// expiredToken waits for the token that was made at the start.
func (f *foe) expiredToken(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Until(f.expires)):
	}
	return f.refused(ctx, f.agentDir(), joinToken{Token: f.expiring}, fault.ExitRefused, "expired at")
}
