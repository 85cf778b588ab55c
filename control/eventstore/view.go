package eventstore

import (
	"net/netip"
	"path"
	"time"

	"komainu/event"
)

// View is an event as the API shows it. Blocks that an event does not have
// are absent, and so are empty values.
type View struct {
	ID        string            `json:"id" doc:"device/epoch/source/sequence"`
	Time      time.Time         `json:"time" doc:"when it happened, by the device's clock"`
	Action    string            `json:"action" doc:"ActionType of advanced hunting"`
	Table     string            `json:"table" doc:"hunting table that it belongs to"`
	Source    string            `json:"source" doc:"part of the agent that saw it"`
	Summary   string            `json:"summary" doc:"one line, in English"`
	Initiator *ProcessView      `json:"initiator,omitempty" doc:"the process that did it"`
	Process   *ProcessView      `json:"process,omitempty" doc:"the process it was done to"`
	File      *FileView         `json:"file,omitempty"`
	Network   *NetworkView      `json:"network,omitempty"`
	Threat    *ThreatView       `json:"threat,omitempty"`
	Fields    map[string]string `json:"fields,omitempty" doc:"everything else that the event says"`
}

// ProcessView is a process as the API shows it.
type ProcessView struct {
	Key      string    `json:"key" doc:"boot/pid/start"`
	Parent   string    `json:"parent,omitempty" doc:"key of the parent"`
	PID      uint32    `json:"pid"`
	Path     string    `json:"path"`
	Name     string    `json:"name"`
	Args     []string  `json:"args"`
	Started  time.Time `json:"started,omitzero"`
	User     UserView  `json:"user"`
	SHA256   string    `json:"sha256,omitempty"`
	ExitCode *int32    `json:"exitCode,omitempty"`
}

// UserView is the account of a process.
type UserView struct {
	UID  uint32 `json:"uid"`
	EUID uint32 `json:"euid"`
	Name string `json:"name"`
}

// FileView is a file as the API shows it.
type FileView struct {
	Path         string `json:"path"`
	Name         string `json:"name"`
	PreviousPath string `json:"previousPath,omitempty"`
	Size         int64  `json:"size"`
	SHA256       string `json:"sha256,omitempty"`
	SHA1         string `json:"sha1,omitempty"`
	MD5          string `json:"md5,omitempty"`
	Owner        string `json:"owner,omitempty"`
	Mode         uint32 `json:"mode,omitempty"`
	Sensitive    string `json:"sensitive,omitempty" doc:"class of secret, by place and name"`
	OriginURL    string `json:"originUrl,omitempty"`
}

// NetworkView is a connection, a listening socket or a name that was asked for.
type NetworkView struct {
	Protocol   string   `json:"protocol,omitempty"`
	Direction  string   `json:"direction,omitempty"`
	LocalIP    string   `json:"localIp,omitempty"`
	LocalPort  uint16   `json:"localPort,omitempty"`
	RemoteIP   string   `json:"remoteIp,omitempty"`
	RemotePort uint16   `json:"remotePort,omitempty"`
	URL        string   `json:"url,omitempty"`
	Failure    string   `json:"failure,omitempty"`
	Query      string   `json:"query,omitempty"`
	Answers    []string `json:"answers,omitempty"`
}

// ThreatView is a detection as the API shows it.
type ThreatView struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Type        string `json:"type,omitempty"`
	Action      string `json:"action,omitempty"`
	Reason      string `json:"reason,omitempty"`
	Definitions string `json:"definitions,omitempty"`
	Inside      string `json:"inside,omitempty" doc:"member path within an archive"`
}

// Views returns events as the API shows them.
func Views(events []event.Event) []View {
	views := make([]View, len(events))
	for i := range events {
		views[i] = ViewOf(&events[i])
	}
	return views
}

// ViewOf returns an event as the API shows it.
func ViewOf(e *event.Event) View {
	v := View{
		ID: e.ID.String(), Time: e.Time.UTC(), Action: string(e.Action), Table: string(e.Action.Table()),
		Source: string(e.ID.Source), Summary: Summary(e),
		Initiator: processView(e.Initiator), Process: processView(e.Process), File: fileView(e.File),
		Network: networkView(e), Fields: fieldsOf(e),
	}
	if t := e.Threat; t != nil {
		v.Threat = &ThreatView{ID: t.ID, Name: t.Name, Type: t.Type, Action: t.Action, Reason: t.Reason, Definitions: t.Definitions, Inside: t.Inside}
	}
	return v
}

// ProcessViewOf returns a process as the API shows it.
func ProcessViewOf(p event.Process) ProcessView { return *processView(&p) }

func processView(p *event.Process) *ProcessView {
	if p == nil {
		return nil
	}
	v := &ProcessView{
		Key: p.Key.String(), PID: uint32(p.Key.PID), Path: p.Path, Name: p.Name, Args: p.Args, Started: p.Started,
		User: UserView{UID: p.User.UID, EUID: p.User.EUID, Name: p.User.Name}, ExitCode: p.ExitCode,
	}
	if v.Name == "" && p.Path != "" {
		v.Name = path.Base(p.Path)
	}
	if v.Args == nil {
		v.Args = []string{}
	}
	if !p.Parent.IsZero() {
		v.Parent = p.Parent.String()
	}
	if p.Image != nil {
		v.SHA256 = p.Image.Hashes.SHA256
	}
	return v
}

func fileView(f *event.File) *FileView {
	if f == nil {
		return nil
	}
	return &FileView{
		Path: f.Path, Name: path.Base(f.Path), PreviousPath: f.PreviousPath, Size: f.Size,
		SHA256: f.Hashes.SHA256, SHA1: f.Hashes.SHA1, MD5: f.Hashes.MD5, Owner: f.Owner.Name, Mode: f.Mode,
		Sensitive: string(f.Sensitive), OriginURL: f.OriginURL,
	}
}

func networkView(e *event.Event) *NetworkView {
	switch {
	case e.Network != nil:
		n := e.Network
		return &NetworkView{
			Protocol: n.Protocol, Direction: string(n.Direction), LocalIP: addr(n.LocalIP), LocalPort: n.LocalPort,
			RemoteIP: addr(n.RemoteIP), RemotePort: n.RemotePort, URL: n.URL, Failure: n.Failure,
		}
	case e.DNS != nil:
		return &NetworkView{Protocol: "dns", RemoteIP: addr(e.DNS.Server), Query: e.DNS.Query, Answers: e.DNS.Answers, Failure: e.DNS.Code}
	case e.Logon != nil && e.Logon.RemoteIP.IsValid():
		return &NetworkView{Protocol: e.Logon.Protocol, Direction: string(event.Inbound), RemoteIP: addr(e.Logon.RemoteIP), RemotePort: e.Logon.RemotePort}
	default:
		return nil
	}
}

func addr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}
