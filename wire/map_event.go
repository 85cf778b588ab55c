package wire

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"komainu/event"
	"komainu/wire/wirepb"
)

// text makes a string fit for protobuf: bytes that are not UTF-8 become \xNN.
func text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&b, `\x%02x`, s[0])
		} else {
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

func texts(list []string) []string {
	if list == nil {
		return nil
	}
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = text(s)
	}
	return out
}

// A time travels as Unix nanoseconds; 0 is the zero time, so that what is not
// known takes no room. The epoch itself, which image builders like to give to
// files, has a number of its own. Times that nanoseconds cannot count (before
// 1678, after 2262) become the nearest one that they can.
const (
	unixEpoch = math.MinInt64
	firstTime = math.MinInt64 + 1
	lastTime  = math.MaxInt64
)

func timeTo(t time.Time) int64 {
	switch ns := t.UnixNano(); {
	case t.IsZero():
		return 0
	case t.Before(time.Unix(0, firstTime)):
		return firstTime
	case t.After(time.Unix(0, lastTime)):
		return lastTime
	case ns == 0:
		return unixEpoch
	default:
		return ns
	}
}

func timeOf(ns int64) time.Time {
	switch ns {
	case 0:
		return time.Time{}
	case unixEpoch:
		return time.Unix(0, 0).UTC()
	default:
		return time.Unix(0, ns).UTC()
	}
}

// portOf makes a number that is no port none.
func portOf(n uint32) uint16 {
	if n > math.MaxUint16 {
		return 0
	}
	return uint16(n)
}

func addrTo(a netip.Addr) []byte { return a.AsSlice() }

func addrOf(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b) // a wrong length is no address
	return a
}

// each maps a list, nil to nil.
func each[A, B any](list []A, f func(A) B) []B {
	if list == nil {
		return nil
	}
	out := make([]B, len(list))
	for i, a := range list {
		out[i] = f(a)
	}
	return out
}

// factsTo cuts what is too long: a host with a thousand addresses is to be
// let in all the same.
func factsTo(f Facts) *wirepb.Facts {
	return &wirepb.Facts{
		Hostname: brief(f.Hostname), Os: brief(f.OS), Distribution: brief(f.Distribution), OsVersion: brief(f.OSVersion),
		OsName: brief(f.OSName), Kernel: brief(f.Kernel), Arch: brief(f.Arch), BootId: brief(f.BootID), MachineId: brief(f.MachineID),
		IpAddresses: each(clip(f.IPAddresses, maxAddresses), brief), MacAddresses: each(clip(f.MACAddresses, maxAddresses), brief), AgentVersion: brief(f.AgentVersion),
	}
}

// brief is text that is at most as long as a fact may be.
func brief(s string) string {
	s = text(s)
	if len(s) <= maxFact {
		return s
	}
	return strings.ToValidUTF8(s[:maxFact], "")
}

func briefFacts(f *wirepb.Facts) bool {
	all := []string{f.GetHostname(), f.GetOs(), f.GetDistribution(), f.GetOsVersion(), f.GetOsName(), f.GetKernel(), f.GetArch(), f.GetBootId(), f.GetMachineId(), f.GetAgentVersion()}
	return !slices.ContainsFunc(slices.Concat(all, f.GetIpAddresses(), f.GetMacAddresses()), func(s string) bool { return len(s) > maxFact })
}

func factsOf(f *wirepb.Facts) Facts {
	return Facts{
		Hostname: f.GetHostname(), OS: f.GetOs(), Distribution: f.GetDistribution(), OSVersion: f.GetOsVersion(),
		OSName: f.GetOsName(), Kernel: f.GetKernel(), Arch: f.GetArch(), BootID: f.GetBootId(), MachineID: f.GetMachineId(),
		IPAddresses: f.GetIpAddresses(), MACAddresses: f.GetMacAddresses(), AgentVersion: f.GetAgentVersion(),
	}
}

func keyTo(k event.ProcessKey) *wirepb.ProcessKey {
	if k == (event.ProcessKey{}) {
		return nil
	}
	return &wirepb.ProcessKey{Boot: text(string(k.Boot)), Pid: uint32(k.PID), Start: k.Start, Inexact: k.Inexact}
}

func keyOf(k *wirepb.ProcessKey) event.ProcessKey {
	return event.ProcessKey{Boot: event.BootID(k.GetBoot()), PID: event.PID(k.GetPid()), Start: k.GetStart(), Inexact: k.GetInexact()}
}

func userTo(u event.User) *wirepb.User {
	if u == (event.User{}) {
		return nil
	}
	return &wirepb.User{Uid: u.UID, Euid: u.EUID, Gid: u.GID, Egid: u.EGID, Name: text(u.Name), Domain: text(u.Domain), Sid: text(u.SID)}
}

func userOf(u *wirepb.User) event.User {
	return event.User{UID: u.GetUid(), EUID: u.GetEuid(), GID: u.GetGid(), EGID: u.GetEgid(), Name: u.GetName(), Domain: u.GetDomain(), SID: u.GetSid()}
}

func hashesTo(h event.Hashes) *wirepb.Hashes {
	if h == (event.Hashes{}) {
		return nil
	}
	return &wirepb.Hashes{Md5: text(h.MD5), Sha1: text(h.SHA1), Sha256: text(h.SHA256), Fuzzy: text(h.Fuzzy)}
}

func hashesOf(h *wirepb.Hashes) event.Hashes {
	return event.Hashes{MD5: h.GetMd5(), SHA1: h.GetSha1(), SHA256: h.GetSha256(), Fuzzy: h.GetFuzzy()}
}

func fileTo(f *event.File) *wirepb.File {
	if f == nil {
		return nil
	}
	return &wirepb.File{
		Path: text(f.Path), PreviousPath: text(f.PreviousPath), Size: f.Size, Mode: f.Mode, Owner: userTo(f.Owner),
		Device: f.Device, Inode: f.Inode, ModTime: timeTo(f.ModTime), ChangeTime: timeTo(f.ChangeTime), Hashes: hashesTo(f.Hashes),
		Type: text(f.Type), Header: f.Header, Entropy: f.Entropy, OriginUrl: text(f.OriginURL), OriginIp: addrTo(f.OriginIP),
		Sensitive: text(string(f.Sensitive)), PreviousMode: f.PreviousMode,
	}
}

func fileOf(f *wirepb.File) *event.File {
	if f == nil {
		return nil
	}
	return &event.File{
		Path: f.GetPath(), PreviousPath: f.GetPreviousPath(), Size: f.GetSize(), Mode: f.GetMode(), Owner: userOf(f.GetOwner()),
		Device: f.GetDevice(), Inode: f.GetInode(), ModTime: timeOf(f.GetModTime()), ChangeTime: timeOf(f.GetChangeTime()),
		Hashes: hashesOf(f.GetHashes()), Type: f.GetType(), Header: f.GetHeader(), Entropy: f.GetEntropy(),
		OriginURL: f.GetOriginUrl(), OriginIP: addrOf(f.GetOriginIp()), Sensitive: event.Sensitivity(f.GetSensitive()), PreviousMode: f.GetPreviousMode(),
	}
}

func processTo(p *event.Process) *wirepb.Process {
	if p == nil {
		return nil
	}
	args := p.Args
	truncated := p.Truncated
	if len(args) > maxArgs {
		args, truncated = args[:maxArgs], true
	}
	return &wirepb.Process{
		Key: keyTo(p.Key), Parent: keyTo(p.Parent), Path: text(p.Path), Name: text(p.Name), Args: texts(args), Truncated: truncated,
		Cwd: text(p.Cwd), Started: timeTo(p.Started), User: userTo(p.User), LoginUid: p.LoginUID, Session: p.Session, Tty: text(p.TTY),
		Container: text(p.Container), Cgroup: text(p.CGroup), Image: fileTo(p.Image), ExitCode: p.ExitCode, Signal: p.Signal,
	}
}

func processOf(p *wirepb.Process) *event.Process {
	if p == nil {
		return nil
	}
	return &event.Process{
		Key: keyOf(p.GetKey()), Parent: keyOf(p.GetParent()), Path: p.GetPath(), Name: p.GetName(), Args: p.GetArgs(), Truncated: p.GetTruncated(),
		Cwd: p.GetCwd(), Started: timeOf(p.GetStarted()), User: userOf(p.GetUser()), LoginUID: p.GetLoginUid(), Session: p.GetSession(), TTY: p.GetTty(),
		Container: p.GetContainer(), CGroup: p.GetCgroup(), Image: fileOf(p.GetImage()), ExitCode: p.ExitCode, Signal: p.GetSignal(),
	}
}

func networkTo(n *event.Network) *wirepb.Network {
	if n == nil {
		return nil
	}
	return &wirepb.Network{
		Protocol: text(n.Protocol), Direction: text(string(n.Direction)), LocalIp: addrTo(n.LocalIP), LocalPort: uint32(n.LocalPort),
		RemoteIp: addrTo(n.RemoteIP), RemotePort: uint32(n.RemotePort), Url: text(n.URL), Failure: text(n.Failure),
	}
}

func networkOf(n *wirepb.Network) *event.Network {
	if n == nil {
		return nil
	}
	return &event.Network{
		Protocol: n.GetProtocol(), Direction: event.Direction(n.GetDirection()), LocalIP: addrOf(n.GetLocalIp()), LocalPort: portOf(n.GetLocalPort()),
		RemoteIP: addrOf(n.GetRemoteIp()), RemotePort: portOf(n.GetRemotePort()), URL: n.GetUrl(), Failure: n.GetFailure(),
	}
}

func dnsTo(d *event.DNS) *wirepb.DNS {
	if d == nil {
		return nil
	}
	return &wirepb.DNS{Query: text(d.Query), Type: text(d.Type), Answers: texts(clip(d.Answers, maxAnswers)), Code: text(d.Code), Server: addrTo(d.Server)}
}

func dnsOf(d *wirepb.DNS) *event.DNS {
	if d == nil {
		return nil
	}
	return &event.DNS{Query: d.GetQuery(), Type: d.GetType(), Answers: d.GetAnswers(), Code: d.GetCode(), Server: addrOf(d.GetServer())}
}

func logonTo(l *event.Logon) *wirepb.Logon {
	if l == nil {
		return nil
	}
	return &wirepb.Logon{
		Id: text(l.ID), Type: text(l.Type), Protocol: text(l.Protocol), RemoteDevice: text(l.RemoteDevice), RemoteIp: addrTo(l.RemoteIP),
		RemotePort: uint32(l.RemotePort), FailureReason: text(l.FailureReason), LocalAdmin: l.LocalAdmin,
	}
}

func logonOf(l *wirepb.Logon) *event.Logon {
	if l == nil {
		return nil
	}
	return &event.Logon{
		ID: l.GetId(), Type: l.GetType(), Protocol: l.GetProtocol(), RemoteDevice: l.GetRemoteDevice(), RemoteIP: addrOf(l.GetRemoteIp()),
		RemotePort: portOf(l.GetRemotePort()), FailureReason: l.GetFailureReason(), LocalAdmin: l.GetLocalAdmin(),
	}
}

func accountTo(a *event.Account) *wirepb.Account {
	if a == nil {
		return nil
	}
	return &wirepb.Account{User: userTo(a.User), Group: text(a.Group), Home: text(a.Home), Shell: text(a.Shell), Groups: texts(clip(a.Groups, maxGroups))}
}

func accountOf(a *wirepb.Account) *event.Account {
	if a == nil {
		return nil
	}
	return &event.Account{User: userOf(a.GetUser()), Group: a.GetGroup(), Home: a.GetHome(), Shell: a.GetShell(), Groups: a.GetGroups()}
}

func serviceTo(s *event.Service) *wirepb.Service {
	if s == nil {
		return nil
	}
	return &wirepb.Service{Name: text(s.Name), Path: text(s.Path), Command: text(s.Command), State: text(s.State)}
}

func serviceOf(s *wirepb.Service) *event.Service {
	if s == nil {
		return nil
	}
	return &event.Service{Name: s.GetName(), Path: s.GetPath(), Command: s.GetCommand(), State: s.GetState()}
}

func taskTo(t *event.Task) *wirepb.Task {
	if t == nil {
		return nil
	}
	return &wirepb.Task{Name: text(t.Name), Path: text(t.Path), Command: text(t.Command), Schedule: text(t.Schedule), User: text(t.User)}
}

func taskOf(t *wirepb.Task) *event.Task {
	if t == nil {
		return nil
	}
	return &event.Task{Name: t.GetName(), Path: t.GetPath(), Command: t.GetCommand(), Schedule: t.GetSchedule(), User: t.GetUser()}
}

func moduleTo(m *event.Module) *wirepb.Module {
	if m == nil {
		return nil
	}
	return &wirepb.Module{Kind: text(m.Kind), Name: text(m.Name), Path: text(m.Path), Hashes: hashesTo(m.Hashes), Detail: text(m.Detail)}
}

func moduleOf(m *wirepb.Module) *event.Module {
	if m == nil {
		return nil
	}
	return &event.Module{Kind: m.GetKind(), Name: m.GetName(), Path: m.GetPath(), Hashes: hashesOf(m.GetHashes()), Detail: m.GetDetail()}
}

func scriptTo(s *event.Script) *wirepb.Script {
	if s == nil {
		return nil
	}
	return &wirepb.Script{Interpreter: text(s.Interpreter), Content: text(s.Content), Truncated: s.Truncated, Hashes: hashesTo(s.Hashes)}
}

func scriptOf(s *wirepb.Script) *event.Script {
	if s == nil {
		return nil
	}
	return &event.Script{Interpreter: s.GetInterpreter(), Content: s.GetContent(), Truncated: s.GetTruncated(), Hashes: hashesOf(s.GetHashes())}
}

func memoryTo(m *event.Memory) *wirepb.Memory {
	if m == nil {
		return nil
	}
	return &wirepb.Memory{Operation: text(m.Operation), Target: text(m.Target), Address: m.Address, Size: m.Size}
}

func memoryOf(m *wirepb.Memory) *event.Memory {
	if m == nil {
		return nil
	}
	return &event.Memory{Operation: m.GetOperation(), Target: m.GetTarget(), Address: m.GetAddress(), Size: m.GetSize()}
}

func threatTo(t *event.Threat) *wirepb.Threat {
	if t == nil {
		return nil
	}
	return &wirepb.Threat{
		Id: text(t.ID), Name: text(t.Name), Type: text(t.Type), Action: text(t.Action), Reason: text(t.Reason),
		Definitions: text(t.Definitions), Inside: text(t.Inside),
	}
}

func threatOf(t *wirepb.Threat) *event.Threat {
	if t == nil {
		return nil
	}
	return &event.Threat{
		ID: t.GetId(), Name: t.GetName(), Type: t.GetType(), Action: t.GetAction(), Reason: t.GetReason(),
		Definitions: t.GetDefinitions(), Inside: t.GetInside(),
	}
}

func configTo(c *event.Config) *wirepb.Config {
	if c == nil {
		return nil
	}
	return &wirepb.Config{Name: text(c.Name), From: text(c.From), To: text(c.To), By: text(c.By)}
}

func configOf(c *wirepb.Config) *event.Config {
	if c == nil {
		return nil
	}
	return &event.Config{Name: c.GetName(), From: c.GetFrom(), To: c.GetTo(), By: c.GetBy()}
}

func lossTo(l *event.Loss) *wirepb.Loss {
	if l == nil {
		return nil
	}
	return &wirepb.Loss{Where: text(l.Where), Source: text(string(l.Source)), Count: l.Count, Since: timeTo(l.Since), Until: timeTo(l.Until)}
}

func lossOf(l *wirepb.Loss) *event.Loss {
	if l == nil {
		return nil
	}
	return &event.Loss{Where: l.GetWhere(), Source: event.Source(l.GetSource()), Count: l.GetCount(), Since: timeOf(l.GetSince()), Until: timeOf(l.GetUntil())}
}

func eventTo(e *event.Event) *wirepb.Event {
	return &wirepb.Event{
		Epoch: uint64(e.ID.Epoch), Source: text(string(e.ID.Source)), Seq: e.ID.Seq, Time: timeTo(e.Time), Action: text(string(e.Action)),
		Initiator: processTo(e.Initiator), Process: processTo(e.Process), File: fileTo(e.File), Network: networkTo(e.Network),
		Dns: dnsTo(e.DNS), Logon: logonTo(e.Logon), Account: accountTo(e.Account), Service: serviceTo(e.Service), Task: taskTo(e.Task),
		Module: moduleTo(e.Module), Script: scriptTo(e.Script), Memory: memoryTo(e.Memory), Threat: threatTo(e.Threat),
		Config: configTo(e.Config), Loss: lossTo(e.Loss), Fields: fieldsTo(e.Fields),
	}
}

func eventOf(device event.DeviceID, e *wirepb.Event) *event.Event {
	return &event.Event{
		ID:   event.ID{Device: device, Epoch: event.Epoch(e.GetEpoch()), Source: event.Source(e.GetSource()), Seq: e.GetSeq()},
		Time: timeOf(e.GetTime()), Action: event.Action(e.GetAction()),
		Initiator: processOf(e.GetInitiator()), Process: processOf(e.GetProcess()), File: fileOf(e.GetFile()), Network: networkOf(e.GetNetwork()),
		DNS: dnsOf(e.GetDns()), Logon: logonOf(e.GetLogon()), Account: accountOf(e.GetAccount()), Service: serviceOf(e.GetService()), Task: taskOf(e.GetTask()),
		Module: moduleOf(e.GetModule()), Script: scriptOf(e.GetScript()), Memory: memoryOf(e.GetMemory()), Threat: threatOf(e.GetThreat()),
		Config: configOf(e.GetConfig()), Loss: lossOf(e.GetLoss()), Fields: e.GetFields(),
	}
}
