package event

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// DeviceID names a device for ever. The control plane gives it at enrolment;
// it survives renewal of the certificate and a change of host name.
type DeviceID string

// BootID is the kernel's /proc/sys/kernel/random/boot_id.
type BootID string

// PID is a process id in the host's initial pid namespace.
type PID uint32

// ProcessKey identifies a process for ever, together with the device: no two
// processes of one boot share pid and start time.
type ProcessKey struct {
	Boot  BootID
	PID   PID
	Start uint64 // nanoseconds since boot, start_boottime of the thread group leader
	// Inexact says that Start was read from /proc, which rounds to the clock
	// tick: compare with Same, not with ==.
	Inexact bool
}

// tick is the resolution of start times in /proc: USER_HZ is 100 on every
// architecture that the agent runs on.
const tick = uint64(10 * time.Millisecond)

// IsZero reports whether k names no process.
func (k ProcessKey) IsZero() bool { return k.PID == 0 && k.Start == 0 }

// Same reports whether both keys name the same process. Two exact keys must
// agree to the nanosecond; an inexact one only to the clock tick.
func (k ProcessKey) Same(o ProcessKey) bool {
	if k.Boot != o.Boot || k.PID != o.PID {
		return false
	}
	if k.Inexact || o.Inexact {
		return k.Start/tick == o.Start/tick
	}
	return k.Start == o.Start
}

// String returns boot/pid/start, with a tilde before an inexact start. It is
// the id of a process in URLs and in the store.
func (k ProcessKey) String() string {
	mark := ""
	if k.Inexact {
		mark = "~"
	}
	return fmt.Sprintf("%s/%d/%s%d", k.Boot, k.PID, mark, k.Start)
}

// ParseProcessKey is the inverse of ProcessKey.String.
func ParseProcessKey(s string) (ProcessKey, error) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return ProcessKey{}, fmt.Errorf("process key %q: want boot/pid/start", s)
	}
	pid, err := strconv.ParseUint(parts[1], 10, 32)
	if err != nil {
		return ProcessKey{}, fmt.Errorf("process key %q: pid: %w", s, err)
	}
	start, inexact := strings.CutPrefix(parts[2], "~")
	ns, err := strconv.ParseUint(start, 10, 64)
	if err != nil {
		return ProcessKey{}, fmt.Errorf("process key %q: start: %w", s, err)
	}
	return ProcessKey{Boot: BootID(parts[0]), PID: PID(pid), Start: ns, Inexact: inexact}, nil
}

// Source is the part of an agent that numbers its events by itself.
type Source string

// The sources. Each has its own sequence within an epoch.
const (
	FromProcess    Source = "process"
	FromFile       Source = "file"
	FromNetwork    Source = "network"
	FromAuth       Source = "auth"
	FromSystem     Source = "system"
	FromProtection Source = "protection"
	FromAgent      Source = "agent"
)

// Sources lists every source, in the order of the contracts.
func Sources() []Source {
	return []Source{FromProcess, FromFile, FromNetwork, FromAuth, FromSystem, FromProtection, FromAgent}
}

// Epoch numbers the runs of an agent: a new one at every start and after the
// state was rolled back, so that a sequence is never given twice.
type Epoch uint64

// ID identifies an event for ever. The store keeps at most one event per ID.
type ID struct {
	Device DeviceID
	Epoch  Epoch
	Source Source
	Seq    uint64 // from 1, without gaps: a gap is a loss
}

// String returns device/epoch/source/seq, the ReportId of hunting.
func (id ID) String() string {
	return fmt.Sprintf("%s/%d/%s/%d", id.Device, uint64(id.Epoch), id.Source, id.Seq)
}

// ParseID is the inverse of ID.String.
func ParseID(s string) (ID, error) {
	parts := strings.Split(s, "/")
	if len(parts) != 4 {
		return ID{}, fmt.Errorf("event id %q: want device/epoch/source/seq", s)
	}
	epoch, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil {
		return ID{}, fmt.Errorf("event id %q: epoch: %w", s, err)
	}
	seq, err := strconv.ParseUint(parts[3], 10, 64)
	if err != nil {
		return ID{}, fmt.Errorf("event id %q: sequence: %w", s, err)
	}
	return ID{Device: DeviceID(parts[0]), Epoch: Epoch(epoch), Source: Source(parts[2]), Seq: seq}, nil
}

// Compare orders ids by device, epoch, source and sequence.
func (id ID) Compare(o ID) int {
	return cmp.Or(
		cmp.Compare(id.Device, o.Device),
		cmp.Compare(id.Epoch, o.Epoch),
		cmp.Compare(id.Source, o.Source),
		cmp.Compare(id.Seq, o.Seq),
	)
}
