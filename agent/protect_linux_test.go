package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"komainu/agent/quarantine"
	"komainu/agent/realtime"
	"komainu/agent/scan"
	"komainu/agent/spool"
	"komainu/event"
	"komainu/finding"
	"komainu/policy"
)

// TestMain lets the test binary be the scanner, as komainud is.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "scanner" {
		if err := scan.Serve(os.NewFile(scan.Socket, "socket")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// protectorOf returns a protector with real parts below dir, on a device that
// is licensed and blocks.
func protectorOf(t *testing.T, dir string) *protector {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	must := func(err error) {
		if err != nil {
			t.Helper()
			t.Fatal(err)
		}
	}
	numbers, err := spool.OpenNumbers(filepath.Join(dir, "epoch"))
	must(err)
	events, err := spool.Open(filepath.Join(dir, "events"), spool.Limits{})
	must(err)
	findings, err := spool.Open(filepath.Join(dir, "findings"), spool.Limits{})
	must(err)
	store, err := quarantine.Open(filepath.Join(dir, "quarantine"))
	must(err)
	history, err := quarantine.OpenHistory(filepath.Join(dir, "history"), quarantine.HistoryLimits{})
	must(err)
	record := &recorder{log: log, device: func() event.DeviceID { return "device" }, numbers: numbers, events: events, findings: findings}
	record.licensed.Store(true)
	p := &protector{log: log, store: store, history: history, record: record, known: map[realtime.Stamp]time.Time{}, who: func(event.PID) []event.Process { return nil },
		scanner: scan.NewProcess(scan.Config{Log: log, Command: func() *exec.Cmd { return exec.Command("/proc/self/exe", "scanner") }})}
	p.settingsChanged(policy.Effective{Licensed: true, EnforcementLevel: policy.RealTime, ScanArchives: true})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.scanner.Run(ctx) }()
	t.Cleanup(func() {
		p.work.Wait()
		cancel()
		must(<-done)
		must(record.Close())
	})
	return p
}

// eicar is put together here: it stands whole in no file.
func eicar() []byte {
	return []byte(`X5O!P%@AP[4\P` + "ZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-" + "TEST-FILE!$H+H*")
}

// opened returns a file as an open that waits would bring it.
func opened(t *testing.T, name string, content []byte) realtime.Open {
	t.Helper()
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return realtime.Open{File: f, Path: name, Kind: realtime.OpenPerm, Mode: policy.Block,
		Stamp: realtime.Stamp{Inode: 1, Size: info.Size(), ModTime: info.ModTime().UnixNano(), ChangeTime: 1}}
}

// TestOpenOfAFileThatLosesItsName: quarantine takes the name away while
// somebody waits to open the file. The content is denied all the same, and
// the threat is told of once.
func TestOpenOfAFileThatLosesItsName(t *testing.T) {
	p := protectorOf(t, t.TempDir())
	o := opened(t, filepath.Join(t.TempDir(), "sample"), eicar())
	closed := o
	closed.Kind = realtime.CloseWrite
	p.Judge(t.Context(), closed)
	if _, err := os.Lstat(o.Path); !os.IsNotExist(err) {
		t.Fatalf("not quarantined: %v", err)
	}
	o.Path, o.Stamp.ChangeTime = "", 2
	if d := p.Judge(t.Context(), o); !d.Deny {
		t.Errorf("%+v: malware that has no name any more is let through", d)
	}
	if list := p.history.List(); len(list) != 1 || list[0].State != finding.Quarantined {
		t.Errorf("history: %+v", list)
	}
}

// TestOpenOfAFileWithoutAName: it was deleted, or it lives where this process
// sees no path.
func TestOpenOfAFileWithoutAName(t *testing.T) {
	p := protectorOf(t, t.TempDir())
	o := opened(t, filepath.Join(t.TempDir(), "sample"), eicar())
	if err := os.Remove(o.Path); err != nil {
		t.Fatal(err)
	}
	o.Path = ""
	if d := p.Judge(t.Context(), o); !d.Deny {
		t.Errorf("%+v: malware without a name is let through", d)
	}
	if list := p.history.List(); len(list) != 1 || list[0].State != finding.Blocked {
		t.Errorf("history: %+v", list)
	}
	clean := opened(t, filepath.Join(t.TempDir(), "clean"), []byte("nothing"))
	clean.Path = ""
	if d := p.Judge(t.Context(), clean); d.Deny || !d.Cache {
		t.Errorf("a clean file without a name: %+v", d)
	}
}

// TestOwedQuarantinesAreMadeGood: what could not be quarantined is denied,
// told, and quarantined once it can be; there is a bound to what is owed.
func TestOwedQuarantinesAreMadeGood(t *testing.T) {
	dir := t.TempDir()
	p := protectorOf(t, dir)
	o := opened(t, filepath.Join(t.TempDir(), "sample"), eicar())
	o.Kind = realtime.CloseWrite
	// A file where the store wants its folder: nothing can be sealed.
	sealed := filepath.Join(dir, "quarantine")
	if err := os.Rename(sealed, sealed+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(sealed, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.Judge(t.Context(), o)
	if n, reason := p.owed(); n != 1 || reason == "" {
		t.Fatalf("owed: %d, %q", n, reason)
	}
	if p.retryFirst(t.Context()) {
		t.Error("a retry succeeded that cannot")
	}
	for range 2 * retryMost {
		p.owe(detection{file: o.File}, &finding.Finding{}, "full")
	}
	if n, _ := p.owed(); n != retryMost {
		t.Errorf("%d are owed, want at most %d", n, retryMost)
	}
	p.owing = p.owing[:1]
	if err := errors.Join(os.Remove(sealed), os.Rename(sealed+".away", sealed)); err != nil {
		t.Fatal(err)
	}
	if !p.retryFirst(t.Context()) {
		t.Error("the retry failed")
	}
	if _, err := os.Lstat(o.Path); !os.IsNotExist(err) {
		t.Errorf("still there: %v", err)
	}
	if list := p.history.List(); len(list) != 1 || list[0].State != finding.Quarantined {
		t.Errorf("history: %+v", list)
	}
	if n, _ := p.owed(); n != 0 {
		t.Errorf("%d are still owed", n)
	}
}
