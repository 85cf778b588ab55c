package agent

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"komainu/agent/quarantine"
	"komainu/agent/realtime"
	"komainu/event"
	"komainu/finding"
	"komainu/policy"
	"komainu/wire"
)

func openTestProtector(t *testing.T, dir string, r *recorder) *protector {
	t.Helper()
	store, err := quarantine.Open(filepath.Join(dir, "quarantine"))
	if err != nil {
		t.Fatal(err)
	}
	history, err := quarantine.OpenHistory(filepath.Join(dir, "history"), quarantine.HistoryLimits{})
	if err != nil {
		t.Fatal(err)
	}
	p := &protector{log: discard(), store: store, history: history, record: r, who: func(event.PID) []event.Process { return nil }, known: map[realtime.Stamp]time.Time{}}
	p.settingsChanged(policy.Merge(nil, policy.Settings{}))
	return p
}

// waitingFindings decodes what waits in the spool of findings.
func waitingFindings(t *testing.T, r *recorder) (list []finding.Finding) {
	t.Helper()
	for after := uint64(0); r.findings.Stats().Waiting > uint64(len(list)); {
		b, err := r.findings.Next(t.Context(), after, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, record := range b.Records {
			decoded, err := wire.DecodeRecord("d1", record)
			if err != nil || decoded.Finding == nil {
				t.Fatalf("%+v, %v", decoded, err)
			}
			list = append(list, *decoded.Finding)
		}
		after = b.Last()
	}
	return list
}

// TestUntold starts agents after one that was killed before it could tell what
// it had sealed.
func TestUntold(t *testing.T) {
	dir, name := t.TempDir(), filepath.Join(t.TempDir(), "malware")
	write := func() *os.File {
		t.Helper()
		if err := os.WriteFile(name, []byte("not really malware"), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	at := time.Now().UTC()
	f := write()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	p := openTestProtector(t, dir, openTestRecorder(t))
	if _, err := p.store.Add(t.Context(), quarantine.Request{ID: "one", File: f, Path: name, Threat: "Test:Any/Sample", Time: at}); err != nil {
		t.Fatal(err)
	}

	r := openTestRecorder(t)
	p = openTestProtector(t, dir, r)
	p.tellUntold()
	list := waitingFindings(t, r)
	if len(list) != 1 || list[0].ID != "one" || list[0].State != finding.Quarantined || list[0].Evidence[0].File.Path != name {
		t.Fatalf("told %+v", list)
	}
	if entry, ok := p.history.Get("one"); !ok || entry.State != finding.Quarantined || entry.Name != "Test:Any/Sample" {
		t.Errorf("history %+v", entry)
	}
	r = openTestRecorder(t)
	p = openTestProtector(t, dir, r)
	p.tellUntold()
	if list := waitingFindings(t, r); len(list) != 0 {
		t.Errorf("told again: %+v", list)
	}

	// The original was not removed yet.
	f = write()
	if err := os.Chtimes(name, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	if _, err := p.store.Add(t.Context(), quarantine.Request{ID: "two", File: f, Path: name, Threat: "Test:Any/Sample", Time: at}); err != nil {
		t.Fatal(err)
	}
	write()
	if err := os.Chtimes(name, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	r = openTestRecorder(t)
	p = openTestProtector(t, dir, r)
	p.tellUntold()
	if list := waitingFindings(t, r); len(list) != 1 || list[0].ID != "two" || list[0].State == finding.Quarantined || !strings.Contains(list[0].Summary, "Nothing was done") && !strings.Contains(list[0].Summary, "could not") {
		t.Errorf("told %+v", list)
	}
	if n, _ := p.owed(); n != 1 {
		t.Fatalf("%d quarantines are owed", n)
	}
	for p.retryFirst(t.Context()) {
	}
	if _, err := os.Lstat(name); !os.IsNotExist(err) {
		t.Errorf("the file is where it was: %v", err)
	}
	if o, err := p.store.Get("two"); err != nil || o.Path != name {
		t.Errorf("sealed: %+v, %v", o, err)
	}
	if entry, _ := p.history.Get("two"); entry.State != finding.Quarantined {
		t.Errorf("history %+v", entry)
	}
}
