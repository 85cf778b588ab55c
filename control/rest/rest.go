// Package rest holds what every route of the API has in common: errors as
// JSON, request ids, security headers, recovery from panics, pages of lists.
package rest

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"komainu/fault"
)

// Problem is the body of every answer that is an error.
type Problem struct {
	Kind    string `json:"kind" doc:"what sort of failure: invalid, not_found, conflict, denied, unauthenticated, unavailable, exhausted, unsupported, managed, internal"`
	Message string `json:"message" doc:"what happened, why, and what to do"`
	ID      string `json:"id,omitempty" doc:"id of the log entry, for internal errors"`
	status  int
}

// Error implements error.
func (p *Problem) Error() string { return p.Message }

// GetStatus implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.status }

// Fault turns an error into what a caller may see. An error without a kind is
// logged with an id and shown as an internal error.
func Fault(log *slog.Logger, err error) *Problem {
	if known, ok := errors.AsType[*fault.Error](err); ok && known.Kind != fault.Internal {
		return &Problem{Kind: known.Kind.String(), Message: err.Error(), status: known.Kind.HTTP()}
	}
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	return internal(log, request{id: NewID()}, err)
}

func internal(log *slog.Logger, r request, err error) *Problem {
	if r.method != "" {
		log = log.With("method", r.method, "path", r.path)
	}
	log.Error("request failed", "id", r.id, "error", err)
	return &Problem{Kind: fault.Internal.String(), Message: "internal error; the log of the control plane has the details under this id", ID: r.id, status: http.StatusInternalServerError}
}

// Write answers with an error as JSON.
func Write(w http.ResponseWriter, log *slog.Logger, err error) {
	Fault(log, err).write(w)
}

func (p *Problem) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(p.status)
	_ = json.NewEncoder(w).Encode(p) // the client is gone, nothing to tell
}

// useProblems makes huma answer its own errors (broken JSON, a missing field)
// in the same shape. huma keeps this in a variable of its package.
var useProblems = sync.OnceFunc(func() {
	huma.NewError = func(status int, message string, errs ...error) huma.StatusError {
		kind := fault.Invalid
		switch {
		case status == http.StatusNotFound:
			kind = fault.NotFound
		case status == http.StatusRequestEntityTooLarge:
			kind = fault.Exhausted
			message = fmt.Sprintf("the body is too large; the limit is %d bytes", MaxBody)
		case status >= 500:
			kind = fault.Internal
		default:
			status = kind.HTTP()
		}
		var details []string
		for _, err := range errs {
			if d, ok := err.(huma.ErrorDetailer); ok {
				// Where and what, without the value: it may be a secret.
				detail := d.ErrorDetail()
				details = append(details, detail.Location+": "+detail.Message)
			} else if err != nil {
				details = append(details, err.Error())
			}
		}
		if details != nil && status != http.StatusRequestEntityTooLarge {
			message += ": " + strings.Join(details, "; ")
		}
		return &Problem{Kind: kind.String(), Message: message, status: status}
	}
})

// NewID returns a random id of 16 characters, fit for URLs.
func NewID() string {
	var b [12]byte
	// crypto/rand ends the program when the system has no randomness.
	_, _ = rand.Read(b[:])
	return base64.RawURLEncoding.EncodeToString(b[:])
}

// Secret returns n random bytes as text, fit for URLs.
func Secret(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

// Page bounds of lists.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// Paging is embedded in the input of list routes.
type Paging struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"items per page"`
	Cursor string `query:"cursor" doc:"next of the previous page"`
}

// Offset returns where the page starts.
func (p Paging) Offset() (int, error) {
	if p.Cursor == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(p.Cursor)
	if err != nil || n < 0 {
		return 0, fault.New(fault.Invalid, "cursor %q: use the value of next from the previous page", p.Cursor)
	}
	return n, nil
}

// Next returns the cursor of the following page, "" when there is none.
func (p Paging) Next(offset, got, total int) string {
	if offset+got >= total || got == 0 {
		return ""
	}
	return strconv.Itoa(offset + got)
}

// Ref names something that has a page of its own.
type Ref struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// List is the body of list routes.
type List[T any] struct {
	Items []T    `json:"items"`
	Total int    `json:"total" doc:"how many there are in all"`
	Next  string `json:"next" doc:"cursor of the next page, empty on the last one"`
}

// NewList never has a null list.
func NewList[T any](items []T, total int, next string) List[T] {
	if items == nil {
		items = []T{}
	}
	return List[T]{Items: items, Total: total, Next: next}
}
