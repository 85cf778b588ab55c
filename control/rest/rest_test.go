package rest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"komainu/control/rest"
	"komainu/fault"
)

func open() rest.Gate {
	return func(r *http.Request, need rest.Permission) (context.Context, error) { return r.Context(), nil }
}

type in struct{ rest.Paging }

// serve answers one GET of /api/v1/x with what h returns.
func serve(t *testing.T, log *bytes.Buffer, path string, h func(context.Context, *in) (string, error)) *httptest.ResponseRecorder {
	t.Helper()
	return serveAs(t.Context(), t, log, path, h)
}

func serveAs(ctx context.Context, t *testing.T, log *bytes.Buffer, path string, h func(context.Context, *in) (string, error)) *httptest.ResponseRecorder {
	t.Helper()
	l := slog.New(slog.NewTextHandler(log, nil))
	explain := func(err error) error {
		if errors.Is(err, http.ErrBodyNotAllowed) {
			return fault.Wrap(fault.Exhausted, err, "explained")
		}
		return err
	}
	api := rest.NewAPI(l, "test", open(), explain)
	api.Mount(rest.JSON("GET /api/v1/x", rest.Public, "x", h))
	w := httptest.NewRecorder()
	rest.Guard(l, api, nil).ServeHTTP(w, httptest.NewRequestWithContext(ctx, "GET", path, nil))
	return w
}

func TestErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		err    error
		status int
		want   rest.Problem
	}{
		{"fault", fault.New(fault.NotFound, "there is no %s", "x"), 404, rest.Problem{Kind: "not_found", Message: "there is no x"}},
		{"wrapped", fmt.Errorf("look: %w", fault.New(fault.Conflict, "taken")), 409, rest.Problem{Kind: "conflict", Message: "look: taken"}},
		{"explained", http.ErrBodyNotAllowed, 429, rest.Problem{Kind: "exhausted", Message: "explained: " + http.ErrBodyNotAllowed.Error()}},
		{"surprise", errors.New("a secret of ours"), 500, rest.Problem{Kind: "internal"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			w := serve(t, &log, "/api/v1/x", func(context.Context, *in) (string, error) { return "", c.err })
			var p rest.Problem
			if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || w.Code != c.status || p.Kind != c.want.Kind {
				t.Fatalf("%d %s, %v", w.Code, w.Body, err)
			}
			if c.want.Message != "" && p.Message != c.want.Message {
				t.Errorf("message %q", p.Message)
			}
			if c.status == 500 && (strings.Contains(p.Message, "secret") || p.ID == "" || p.ID != w.Header().Get("X-Request-Id") || !strings.Contains(log.String(), p.ID) || !strings.Contains(log.String(), "secret") || !strings.Contains(log.String(), "path=/api/v1/x")) {
				t.Errorf("told %+v, logged %s", p, &log)
			}
		})
	}
}

// Whoever leaves before the answer is no failure of ours.
func TestClientLeaves(t *testing.T) {
	var log bytes.Buffer
	ctx, leave := context.WithCancel(t.Context())
	w := serveAs(ctx, t, &log, "/api/v1/x", func(ctx context.Context, _ *in) (string, error) {
		leave()
		<-ctx.Done()
		return "", fmt.Errorf("look: %w", ctx.Err())
	})
	if w.Code != 503 || log.Len() != 0 {
		t.Errorf("%d %s, logged %s", w.Code, w.Body, &log)
	}
}

func TestPanicIsAnInternalError(t *testing.T) {
	var log bytes.Buffer
	w := serve(t, &log, "/api/v1/x", func(context.Context, *in) (string, error) { panic("at the disco") })
	if w.Code != 500 || strings.Contains(w.Body.String(), "disco") || !strings.Contains(log.String(), "disco") {
		t.Errorf("%d %s, logged %s", w.Code, w.Body, &log)
	}
}

func TestHeaders(t *testing.T) {
	var log bytes.Buffer
	w := serve(t, &log, "/api/v1/x", func(context.Context, *in) (string, error) { return "x", nil })
	for name, part := range map[string]string{
		"Content-Security-Policy": "default-src 'self'", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
		"Strict-Transport-Security": "max-age", "X-Frame-Options": "DENY", "Content-Type": "application/json",
	} {
		if !strings.Contains(w.Header().Get(name), part) {
			t.Errorf("%s: %q", name, w.Header().Get(name))
		}
	}
	if csp := w.Header().Get("Content-Security-Policy"); strings.Contains(csp, "script-src") || !strings.Contains(csp, "frame-ancestors 'none'") {
		t.Errorf("policy %q", csp)
	}
}

func TestPaging(t *testing.T) {
	items := []int{0, 1, 2, 3, 4, 5, 6}
	var got []int
	p := rest.Paging{Limit: 3}
	for range 5 {
		offset, err := p.Offset()
		if err != nil {
			t.Fatal(err)
		}
		page := items[offset:min(offset+p.Limit, len(items))]
		got = append(got, page...)
		if p.Cursor = p.Next(offset, len(page), len(items)); p.Cursor == "" {
			break
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(items) || p.Cursor != "" {
		t.Errorf("pages hold %v", got)
	}
	for _, bad := range []string{"x", "-1", "99999999999999999999"} {
		if _, err := (rest.Paging{Cursor: bad}).Offset(); !fault.Is(err, fault.Invalid) {
			t.Errorf("cursor %q: %v", bad, err)
		}
	}
	if text, err := json.Marshal(rest.NewList[int](nil, 0, "")); err != nil || string(text) != `{"items":[],"total":0,"next":""}` {
		t.Errorf("an empty list is %s, %v", text, err)
	}
}
