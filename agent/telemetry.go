package agent

import (
	"slices"
	"sync/atomic"

	"komainu/event"
	"komainu/policy"
)

// telemetryKinds says to which switch an event of the sensor belongs: one of
// policy.TelemetryKinds. What is not named has no switch and is always sent.
var telemetryKinds = map[event.Action]string{
	event.ProcessCreated:             "processStart",
	event.ProcessTerminated:          "processEnd",
	event.ConnectionSuccess:          "networkConnection",
	event.ConnectionFailed:           "failedConnection",
	event.InboundConnectionAccepted:  "inboundConnection",
	event.ListeningConnectionCreated: "listeningSocket",
	event.SensitiveFileRead:          "sensitiveFile",
}

// telemetry decides which events are sent. It stands between the rules, which
// see everything, and the recorder: what is held back gets no number, so that
// it does not look like a loss.
type telemetry struct {
	held atomic.Pointer[map[event.Action]bool]
	left atomic.Uint64 // events that were held back
}

func (t *telemetry) settingsChanged(e policy.Effective) {
	held := map[event.Action]bool{}
	for action, kind := range telemetryKinds {
		held[action] = !slices.Contains(e.Telemetry, kind)
	}
	t.held.Store(&held)
}

// Sends reports whether an event is sent, and counts it if it is not.
func (t *telemetry) Sends(ev *event.Event) bool {
	held := t.held.Load()
	if held == nil || !(*held)[ev.Action] {
		return true
	}
	t.left.Add(1)
	return false
}
