package localapi

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"komainu/fault"
)

// headerVersion carries the agent's version in every answer: what has none
// is not an agent.
const headerVersion = "Komainu-Agent"

// access says who may call a route.
type access uint8

const (
	everybody access = iota
	admins
)

// route is one line of the table of the API.
type route struct {
	pattern string
	who     access
	run     func(*call) error
}

// call is one request under way.
type call struct {
	w       http.ResponseWriter
	r       *http.Request
	admin   bool
	control *http.ResponseController
}

// failure is the body of an answer that says no, and of the line that ends a
// broken stream.
type failure struct {
	Kind    string `json:"kind"`
	Message string `json:"message"`
	ID      string `json:"id,omitempty"` // to find it in the agent's log
}

func (f failure) err() error { return fault.New(fault.ParseKind(f.Kind), "%s", f.Message) }

// handler checks who calls, runs the route and turns its error into an
// answer.
func (s *Server) handler(r route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		caller, _ := CallerOf(req.Context())
		c := &call{w: w, r: req, admin: caller.Admin, control: http.NewResponseController(w)}
		w.Header().Set(headerVersion, s.cfg.Version)
		w.Header().Set("Cache-Control", "no-store")
		c.extend()
		defer func() {
			switch p := recover(); p {
			case nil:
			case http.ErrAbortHandler: // the connection is to break
				panic(p)
			default:
				s.panics.Add(1)
				s.cfg.Log.Error("local call panicked", "route", r.pattern, "panic", p)
				c.fail(failure{Kind: fault.Internal.String(), Message: "internal error"}, http.StatusInternalServerError)
			}
		}()
		if r.who == admins && !caller.Admin {
			c.fail(s.failure(c, r, fault.New(fault.NeedsRoot, "this needs root, or membership of the group %s", Group)), http.StatusForbidden)
			return
		}
		if req.Method != http.MethodGet {
			s.cfg.Log.Info("local call", "route", r.pattern, "uid", caller.UID, "pid", caller.PID)
		}
		req.Body = http.MaxBytesReader(w, req.Body, maxBody)
		if err := r.run(c); err != nil {
			f := s.failure(c, r, err)
			c.fail(f, fault.ParseKind(f.Kind).HTTP())
		}
	})
}

// failure describes err to the caller. An administrator may read the text of
// a surprise too, others find it only by its id in the log.
func (s *Server) failure(c *call, r route, err error) failure {
	if errors.Is(err, context.Canceled) && c.r.Context().Err() != nil {
		err = fault.New(fault.Unavailable, "the daemon is stopping, or the caller went away")
	}
	f := failure{Kind: fault.KindOf(err).String(), Message: err.Error()}
	if !fault.Is(err, fault.Internal) {
		return f
	}
	f.ID = rand.Text()[:8]
	s.cfg.Log.Error("local call failed", "route", r.pattern, "error", err, "id", f.ID)
	if !c.admin {
		f.Message = "internal error"
	}
	return f
}

func (c *call) fail(f failure, status int) {
	c.extend()
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(status)
	json.NewEncoder(c.w).Encode(f)
}

// extend gives the next write its time: a caller who does not read is cut
// off.
func (c *call) extend() { c.control.SetWriteDeadline(time.Now().Add(writeTimeout)) }

// answer sends v, or passes err on.
func (c *call) answer(v any, err error) error {
	if err != nil {
		return err
	}
	c.extend()
	c.w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(c.w).Encode(v)
	return nil
}

// done answers a change that has nothing to tell.
func (c *call) done(err error) error {
	if err == nil {
		c.w.WriteHeader(http.StatusNoContent)
	}
	return err
}

// decode reads the body strictly: one JSON value of the expected shape and
// nothing behind it.
func decode[T any](c *call) (T, error) {
	var v T
	// Only the body is read against the clock: a deadline that stayed would
	// end the context of a long call.
	c.control.SetReadDeadline(time.Now().Add(readTimeout))
	defer c.control.SetReadDeadline(time.Time{})
	d := json.NewDecoder(c.r.Body)
	d.DisallowUnknownFields()
	err := d.Decode(&v)
	if err == nil && !errors.Is(d.Decode(&struct{}{}), io.EOF) {
		err = errors.New("more than one value")
	}
	if tooBig, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return v, fault.New(fault.Exhausted, "the request is larger than %d bytes", tooBig.Limit)
	}
	if err != nil {
		return v, fault.New(fault.Invalid, "the request cannot be read: %w", err)
	}
	return v, nil
}

// items is the body of every list.
type items[T any] struct {
	Items []T `json:"items"`
	// Restricted says that the caller may not see all of it.
	Restricted bool `json:"restricted,omitempty"`
}

func list[T any](all []T) items[T] {
	return items[T]{Items: orEmpty(all)}
}

// line is one line of a stream. The last one is done or failed: a stream
// without it was broken off.
type line[T any] struct {
	Item   *T       `json:"item,omitempty"`
	Failed *failure `json:"failed,omitempty"`
	Done   bool     `json:"done,omitempty"`
}

// stream sends what produce yields, line by line. An error before the first
// line is an answer like any other.
func stream[T any](s *Server, c *call, produce func(yield func(T) error) error) error {
	started := false
	send := func(l line[T]) error {
		if !started {
			started = true
			c.w.Header().Set("Content-Type", "application/x-ndjson")
		}
		c.extend()
		if err := json.NewEncoder(c.w).Encode(l); err != nil {
			return err
		}
		return c.control.Flush()
	}
	err := produce(func(v T) error { return send(line[T]{Item: &v}) })
	switch {
	case err != nil && !started:
		return err
	case err != nil:
		f := s.failure(c, route{pattern: c.r.Pattern}, err)
		send(line[T]{Failed: &f})
	default:
		send(line[T]{Done: true})
	}
	return nil
}
