package eventstoretest

import (
	"net/netip"
	"strings"
	"time"

	"komainu/event"
)

// Everything returns events of a device that fill every block of the
// vocabulary, each with values that nothing else has.
func Everything(device event.DeviceID) []*event.Event {
	hash := func(c string) event.Hashes { return event.Hashes{SHA256: strings.Repeat(c, 64)} }
	shell := &event.Process{
		Key: event.ProcessKey{Boot: "boot-1", PID: 41, Start: 777}, Parent: event.ProcessKey{Boot: "boot-1", PID: 1, Start: 1, Inexact: true},
		Path: "/usr/bin/bash", Name: "bash", Args: []string{"bash", "-c", "ls  -l 'a b'"}, Cwd: "/root", Started: day.Add(-time.Hour),
		User: event.User{UID: 1000, EUID: 0, Name: "root"}, LoginUID: 1000, Session: 3, TTY: "pts/0",
		Image: &event.File{Path: "/usr/bin/bash", Size: 1_265_648, Mode: 0o100755, Inode: 99, Hashes: hash("a")},
	}
	child := &event.Process{
		Key: event.ProcessKey{Boot: "boot-1", PID: 42, Start: 778}, Parent: shell.Key, Path: "/usr/bin/ls", Name: "ls",
		Args: []string{"ls", "-l", "a b"}, User: event.User{UID: 1000, EUID: 1000, Name: "ada"}, Container: "c0ffee",
		Image: &event.File{Path: "/usr/bin/ls", Hashes: hash("b")}, ExitCode: new(int32(2)),
	}
	secret := &event.File{
		Path: "/root/.ssh/id_ed25519", PreviousPath: "/tmp/key", Size: 411, Mode: 0o100600, Owner: event.User{Name: "root"},
		Device: 0x800001, Inode: 7, ModTime: day.Add(-time.Minute), Hashes: hash("c"), Type: "text/plain", Header: []byte("-----BEGIN"),
		Entropy: 5.9, OriginURL: "https://files.example/key", OriginIP: netip.MustParseAddr("203.0.113.9"), Sensitive: event.SSHPrivateKey,
	}
	events := []*event.Event{
		{Action: event.ProcessCreated, Initiator: shell, Process: child},
		{Action: event.ProcessTerminated, Process: child},
		{Action: event.FileRenamed, Initiator: shell, File: secret},
		{Action: event.ConnectionSuccess, Initiator: shell, Network: &event.Network{
			Protocol: "tcp", Direction: event.Outbound, LocalIP: netip.MustParseAddr("10.0.0.5"), LocalPort: 40001,
			RemoteIP: netip.MustParseAddr("2001:db8::7"), RemotePort: 443, URL: "updates.example",
		}},
		{Action: event.DNSQueryResponse, Initiator: shell, DNS: &event.DNS{
			Query: "evil.example", Type: "A", Answers: []string{"198.51.100.3"}, Code: "NOERROR", Server: netip.MustParseAddr("10.0.0.53"),
		}},
		{Action: event.LogonFailed, Logon: &event.Logon{
			Type: "RemoteInteractive", Protocol: "ssh", RemoteIP: netip.MustParseAddr("192.0.2.77"), RemotePort: 50123, FailureReason: "wrong password",
		}, Account: &event.Account{User: event.User{Name: "mallory"}}},
		{Action: event.UserAccountCreated, Account: &event.Account{Group: "wheel2", Groups: []string{"adm"}}},
		{Action: event.ServiceInstalled, Service: &event.Service{Name: "backup.service", Path: "/etc/systemd/system/backup.service", Command: "/opt/backup"}},
		{Action: event.ScheduledTaskCreated, Task: &event.Task{Name: "nightly", Path: "/etc/cron.d/nightly", Schedule: "0 3 * * *"}},
		{Action: event.DriverLoad, Module: &event.Module{Kind: "kernel_module", Name: "rootkit", Path: "/lib/modules/rootkit.ko"}},
		{Action: event.ScriptContent, Initiator: shell, Script: &event.Script{Interpreter: "python3", Content: "print(1)\n"}},
		{Action: event.MemfdCreated, Initiator: shell, Memory: &event.Memory{Operation: "memfd_create", Target: "memfd:payload", Size: 4096}},
		{Action: event.AntivirusDetection, File: secret, Threat: &event.Threat{ID: "t-1", Name: "Virus:DOS/Sample_Test", Type: "virus", Action: "quarantined"}},
		{Action: event.SettingChanged, Config: &event.Config{Name: "passive_mode", From: "off", To: "on", By: "policy"}},
		{Action: event.EventsLost, Loss: &event.Loss{Where: "kernel_ring", Source: event.FromFile, Count: 12, Since: day, Until: day.Add(time.Second)}},
		{Action: event.PartRestarted, Fields: map[string]string{"part": "scanner", "reason": "killed"}},
	}
	for i, e := range events {
		e.ID = event.ID{Device: device, Epoch: 5, Source: e.Action.Source(), Seq: uint64(i + 1)}
		e.Time = day.Add(time.Duration(i) * 1234567 * time.Nanosecond)
	}
	return events
}
