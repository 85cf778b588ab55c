package control

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"strings"
	"time"

	"komainu/event"
	"komainu/finding"
)

// The shapes of events, processes and evidence in the API.

// EventView is an event of a timeline.
type EventView struct {
	ID        string            `json:"id"`
	Time      time.Time         `json:"time"`
	Action    event.Action      `json:"action"`
	Table     event.Table       `json:"table" doc:"the table of advanced hunting that it belongs to"`
	Source    event.Source      `json:"source"`
	Summary   string            `json:"summary" doc:"what happened, in a line"`
	Initiator *ProcessView      `json:"initiator,omitempty"`
	Process   *ProcessView      `json:"process,omitempty"`
	File      *FileView         `json:"file,omitempty"`
	Network   *NetworkView      `json:"network,omitempty"`
	Threat    *ThreatView       `json:"threat,omitempty"`
	Fields    map[string]string `json:"fields,omitempty"`
}

// ProcessView is a process at the time of an event.
type ProcessView struct {
	Key      string     `json:"key" doc:"boot/pid/start"`
	Parent   string     `json:"parent"`
	PID      event.PID  `json:"pid"`
	Path     string     `json:"path"`
	Name     string     `json:"name"`
	Args     []string   `json:"args"`
	Cwd      string     `json:"cwd,omitempty"`
	Started  *time.Time `json:"started,omitempty"`
	User     UserView   `json:"user"`
	SHA256   string     `json:"sha256,omitempty"`
	ExitCode *int32     `json:"exitCode,omitempty"`
	Signal   int32      `json:"signal,omitempty"`
}

// UserView is an account as a process carries it.
type UserView struct {
	UID  uint32 `json:"uid"`
	EUID uint32 `json:"euid"`
	Name string `json:"name"`
}

// FileView is a file at the time of an event.
type FileView struct {
	Path         string            `json:"path"`
	PreviousPath string            `json:"previousPath,omitempty"`
	Size         int64             `json:"size"`
	SHA256       string            `json:"sha256,omitempty"`
	Type         string            `json:"type,omitempty"`
	OriginURL    string            `json:"originUrl,omitempty"`
	Sensitive    event.Sensitivity `json:"sensitive,omitempty"`
}

// NetworkView is a connection or a listening socket.
type NetworkView struct {
	Protocol   string          `json:"protocol"`
	Direction  event.Direction `json:"direction"`
	LocalIP    string          `json:"localIp,omitempty"`
	LocalPort  uint16          `json:"localPort,omitempty"`
	RemoteIP   string          `json:"remoteIp,omitempty"`
	RemotePort uint16          `json:"remotePort,omitempty"`
	URL        string          `json:"url,omitempty"`
	Failure    string          `json:"failure,omitempty"`
}

// ThreatView is what protection found.
type ThreatView struct {
	ID          string `json:"id,omitempty"`
	Name        string `json:"name"`
	Type        string `json:"type"`
	Action      string `json:"action"`
	Reason      string `json:"reason,omitempty"`
	Inside      string `json:"inside,omitempty" doc:"member of an archive"`
	Definitions string `json:"definitions,omitempty"`
}

// EvidenceView is an entity that took part in an alert.
type EvidenceView struct {
	Role    finding.Role `json:"role"`
	Verdict string       `json:"verdict"`
	State   string       `json:"state"`
	File    *FileView    `json:"file,omitempty"`
	Process *ProcessView `json:"process,omitempty"`
	User    *UserView    `json:"user,omitempty"`
	Network *NetworkView `json:"network,omitempty"`
}

func eventView(e *event.Event) EventView {
	return EventView{
		ID: e.ID.String(), Time: e.Time.UTC(), Action: e.Action, Table: e.Action.Table(), Source: e.ID.Source, Summary: summary(e),
		Initiator: processView(e.Initiator), Process: processView(e.Process), File: fileView(e.File), Network: networkView(e.Network),
		Threat: threatView(e.Threat), Fields: e.Fields,
	}
}

func processView(p *event.Process) *ProcessView {
	if p == nil {
		return nil
	}
	v := &ProcessView{
		Key: p.Key.String(), PID: p.Key.PID, Path: p.Path, Name: p.Name, Args: p.Args, Cwd: p.Cwd, User: *userView(&p.User), ExitCode: p.ExitCode, Signal: p.Signal,
	}
	if !p.Parent.IsZero() {
		v.Parent = p.Parent.String()
	}
	if !p.Started.IsZero() {
		v.Started = new(p.Started.UTC())
	}
	if p.Image != nil {
		v.SHA256 = p.Image.Hashes.SHA256
	}
	if v.Args == nil {
		v.Args = []string{}
	}
	return v
}

func userView(u *event.User) *UserView {
	if u == nil {
		return nil
	}
	return &UserView{u.UID, u.EUID, u.Name}
}

func fileView(f *event.File) *FileView {
	if f == nil {
		return nil
	}
	return &FileView{Path: f.Path, PreviousPath: f.PreviousPath, Size: f.Size, SHA256: f.Hashes.SHA256, Type: f.Type, OriginURL: f.OriginURL, Sensitive: f.Sensitive}
}

func networkView(n *event.Network) *NetworkView {
	if n == nil {
		return nil
	}
	return &NetworkView{
		Protocol: n.Protocol, Direction: n.Direction, LocalIP: address(n.LocalIP), LocalPort: n.LocalPort,
		RemoteIP: address(n.RemoteIP), RemotePort: n.RemotePort, URL: n.URL, Failure: n.Failure,
	}
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func threatView(t *event.Threat) *ThreatView {
	if t == nil {
		return nil
	}
	return &ThreatView{t.ID, t.Name, t.Type, t.Action, t.Reason, t.Inside, t.Definitions}
}

func evidenceView(e finding.Evidence) EvidenceView {
	return EvidenceView{
		Role: e.Role, Verdict: e.Verdict, State: e.State,
		File: fileView(e.File), Process: processView(e.Process), User: userView(e.User), Network: networkView(e.Network),
	}
}

// summary says what happened in a line, in English.
func summary(e *event.Event) string {
	who := processName(e.Initiator)
	var file string
	if e.File != nil {
		file = e.File.Path
	}
	switch e.Action {
	case event.ProcessCreated:
		return who + " started " + commandLine(e.Process)
	case event.ProcessTerminated:
		return processName(e.Process) + " ended" + ending(e.Process)
	case event.FileCreated:
		return who + " created " + file
	case event.FileModified:
		return who + " changed " + file
	case event.FileDeleted:
		return who + " deleted " + file
	case event.FileRenamed:
		if e.File != nil {
			return who + " renamed " + e.File.PreviousPath + " to " + file
		}
	case event.SensitiveFileRead:
		return who + " opened " + file + sensitivity(e.File)
	case event.ConnectionSuccess, event.ConnectionFailed, event.InboundConnectionAccepted, event.ListeningConnectionCreated:
		if e.Network != nil {
			return who + " " + connection(e)
		}
	case event.AntivirusDetection, event.AntivirusRemediation:
		if e.Threat != nil {
			return cmp.Or(e.Threat.Name, "a threat") + " in " + cmp.Or(file, "memory") + ": " + e.Threat.Action
		}
	case event.EventsLost:
		if e.Loss != nil {
			return fmt.Sprintf("%d events were lost at %s", e.Loss.Count, e.Loss.Where)
		}
	case event.SettingChanged:
		if e.Config != nil {
			return fmt.Sprintf("%s changed from %s to %s", e.Config.Name, cmp.Or(e.Config.From, "nothing"), cmp.Or(e.Config.To, "nothing"))
		}
	}
	words := []string{string(e.Action)}
	if e.Initiator != nil {
		words = append(words, "by "+who)
	}
	if e.Process != nil {
		words = append(words, "on "+processName(e.Process))
	}
	if file != "" {
		words = append(words, file)
	}
	return strings.Join(words, " ")
}

func processName(p *event.Process) string {
	if p == nil {
		return "a process"
	}
	if name := cmp.Or(p.Name, path.Base(p.Path)); name != "." {
		return name
	}
	return fmt.Sprintf("process %d", p.Key.PID)
}

// maxCommand bounds the command line in a summary, in characters.
const maxCommand = 200

func commandLine(p *event.Process) string {
	if p == nil {
		return "a process"
	}
	line := []rune(cmp.Or(strings.Join(p.Args, " "), p.Path, p.Name))
	if len(line) > maxCommand {
		line = append(line[:maxCommand], '…')
	}
	return string(line)
}

func ending(p *event.Process) string {
	switch {
	case p == nil:
		return ""
	case p.Signal != 0:
		return fmt.Sprintf(" by signal %d", p.Signal)
	case p.ExitCode != nil && *p.ExitCode != 0:
		return fmt.Sprintf(" with code %d", *p.ExitCode)
	default:
		return ""
	}
}

func sensitivity(f *event.File) string {
	if f == nil || f.Sensitive == event.NotSensitive {
		return ""
	}
	return " (" + strings.ReplaceAll(string(f.Sensitive), "_", " ") + ")"
}

func connection(e *event.Event) string {
	n := e.Network
	local, remote := netip.AddrPortFrom(n.LocalIP, n.LocalPort), netip.AddrPortFrom(n.RemoteIP, n.RemotePort)
	switch e.Action {
	case event.ListeningConnectionCreated:
		return "listens on " + n.Protocol + " " + local.String()
	case event.InboundConnectionAccepted:
		return "accepted a " + n.Protocol + " connection from " + remote.String()
	case event.ConnectionFailed:
		return "could not connect to " + n.Protocol + " " + remote.String() + " (" + cmp.Or(n.Failure, "failed") + ")"
	default:
		return "connected to " + n.Protocol + " " + remote.String()
	}
}
