package eventstore

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"

	"komainu/event"
)

// maxSummary bounds a summary, in bytes; command lines can be long.
const maxSummary = 300

// Summary says in one English line what happened. The portal words it in the
// reader's language by the action; this is for API clients and logs.
func Summary(e *event.Event) string {
	s := sentence(e)
	if len(s) > maxSummary {
		s = s[:maxSummary]
		for !utf8.ValidString(s) { // cut within a character
			s = s[:len(s)-1]
		}
		s += "…"
	}
	return s
}

// sentence finds the words for an action.
func sentence(e *event.Event) string {
	by, what := named(e.Initiator), named(e.Process)
	switch e.Action {
	case event.ProcessCreated:
		return fmt.Sprintf("%s started %s", by, started(e.Process))
	case event.ProcessTerminated:
		return what + " ended" + ending(e.Process)
	case event.ProcessAccessed, event.ProcessTampered:
		return fmt.Sprintf("%s reached into the memory of %s%s", by, what, detail(" by ", memory(e).Operation))
	case event.ScriptContent:
		return fmt.Sprintf("%s ran a script%s", by, detail(" in ", script(e).Interpreter))
	case event.MemfdCreated:
		return fmt.Sprintf("%s made the memory file %s", by, orUnknown(memory(e).Target))
	case event.SignalSent:
		return fmt.Sprintf("%s sent a signal to %s", by, what)
	case event.RawAccessRead:
		return fmt.Sprintf("%s read the raw device %s", by, orUnknown(memory(e).Target))
	}
	switch e.Action.Source() {
	case event.FromFile:
		return fileSentence(e, by)
	case event.FromNetwork:
		return networkSentence(e, by)
	case event.FromAuth:
		return authSentence(e)
	case event.FromSystem:
		return systemSentence(e)
	case event.FromProtection:
		return protectionSentence(e)
	default:
		return agentSentence(e)
	}
}

func fileSentence(e *event.Event, by string) string {
	var f event.File
	if e.File != nil {
		f = *e.File
	}
	name := orUnknown(f.Path)
	switch e.Action {
	case event.FileCreated:
		return by + " created " + name
	case event.FileModified:
		return by + " changed " + name
	case event.FileDeleted:
		return by + " deleted " + name
	case event.FileRenamed:
		return fmt.Sprintf("%s renamed %s to %s", by, orUnknown(f.PreviousPath), name)
	case event.FilePermissionChanged:
		return fmt.Sprintf("%s changed the permissions of %s from %#o to %#o", by, name, f.PreviousMode&0o7777, f.Mode&0o7777)
	case event.FileLinked:
		return by + " made the link " + name
	case event.SensitiveFileRead:
		return fmt.Sprintf("%s read the sensitive file %s%s", by, name, detail(": ", strings.ReplaceAll(string(f.Sensitive), "_", " ")))
	}
	return fmt.Sprintf("%s: %s by %s", e.Action, name, by)
}

func networkSentence(e *event.Event, by string) string {
	var n event.Network
	if e.Network != nil {
		n = *e.Network
	}
	remote := endpoint(addr(n.RemoteIP), n.RemotePort, n.URL)
	switch e.Action {
	case event.ConnectionSuccess:
		return fmt.Sprintf("%s connected to %s", by, remote)
	case event.ConnectionFailed:
		return fmt.Sprintf("%s could not connect to %s%s", by, remote, detail(": ", n.Failure))
	case event.InboundConnectionAccepted:
		return fmt.Sprintf("%s accepted a connection from %s to port %d", by, remote, n.LocalPort)
	case event.ListeningConnectionCreated:
		return fmt.Sprintf("%s listens on %s", by, endpoint(addr(n.LocalIP), n.LocalPort, ""))
	case event.DNSQueryResponse:
		if e.DNS != nil {
			return fmt.Sprintf("%s asked for the name %s", by, orUnknown(e.DNS.Query))
		}
	}
	return fmt.Sprintf("%s: %s by %s", e.Action, remote, by)
}

func authSentence(e *event.Event) string {
	var l event.Logon
	if e.Logon != nil {
		l = *e.Logon
	}
	who := "an account"
	if a := e.Account; a != nil {
		who = cmp.Or(a.User.Name, a.Group, who)
	}
	from := detail(" from ", cmp.Or(addr(l.RemoteIP), l.RemoteDevice)) + detail(" by ", l.Protocol)
	switch e.Action {
	case event.LogonSuccess:
		return who + " logged on" + from
	case event.LogonFailed:
		return who + " failed to log on" + from + detail(": ", l.FailureReason)
	case event.Logoff:
		return who + " logged off"
	case event.UserAccountCreated:
		return "the account " + who + " was created"
	case event.UserAccountModified:
		return "the account " + who + " was changed"
	case event.UserAccountDeleted:
		return "the account " + who + " was deleted"
	}
	return fmt.Sprintf("%s: %s", e.Action, who)
}

func systemSentence(e *event.Event) string {
	r := RowOf(e)
	name := orUnknown(cmp.Or(r.Object, r.ObjectPath))
	kind, verb := "the service ", ""
	switch e.Action {
	case event.ServiceInstalled, event.ScheduledTaskCreated:
		verb = " was created"
	case event.ServiceModified, event.ScheduledTaskUpdated:
		verb = " was changed"
	case event.ServiceDeleted, event.ScheduledTaskDeleted:
		verb = " was deleted"
	case event.DriverLoad:
		return "the kernel module " + name + " was loaded"
	case event.ImageLoaded:
		return named(e.Initiator) + " loaded the library " + name
	case event.BPFProgramLoaded:
		return named(e.Initiator) + " loaded the BPF program " + name
	default:
		return fmt.Sprintf("%s: %s", e.Action, name)
	}
	if e.Task != nil {
		kind = "the scheduled task "
	}
	return kind + name + verb
}

func protectionSentence(e *event.Event) string {
	var t event.Threat
	if e.Threat != nil {
		t = *e.Threat
	}
	name, where := cmp.Or(t.Name, "a threat"), ""
	if e.File != nil {
		where = detail(" in ", e.File.Path) + detail(", member ", t.Inside)
	}
	switch e.Action {
	case event.AntivirusDetection:
		return name + " was found" + where + detail(": ", t.Action)
	case event.AntivirusRemediation:
		return name + where + ": " + orUnknown(t.Action) + detail(", ", t.Reason)
	case event.OpenAllowedUnscanned:
		return "an open was allowed without a scan" + where + detail(": ", e.Fields["reason"])
	case event.ScanStarted:
		return "a scan started"
	case event.ScanCompleted:
		return "a scan was completed"
	case event.ScanCancelled:
		return "a scan was cancelled"
	case event.BehaviorDetection:
		return cmp.Or(t.Name, e.Fields["rule"], "suspicious behavior") + " by " + named(e.Initiator)
	}
	return string(e.Action) + where
}

func agentSentence(e *event.Event) string {
	var c event.Config
	if e.Config != nil {
		c = *e.Config
	}
	switch e.Action {
	case event.AgentStarted:
		return "the agent started"
	case event.AgentStopped:
		return "the agent stopped"
	case event.PartRestarted:
		return fmt.Sprintf("the agent's part %s was restarted%s", orUnknown(e.Fields["part"]), detail(": ", e.Fields["reason"]))
	case event.SettingChanged:
		return fmt.Sprintf("the setting %s changed%s%s%s", orUnknown(c.Name), detail(" from ", c.From), detail(" to ", c.To), detail(" by ", c.By))
	case event.PolicyApplied:
		return "a policy was applied" + detail(": version ", c.To)
	case event.EventsLost:
		if l := e.Loss; l != nil {
			return fmt.Sprintf("%d %s events were lost at %s", l.Count, l.Source, orUnknown(l.Where))
		}
		return "events were lost"
	case event.HealthChanged:
		return "the agent's health changed" + detail(": ", c.Name) + detail(" is ", c.To)
	}
	return string(e.Action)
}

// named is a process in a sentence.
func named(p *event.Process) string {
	if p == nil {
		return "an unknown process"
	}
	name := p.Name
	if name == "" && p.Path != "" {
		name = path.Base(p.Path)
	}
	if name == "" {
		return fmt.Sprintf("process %d", p.Key.PID)
	}
	return fmt.Sprintf("%s (%d)", name, p.Key.PID)
}

// started is a new process in a sentence: what it was called with.
func started(p *event.Process) string {
	if p == nil || len(p.Args) == 0 {
		return named(p)
	}
	return fmt.Sprintf("%s: %s", named(p), Cmdline(p.Args))
}

func ending(p *event.Process) string {
	switch {
	case p == nil:
		return ""
	case p.Signal != 0:
		return fmt.Sprintf(" by signal %d", p.Signal)
	case p.ExitCode != nil:
		return fmt.Sprintf(" with exit code %d", *p.ExitCode)
	default:
		return ""
	}
}

func endpoint(ip string, port uint16, name string) string {
	where := orUnknown(ip)
	if port != 0 {
		where = net.JoinHostPort(where, strconv.Itoa(int(port)))
	}
	if name != "" && name != ip {
		where += " (" + name + ")"
	}
	return where
}

func memory(e *event.Event) event.Memory {
	if e.Memory == nil {
		return event.Memory{}
	}
	return *e.Memory
}

func script(e *event.Event) event.Script {
	if e.Script == nil {
		return event.Script{}
	}
	return *e.Script
}

func orUnknown(s string) string { return cmp.Or(s, "unknown") }

// detail is s after a lead, nothing when there is no s.
func detail(lead, s string) string {
	if s == "" {
		return ""
	}
	return lead + s
}

// fieldsOf returns what the blocks of View do not show, flat.
func fieldsOf(e *event.Event) map[string]string {
	fields := maps.Clone(e.Fields)
	put := func(key, value string) {
		if value == "" {
			return
		}
		if fields == nil {
			fields = map[string]string{}
		}
		fields[key] = value
	}
	if l := e.Logon; l != nil {
		put("logon_type", l.Type)
		put("logon_protocol", l.Protocol)
		put("failure_reason", l.FailureReason)
		put("remote_device", l.RemoteDevice)
	}
	if a := e.Account; a != nil {
		put("account_name", a.User.Name)
		put("account_group", a.Group)
		put("account_groups", strings.Join(a.Groups, ", "))
	}
	r := RowOf(e)
	put("object", r.Object)
	put("object_path", r.ObjectPath)
	switch {
	case e.Service != nil:
		put("command", e.Service.Command)
		put("state", e.Service.State)
	case e.Task != nil:
		put("command", e.Task.Command)
		put("schedule", e.Task.Schedule)
		put("user", e.Task.User)
	case e.Module != nil:
		put("kind", e.Module.Kind)
		put("detail", e.Module.Detail)
		put("sha256", e.Module.Hashes.SHA256)
	case e.Script != nil:
		put("script", e.Script.Content)
	case e.Memory != nil:
		put("operation", e.Memory.Operation)
	case e.Config != nil:
		put("from", e.Config.From)
		put("to", e.Config.To)
		put("by", e.Config.By)
	}
	if l := e.Loss; l != nil {
		put("lost_at", l.Where)
		put("lost_source", string(l.Source))
		put("lost_count", strconv.FormatUint(l.Count, 10))
	}
	return fields
}
