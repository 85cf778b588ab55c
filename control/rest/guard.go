package rest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"
)

// MaxBody is the largest body of a request, in bytes.
const MaxBody = 1 << 20

// csp lets the portal run the scripts and styles of its own build and nothing
// else. Styles may be inline because its component library inserts rules.
const csp = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; frame-ancestors 'none'; base-uri 'self'; form-action 'self'"

type (
	requestKey struct{}
	bodyKey    struct{}
)

// request is what the log says of one.
type request struct{ id, method, path string }

// requestOf returns the request that ctx belongs to. Outside of one it has no
// id.
func requestOf(ctx context.Context) request {
	r, _ := ctx.Value(requestKey{}).(request)
	return r
}

// RequestID returns the id of the request that ctx belongs to, which answers
// carry as X-Request-Id.
func RequestID(ctx context.Context) string { return requestOf(ctx).id }

// Guard is the outermost handler: it names the request, bounds its body, sets
// the headers that keep a browser from being misled, turns a panic into an
// internal error, and writes the access log at debug. observe, if it is not
// nil, is told of every answer: the pattern of its route ("" for none), the
// status, and how long it took.
func Guard(log *slog.Logger, next http.Handler, observe func(pattern string, status int, took time.Duration)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start, id := time.Now(), NewID()
		h := w.Header()
		h.Set("X-Request-Id", id)
		h.Set("Content-Security-Policy", csp)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Strict-Transport-Security", "max-age=31536000")
		if strings.HasPrefix(r.URL.Path, "/api/") {
			h.Set("Cache-Control", "no-store")
		}
		about := request{id, r.Method, r.URL.Path}
		ctx := context.WithValue(r.Context(), requestKey{}, about)
		if r.Body != nil {
			ctx = context.WithValue(ctx, bodyKey{}, r.Body)
			r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
		}
		rec := &recorder{ResponseWriter: w}
		r = r.WithContext(ctx)
		defer func() {
			v := recover()
			if v == http.ErrAbortHandler {
				panic(v)
			}
			if v != nil {
				p := internal(log, about, fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
				if rec.status == 0 {
					p.write(w)
				}
			}
			took := time.Since(start)
			if observe != nil {
				observe(r.Pattern, rec.status, took)
			}
			log.Debug("request", "id", id, "method", r.Method, "path", r.URL.Path, "status", rec.status, "took", took, "remote", r.RemoteAddr)
		}()
		next.ServeHTTP(rec, r)
	})
}

// LargeBody returns the body of a request for a route that takes more than
// MaxBody, bounded by limit. It is for Plain routes that do not keep it in
// memory, after their gate.
func LargeBody(w http.ResponseWriter, r *http.Request, limit int64) io.ReadCloser {
	body, ok := r.Context().Value(bodyKey{}).(io.ReadCloser)
	if !ok {
		body = r.Body
	}
	return http.MaxBytesReader(w, body, limit)
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
