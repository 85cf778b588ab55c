// Package wire is the protocol between an agent and the control plane: what
// travels, its encoding, and the ledger of its changes.
//
// Messages are protobuf (wire.proto; generated code in wire/wirepb) and are
// mapped here, by hand, to plain Go types and to the vocabulary, so that
// nothing else knows the encoding. A Frame is one WebSocket message. Events
// and findings travel as records within a Batch; a record is encoded once,
// when it is spooled.
//
// Decoding is strict about size, of what travels and of what it becomes in
// memory, and never trusts a frame about who sent it: an event's device is set
// by the receiver from the client certificate. Strings that are not UTF-8
// (Linux paths can be) are escaped on encoding, \xNN per byte. Unknown fields
// are ignored, and a message that is not known is told from a malformed one
// by ErrUnknown, so that older receivers understand newer senders.
package wire

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"komainu/deploy"
	"komainu/drill"
	"komainu/event"
	"komainu/finding"
	"komainu/policy"
	"komainu/wire/wirepb"
)

//go:generate sh generate.sh

// Limits of what is accepted.
const (
	MaxFrame  = 1 << 20   // bytes of an encoded frame
	MaxBatch  = 256 << 10 // bytes of records that an agent puts into one batch
	MaxRecord = 512 << 10 // bytes of one record
	MaxHealth = 256 << 10 // bytes of the health in a heartbeat
	maxFact   = 1 << 10   // bytes of one fact about a host
)

// Message is one of the messages below: the body of a frame.
type Message interface{ frame() *wirepb.Frame }

// Facts describe a host.
type Facts struct {
	Hostname     string   `json:"hostname"`
	OS           string   `json:"os"`           // "linux", "windows"
	Distribution string   `json:"distribution"` // "debian"
	OSVersion    string   `json:"osVersion"`    // "12"
	OSName       string   `json:"osName"`       // "Debian GNU/Linux 12 (bookworm)"
	Kernel       string   `json:"kernel"`
	Arch         string   `json:"arch"`
	BootID       string   `json:"bootId"`
	MachineID    string   `json:"machineId"` // keyed hash of the host's machine id
	IPAddresses  []string `json:"ipAddresses"`
	MACAddresses []string `json:"macAddresses"`
	AgentVersion string   `json:"agentVersion"`
}

// Hello is the agent's first frame.
type Hello struct {
	Protocol      int
	AgentVersion  string
	Facts         Facts
	Epoch         event.Epoch
	PolicyVersion uint64 // in effect, 0 when none
	Time          time.Time
	Capabilities  []string
}

// Welcome answers Hello.
type Welcome struct {
	Protocol int
	Time     time.Time
}

// Batch carries spooled records in order. ID is the spool's position of the
// first one: a batch that is sent again has the same Epoch and ID.
type Batch struct {
	Epoch   event.Epoch
	ID      uint64
	Records [][]byte
}

// Ack says that a batch is safe.
type Ack struct {
	Epoch event.Epoch
	ID    uint64
}

// PolicyPush carries a signed policy.
type PolicyPush struct{ Signed policy.Signed }

// PolicyResult says what became of a policy.
type PolicyResult struct {
	Version uint64
	Error   string // "" when applied
}

// Heartbeat carries the agent's health, a health.Report as JSON.
type Heartbeat struct {
	Health  []byte
	Spooled uint64 // records that wait
	Lost    uint64 // records dropped since the agent started
}

// Command asks the agent to do one of Commands.
type Command struct {
	ID, Name string
	Test     DetectionTest  `json:",omitzero"` // of CommandTest
	Upgrade  deploy.Upgrade `json:",omitzero"` // of CommandUpgrade
}

// DetectionTest names a detection test and the run of it that is to be made.
type DetectionTest struct{ Run, Test string }

// TestRun says how far a detection test is on its device.
type TestRun struct{ Run drill.Run }

// TestStages answers a TestRun with the stages that only the control plane
// knows of.
type TestStages struct {
	Run    string
	Stages []drill.Stage
}

// UpgradeStatus says how far an upgrade is on its device.
type UpgradeStatus struct{ Status deploy.UpgradeStatus }

// CommandResult answers a Command.
type CommandResult struct{ ID, Error string }

// Goodbye says why the sender closes.
type Goodbye struct{ Kind, Message string }

// ErrFrame is wrapped by every error of Decode and DecodeRecord.
var ErrFrame = errors.New("malformed frame")

// ErrUnknown says that a frame or a record is of a kind that this version does
// not know. It wraps ErrFrame. A receiver passes over it and counts it.
var ErrUnknown = fmt.Errorf("%w: of a kind that this version does not know", ErrFrame)

// Encode encodes a message as a frame.
func Encode(m Message) ([]byte, error) {
	b, err := proto.Marshal(m.frame())
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", m, err)
	}
	if len(b) > MaxFrame {
		return nil, fmt.Errorf("encode %T: %d bytes, the limit is %d", m, len(b), MaxFrame)
	}
	return b, nil
}

// Decode decodes a frame. Every error wraps ErrFrame.
func Decode(b []byte) (Message, error) {
	if len(b) > MaxFrame {
		return nil, fmt.Errorf("%w: %d bytes, the limit is %d", ErrFrame, len(b), MaxFrame)
	}
	if err := frameShape.check(b); err != nil {
		return nil, err
	}
	var f wirepb.Frame
	if err := proto.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	switch body := f.Body.(type) {
	case *wirepb.Frame_Hello:
		h := body.Hello
		if !briefFacts(h.GetFacts()) {
			return nil, fmt.Errorf("%w: a fact of more than %d bytes", ErrFrame, maxFact)
		}
		return &Hello{
			Protocol: int(h.GetProtocol()), AgentVersion: h.GetAgentVersion(), Facts: factsOf(h.GetFacts()),
			Epoch: event.Epoch(h.GetEpoch()), PolicyVersion: h.GetPolicyVersion(),
			Time: timeOf(h.GetTimeNs()), Capabilities: h.GetCapabilities(),
		}, nil
	case *wirepb.Frame_Welcome:
		return &Welcome{Protocol: int(body.Welcome.GetProtocol()), Time: timeOf(body.Welcome.GetTimeNs())}, nil
	case *wirepb.Frame_Batch:
		return &Batch{Epoch: event.Epoch(body.Batch.GetEpoch()), ID: body.Batch.GetId(), Records: body.Batch.GetRecords()}, nil
	case *wirepb.Frame_Ack:
		return &Ack{Epoch: event.Epoch(body.Ack.GetEpoch()), ID: body.Ack.GetId()}, nil
	case *wirepb.Frame_Policy:
		return &PolicyPush{policy.Signed{Payload: body.Policy.GetPayload(), Signature: body.Policy.GetSignature()}}, nil
	case *wirepb.Frame_PolicyResult:
		return &PolicyResult{Version: body.PolicyResult.GetVersion(), Error: body.PolicyResult.GetError()}, nil
	case *wirepb.Frame_Heartbeat:
		if n := len(body.Heartbeat.GetHealth()); n > MaxHealth {
			return nil, fmt.Errorf("%w: a health report of %d bytes, the limit is %d", ErrFrame, n, MaxHealth)
		}
		return &Heartbeat{Health: body.Heartbeat.GetHealth(), Spooled: body.Heartbeat.GetSpooled(), Lost: body.Heartbeat.GetLost()}, nil
	case *wirepb.Frame_Command:
		test := body.Command.GetTest()
		upgrade, err := upgradeOf(body.Command.GetUpgrade())
		return &Command{ID: body.Command.GetId(), Name: body.Command.GetName(), Test: DetectionTest{Run: test.GetRun(), Test: test.GetTest()}, Upgrade: upgrade}, err
	case *wirepb.Frame_CommandResult:
		return &CommandResult{ID: body.CommandResult.GetId(), Error: body.CommandResult.GetError()}, nil
	case *wirepb.Frame_Goodbye:
		return &Goodbye{Kind: body.Goodbye.GetKind(), Message: body.Goodbye.GetMessage()}, nil
	case *wirepb.Frame_TestRun:
		return testRunOf(body.TestRun)
	case *wirepb.Frame_TestStages:
		stages, err := stagesOf(body.TestStages.GetStages())
		return &TestStages{Run: body.TestStages.GetRun(), Stages: stages}, err
	case *wirepb.Frame_UpgradeStatus:
		return upgradeStatusOf(body.UpgradeStatus)
	default:
		return nil, ErrUnknown
	}
}

func (h *Hello) frame() *wirepb.Frame {
	return &wirepb.Frame{Body: &wirepb.Frame_Hello{Hello: &wirepb.Hello{
		Protocol: uint32(h.Protocol), AgentVersion: text(h.AgentVersion), Facts: factsTo(h.Facts),
		Epoch: uint64(h.Epoch), PolicyVersion: h.PolicyVersion, TimeNs: timeTo(h.Time), Capabilities: texts(clip(h.Capabilities, maxCapability)),
	}}}
}

func (w *Welcome) frame() *wirepb.Frame {
	return &wirepb.Frame{Body: &wirepb.Frame_Welcome{Welcome: &wirepb.Welcome{Protocol: uint32(w.Protocol), TimeNs: timeTo(w.Time)}}}
}

func (b *Batch) frame() *wirepb.Frame {
	return &wirepb.Frame{Body: &wirepb.Frame_Batch{Batch: &wirepb.Batch{Epoch: uint64(b.Epoch), Id: b.ID, Records: b.Records}}}
}

func (a *Ack) frame() *wirepb.Frame {
	return &wirepb.Frame{Body: &wirepb.Frame_Ack{Ack: &wirepb.Ack{Epoch: uint64(a.Epoch), Id: a.ID}}}
}

func (p *PolicyPush) frame() *wirepb.Frame {
	return &wirepb.Frame{Body: &wirepb.Frame_Policy{Policy: &wirepb.PolicyPush{Payload: p.Signed.Payload, Signature: p.Signed.Signature}}}
}

func (p *PolicyResult) frame() *wirepb.Frame {
	return &wirepb.Frame{Body: &wirepb.Frame_PolicyResult{PolicyResult: &wirepb.PolicyResult{Version: p.Version, Error: text(p.Error)}}}
}

func (h *Heartbeat) frame() *wirepb.Frame {
	return &wirepb.Frame{Body: &wirepb.Frame_Heartbeat{Heartbeat: &wirepb.Heartbeat{Health: h.Health, Spooled: h.Spooled, Lost: h.Lost}}}
}

func (c *Command) frame() *wirepb.Frame {
	command := &wirepb.Command{Id: text(c.ID), Name: text(c.Name)}
	if c.Test != (DetectionTest{}) {
		command.Test = &wirepb.DetectionTest{Run: text(c.Test.Run), Test: text(c.Test.Test)}
	}
	command.Upgrade = upgradeTo(c.Upgrade)
	return &wirepb.Frame{Body: &wirepb.Frame_Command{Command: command}}
}

func (c *CommandResult) frame() *wirepb.Frame {
	return &wirepb.Frame{Body: &wirepb.Frame_CommandResult{CommandResult: &wirepb.CommandResult{Id: text(c.ID), Error: text(c.Error)}}}
}

func (g *Goodbye) frame() *wirepb.Frame {
	return &wirepb.Frame{Body: &wirepb.Frame_Goodbye{Goodbye: &wirepb.Goodbye{Kind: text(g.Kind), Message: text(g.Message)}}}
}

// EncodeEvent encodes an event as a record. The device stays behind.
func EncodeEvent(e *event.Event) ([]byte, error) {
	return encodeRecord(&wirepb.Record{Body: &wirepb.Record_Event{Event: eventTo(e)}})
}

// EncodeFinding encodes a finding as a record. The device stays behind.
func EncodeFinding(f *finding.Finding) ([]byte, error) {
	return encodeRecord(&wirepb.Record{Body: &wirepb.Record_Finding{Finding: findingTo(f)}})
}

func encodeRecord(r *wirepb.Record) ([]byte, error) {
	// Deterministic, so that a golden sample is a byte comparison.
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("encode record: %w", err)
	}
	if len(b) > MaxRecord {
		return nil, fmt.Errorf("encode record: %d bytes, the limit is %d", len(b), MaxRecord)
	}
	return b, nil
}

// Record is a decoded record: one of the two is set.
type Record struct {
	Event   *event.Event
	Finding *finding.Finding
}

// DecodeRecord decodes a record that came from the device. Every error wraps
// ErrFrame.
func DecodeRecord(device event.DeviceID, b []byte) (Record, error) {
	if len(b) > MaxRecord {
		return Record{}, fmt.Errorf("%w: record of %d bytes, the limit is %d", ErrFrame, len(b), MaxRecord)
	}
	if err := recordShape.check(b); err != nil {
		return Record{}, err
	}
	var r wirepb.Record
	if err := proto.Unmarshal(b, &r); err != nil {
		return Record{}, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	switch body := r.Body.(type) {
	case *wirepb.Record_Event:
		e := eventOf(device, body.Event)
		if e.ID.Seq == 0 || e.ID.Source == "" {
			return Record{}, fmt.Errorf("%w: event without an identity", ErrFrame)
		}
		return Record{Event: e}, nil
	case *wirepb.Record_Finding:
		f := findingOf(device, body.Finding)
		if f.ID == "" || f.Severity < finding.Informational || f.Severity > finding.High {
			return Record{}, fmt.Errorf("%w: finding without id or severity", ErrFrame)
		}
		return Record{Finding: f}, nil
	default:
		return Record{}, ErrUnknown
	}
}
