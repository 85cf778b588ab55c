// Package fault gives errors a kind that the edges of the product understand:
// HTTP status, exit code, log level, and whether a retry can help.
//
// A kind is attached where the meaning is known, with New or Wrap, and read
// only at an edge, with KindOf. Everything between passes errors on unchanged
// or wraps them with %w. The message of a fault is written for the person who
// reads it: what happened, why, and what to do. Errors without a kind are
// bugs or surprises; an edge shows them as an internal error.
package fault

import (
	"errors"
	"fmt"
	"net/http"
)

// Kind says what sort of failure an error is.
type Kind uint8

// The kinds. Internal is what an error without a kind counts as.
const (
	Internal    Kind = iota // a bug or a surprise of ours
	Invalid                 // the input is wrong; the same call fails again
	NotFound                // the thing does not exist, or the caller may not know that it does
	Conflict                // the state does not allow it: exists already, changed meanwhile
	Denied                  // the caller is known but may not
	Unauthentic             // the caller is not known: no, wrong or revoked credentials
	Unsupported             // this platform, kernel, plan or version cannot do it
	Unavailable             // a part is down or unreachable; a retry can help
	Exhausted               // a limit is reached: size, rate, disk, queue
	Managed                 // the setting is managed by policy and cannot be changed here
	NeedsRoot               // the operation needs root or an equal capability
)

// Exit codes of every command. They are a contract with scripts.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitNeedsRoot   = 3
	ExitUnreachable = 4
	ExitManaged     = 5
	ExitRefused     = 6
	ExitUnsupported = 7
)

var kinds = [...]struct {
	name string
	http int
	exit int
}{
	Internal:    {"internal", http.StatusInternalServerError, ExitFailed},
	Invalid:     {"invalid", http.StatusUnprocessableEntity, ExitUsage},
	NotFound:    {"not_found", http.StatusNotFound, ExitFailed},
	Conflict:    {"conflict", http.StatusConflict, ExitFailed},
	Denied:      {"denied", http.StatusForbidden, ExitRefused},
	Unauthentic: {"unauthenticated", http.StatusUnauthorized, ExitRefused},
	Unsupported: {"unsupported", http.StatusNotImplemented, ExitUnsupported},
	Unavailable: {"unavailable", http.StatusServiceUnavailable, ExitUnreachable},
	Exhausted:   {"exhausted", http.StatusTooManyRequests, ExitFailed},
	Managed:     {"managed", http.StatusConflict, ExitManaged},
	NeedsRoot:   {"needs_root", http.StatusForbidden, ExitNeedsRoot},
}

// String returns the stable lower-case name that travels in API bodies.
func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k].name
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// HTTP returns the status that a server answers with for this kind.
func (k Kind) HTTP() int {
	if int(k) < len(kinds) {
		return kinds[k].http
	}
	return http.StatusInternalServerError
}

// Exit returns the exit code of a command that ends with this kind.
func (k Kind) Exit() int {
	if int(k) < len(kinds) {
		return kinds[k].exit
	}
	return ExitFailed
}

// ParseKind is the inverse of String. An unknown name is Internal, so that a
// newer server cannot make an older client read a failure as something
// harmless.
func ParseKind(name string) Kind {
	for k, row := range kinds {
		if row.name == name {
			return Kind(k)
		}
	}
	return Internal
}

// Error is an error with a kind and a message for people. Make one with New
// or Wrap.
type Error struct {
	Kind    Kind
	Message string // what happened, why, what to do; no trailing period
	cause   error
	whole   bool // Message already tells the cause
}

// Error returns the message, and the cause after it unless the message
// already tells it.
func (e *Error) Error() string {
	if e.cause == nil || e.whole {
		return e.Message
	}
	return e.Message + ": " + e.cause.Error()
}

// Unwrap returns the cause, nil when there is none.
func (e *Error) Unwrap() error { return e.cause }

// New returns an error of the given kind with a formatted message. What a %w
// verb names stays reachable by errors.Is and errors.As.
func New(kind Kind, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Kind: kind, Message: err.Error(), cause: errors.Unwrap(err), whole: true}
}

// Wrap attaches a kind to err and puts a message before it. Wrap of nil is
// nil.
func Wrap(kind Kind, err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...), cause: err}
}

// KindOf returns the outermost kind in err, Internal when there is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Internal
}

// Is reports whether err has the kind k. It is false for nil.
func Is(err error, k Kind) bool { return err != nil && KindOf(err) == k }

// Exit returns the exit code for err: 0 for nil.
func Exit(err error) int {
	if err == nil {
		return ExitOK
	}
	return KindOf(err).Exit()
}
