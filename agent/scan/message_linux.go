package scan

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"komainu/finding"
)

// maxMessage bounds one datagram of the socket between agent and scanner.
const maxMessage = 16 << 10

// request goes to the child. With a file it carries one descriptor.
type request struct {
	ID     uint64
	Cancel bool          `json:",omitempty"` // stop the scan with this ID; no descriptor
	Budget time.Duration `json:",omitempty"`
	Closed bool          `json:",omitempty"` // archives stay closed
}

// reply comes from the child: exactly one of the pointers is set.
type reply struct {
	ID      uint64           `json:",omitempty"`
	Verdict *finding.Verdict `json:",omitempty"`
	Hello   *Confinement     `json:",omitempty"` // first message: ready
	Beat    *beat            `json:",omitempty"`
}

// beat shows that the child's scheduler runs.
type beat struct{ Panics uint64 }

// How the two sides watch each other.
const (
	beatEvery  = 500 * time.Millisecond
	staleAfter = 3 * time.Second  // no message for so long: the child hangs
	helloAfter = 15 * time.Second // a child that is not ready by then never will be
	overtime   = 2 * time.Second  // a scan may be late by so much before it counts as hung
)

var bombs = []finding.Bomb{finding.BombRatio, finding.BombSize, finding.BombCount, finding.BombDepth}

// decodeReply reads a message of the child. The child handles hostile bytes
// and could have been taken over by them, so nothing is believed that the
// engine could not have said.
func decodeReply(text []byte) (reply, error) {
	var r reply
	if err := json.Unmarshal(text, &r); err != nil {
		return reply{}, fmt.Errorf("scanner message: %w", err)
	}
	v := r.Verdict
	if v == nil {
		return r, nil
	}
	switch v.Outcome {
	case finding.Clean, finding.Malicious, finding.NotFullyScanned, finding.ScanFailed:
	default:
		return reply{}, fmt.Errorf("scanner message: outcome %q", bounded(string(v.Outcome)))
	}
	if (v.Outcome == finding.Malicious) != (v.Threat != "") || v.Threat != "" && !nameShape.MatchString(string(v.Threat)) {
		return reply{}, fmt.Errorf("scanner message: threat %q", bounded(string(v.Threat)))
	}
	if v.Bomb != "" && (v.Outcome != finding.NotFullyScanned || !slices.Contains(bombs, v.Bomb)) {
		return reply{}, fmt.Errorf("scanner message: bomb %q with outcome %q", bounded(string(v.Bomb)), v.Outcome)
	}
	if len(v.SHA256) != 0 && len(v.SHA256) != 64 {
		return reply{}, fmt.Errorf("scanner message: hash %q", bounded(v.SHA256))
	}
	v.Type = threatType(v.Threat)
	v.Inside, v.Reason, v.MediaType = bounded(v.Inside), bounded(v.Reason), bounded(v.MediaType)
	v.Definitions = bounded(v.Definitions)
	return r, nil
}
