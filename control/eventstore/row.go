package eventstore

import (
	"strings"

	"komainu/event"
)

// Row is an event as engines keep it in columns: what hunting and timelines
// select by. It is made from the event and holds nothing that the event does
// not; an empty value is an absent one. The columns follow the tables of
// advanced hunting, "initiating" is their InitiatingProcess block.
type Row struct {
	Action string
	Table  string

	// The process it was done to.
	PID          uint32
	Start        uint64 // nanoseconds since boot
	Boot         string
	Path         string
	Name         string
	Cmdline      string
	SHA256       string
	User         string
	InitBoot     string
	InitPID      uint32
	InitStart    uint64
	InitPath     string
	InitName     string
	InitCmdline  string
	InitSHA256   string
	InitUser     string
	InitParent   uint32
	FilePath     string
	FilePrevious string
	FileSHA256   string
	FileSize     uint64
	Sensitive    string
	Protocol     string
	LocalIP      string
	LocalPort    uint16
	RemoteIP     string
	RemotePort   uint16
	URL          string // of a connection, or the name that was asked for
	LogonType    string
	Account      string
	Object       string // service, task, module, memory file, setting
	ObjectPath   string
	Threat       string
	ThreatID     string
}

// RowOf returns the columns of an event.
func RowOf(e *event.Event) Row {
	r := Row{Action: string(e.Action), Table: string(e.Action.Table())}
	r.processes(e)
	if f := e.File; f != nil {
		r.FilePath, r.FilePrevious, r.FileSHA256 = f.Path, f.PreviousPath, f.Hashes.SHA256
		r.FileSize, r.Sensitive = uint64(max(f.Size, 0)), string(f.Sensitive)
		r.URL = f.OriginURL
		if f.OriginIP.IsValid() {
			r.RemoteIP = f.OriginIP.String()
		}
	}
	r.network(e)
	r.account(e)
	r.object(e)
	if t := e.Threat; t != nil {
		r.Threat, r.ThreatID = t.Name, t.ID
	}
	return r
}

func (r *Row) processes(e *event.Event) {
	if p := e.Process; p != nil {
		r.Boot, r.PID, r.Start = string(p.Key.Boot), uint32(p.Key.PID), p.Key.Start
		r.Path, r.Name, r.Cmdline, r.User = p.Path, p.Name, Cmdline(p.Args), p.User.Name
		if p.Image != nil {
			r.SHA256 = p.Image.Hashes.SHA256
		}
	}
	if p := e.Initiator; p != nil {
		r.InitBoot, r.InitPID, r.InitStart = string(p.Key.Boot), uint32(p.Key.PID), p.Key.Start
		r.InitPath, r.InitName, r.InitCmdline, r.InitUser = p.Path, p.Name, Cmdline(p.Args), p.User.Name
		r.InitParent = uint32(p.Parent.PID)
		if p.Image != nil {
			r.InitSHA256 = p.Image.Hashes.SHA256
		}
	}
}

func (r *Row) network(e *event.Event) {
	if n := e.Network; n != nil {
		r.Protocol, r.LocalPort, r.RemotePort, r.URL = n.Protocol, n.LocalPort, n.RemotePort, n.URL
		if n.LocalIP.IsValid() {
			r.LocalIP = n.LocalIP.String()
		}
		if n.RemoteIP.IsValid() {
			r.RemoteIP = n.RemoteIP.String()
		}
	}
	if d := e.DNS; d != nil {
		r.Protocol, r.URL = "dns", d.Query
		if d.Server.IsValid() {
			r.RemoteIP = d.Server.String()
		}
	}
}

func (r *Row) account(e *event.Event) {
	if l := e.Logon; l != nil {
		r.LogonType, r.Protocol, r.RemotePort = l.Type, l.Protocol, l.RemotePort
		if l.RemoteIP.IsValid() {
			r.RemoteIP = l.RemoteIP.String()
		}
	}
	if a := e.Account; a != nil {
		r.Account = a.User.Name
		if r.Account == "" {
			r.Account = a.Group
		}
	}
}

func (r *Row) object(e *event.Event) {
	switch {
	case e.Service != nil:
		r.Object, r.ObjectPath = e.Service.Name, e.Service.Path
	case e.Task != nil:
		r.Object, r.ObjectPath = e.Task.Name, e.Task.Path
	case e.Module != nil:
		r.Object, r.ObjectPath = e.Module.Name, e.Module.Path
	case e.Memory != nil:
		r.Object = e.Memory.Target
	case e.Config != nil:
		r.Object = e.Config.Name
	case e.Script != nil:
		r.Object = e.Script.Interpreter
	}
}

// Cmdline is how a list of arguments is kept, shown and searched.
func Cmdline(args []string) string { return strings.Join(args, " ") }

// Texts returns the columns that Query.Text looks into.
func (r *Row) Texts() []string {
	return []string{
		r.Path, r.Name, r.Cmdline, r.SHA256, r.User,
		r.InitPath, r.InitName, r.InitCmdline, r.InitSHA256, r.InitUser,
		r.FilePath, r.FilePrevious, r.FileSHA256,
		r.LocalIP, r.RemoteIP, r.URL, r.Account, r.Object, r.ObjectPath, r.Threat, r.Action,
	}
}
