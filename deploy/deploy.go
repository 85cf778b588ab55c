// Package deploy is the vocabulary of automatic deployment and what is run on
// a host for it: the states of a machine, the steps on the way to protection,
// the reasons why it is not there with what to do about them, and the script
// that looks at a host, installs the agent and removes it.
//
// How a script comes to a host is not known here: see Host.
package deploy

import (
	"context"
	"fmt"
	"io"
)

// Extension is the name of the agent on a machine, as an extension of it.
const Extension = "Komainu.Linux"

// State of the extension on a machine.
type State string

// The states.
const (
	None          State = "none"           // nothing is wanted here
	Waiting       State = "waiting"        // wanted, and its turn comes
	Creating      State = "creating"       // somebody works on it
	Succeeded     State = "succeeded"      // the machine has proven that it is protected
	Failed        State = "failed"         // Reason says why, and what to do
	NotApplicable State = "not_applicable" // Reason says why it cannot or shall not be protected
	Removing      State = "removing"
)

// States returns every state.
func States() []State {
	return []State{None, Waiting, Creating, Succeeded, Failed, NotApplicable, Removing}
}

// Step on the way from a machine that is known to one that is protected.
type Step string

// The steps, in their order.
const (
	Connect   Step = "connect"
	Preflight Step = "preflight"
	Transfer  Step = "transfer"
	Install   Step = "install"
	Enrol     Step = "enrol"
	Report    Step = "report"    // the agent is connected and has its policy
	SelfTest  Step = "self_test" // a harmless detection has come through the whole chain
	Remove    Step = "remove"
)

// Steps returns the steps of a deployment in their order.
func Steps() []Step {
	return []Step{Connect, Preflight, Transfer, Install, Enrol, Report, SelfTest}
}

// Reason says why a machine is not protected and what to do about it. Text
// and Remedy are English; programs and readers of other languages go by ID
// and Detail.
type Reason struct {
	ID     ReasonID `json:"id"`
	Text   string   `json:"text"`
	Remedy string   `json:"remedy"`
	Detail string   `json:"detail,omitempty"` // the part of the reason that no catalogue can hold
}

// Failure is a reason as an error.
type Failure struct{ Reason Reason }

// Fail returns the failure for a reason of the catalogue.
func Fail(id ReasonID, detail string) *Failure { return &Failure{ReasonOf(id, detail)} }

// Failf is Fail with a detail that is formatted.
func Failf(id ReasonID, format string, args ...any) *Failure {
	return Fail(id, fmt.Sprintf(format, args...))
}

func (f *Failure) Error() string { return f.Said() + "; " + f.Reason.Remedy }

// Said is what has happened, without what to do about it.
func (f *Failure) Said() string {
	if f.Reason.Detail == "" {
		return f.Reason.Text
	}
	return f.Reason.Text + " (" + f.Reason.Detail + ")"
}

// Permanent reports whether trying again alone does not help: somebody has to
// do something first.
func (f *Failure) Permanent() bool { return catalogue[f.Reason.ID].permanent }

// State is what a machine is in that cannot be brought under protection for
// this reason: NotApplicable when it is of a kind that never can, else Failed.
func (f *Failure) State() State {
	if catalogue[f.Reason.ID].inapplicable {
		return NotApplicable
	}
	return Failed
}

// Exit is what Host.Run returns for a script that ends with another code than
// 0.
type Exit struct {
	Code int
	Tail string // the end of what it printed
}

func (e *Exit) Error() string {
	return fmt.Sprintf("the script ended with code %d: %s", e.Code, e.Tail)
}

// Prefix begins the lines of a script that are meant for us.
const Prefix = "komainu:"

// Host runs scripts as root on a machine.
type Host interface {
	// Run runs a POSIX shell script with arguments and standard input (which
	// may be nil). line gets each line of standard output that begins with
	// Prefix, without it. Errors: *Failure for what is wrong with the host or
	// the way to it, *Exit for a script that fails.
	Run(ctx context.Context, script string, args []string, stdin io.Reader, line func(string)) error
	Close() error
}

// Limits are what a host does not take.
type Limits struct {
	// NoInput: nothing can be sent along with a script, so that the host gets
	// the package itself, and nothing secret that the way to it would keep.
	NoInput bool
	// Cloud names the cloud whose documents say who the host is, where the
	// control plane can check them: no join token is needed. Else empty.
	Cloud string
}

// LimitsOf returns the limits of a host: those that it tells with a method
// Limits, or none.
func LimitsOf(h Host) Limits {
	if l, ok := h.(interface{ Limits() Limits }); ok {
		return l.Limits()
	}
	return Limits{}
}

// AddressOf returns the IP address that a host was reached at: that which it
// tells with a method RemoteIP, or "".
func AddressOf(h Host) string {
	if r, ok := h.(interface{ RemoteIP() string }); ok {
		return r.RemoteIP()
	}
	return ""
}
