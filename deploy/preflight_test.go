package deploy_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"komainu/deploy"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// good is a host that can get the agent.
func good() deploy.Facts {
	return deploy.Facts{
		OS: "debian", OSVersion: "12", OSName: "Debian GNU/Linux 12 (bookworm)", System: "Linux", Kernel: "6.1.0-18-cloud-amd64", Arch: "x86_64", Init: "systemd", Container: "none",
		Root: true, Memory: new(int64(2 << 30)), RoomVar: new(int64(10 << 30)), RoomUsr: new(int64(10 << 30)), Clock: now, Manager: "deb", Reach: "ok",
	}
}

func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*deploy.Facts)
		want   deploy.ReasonID
	}{
		"good":              {func(*deploy.Facts) {}, ""},
		"relative":          {func(f *deploy.Facts) { f.OS, f.OSLike, f.OSVersion = "linuxmint", "ubuntu debian", "21" }, ""},
		"unknown_system":    {func(f *deploy.Facts) { f.OS, f.OSLike = "plan9", "" }, deploy.OSUnsupported},
		"not_linux":         {func(f *deploy.Facts) { f.System = "FreeBSD" }, deploy.OSUnsupported},
		"old_debian":        {func(f *deploy.Facts) { f.OSVersion = "10" }, deploy.OSEnd},
		"old_ubuntu":        {func(f *deploy.Facts) { f.OS, f.OSVersion = "ubuntu", "18.04" }, deploy.OSEnd},
		"old_kernel":        {func(f *deploy.Facts) { f.Kernel = "4.9.0-19-amd64" }, deploy.KernelOld},
		"oldest_kernel":     {func(f *deploy.Facts) { f.Kernel = "4.18.0-553.el8.x86_64" }, ""},
		"odd_kernel":        {func(f *deploy.Facts) { f.Kernel = "mine" }, ""},
		"processor":         {func(f *deploy.Facts) { f.Arch = "riscv64" }, deploy.ArchUnsupported},
		"no_systemd":        {func(f *deploy.Facts) { f.Init = "init" }, deploy.NoSystemd},
		"docker":            {func(f *deploy.Facts) { f.Init, f.Container = "sleep", "docker" }, deploy.Container},
		"system_container":  {func(f *deploy.Facts) { f.Container = "lxc" }, ""},
		"not_root":          {func(f *deploy.Facts) { f.Root = false }, deploy.NotRoot},
		"image":             {func(f *deploy.Facts) { f.Image = true }, deploy.Image},
		"broken_manager":    {func(f *deploy.Facts) { f.Broken = "database is damaged" }, deploy.PackageManagerBroken},
		"busy_manager":      {func(f *deploy.Facts) { f.Busy = "apt-get, process 7" }, ""}, // the installation waits for it
		"other_product":     {func(f *deploy.Facts) { f.Others = "mdatp" }, deploy.ConflictingAgent},
		"little_memory":     {func(f *deploy.Facts) { f.Memory = new(int64(256 << 20)) }, deploy.MemoryLow},
		"unknown_memory":    {func(f *deploy.Facts) { f.Memory = nil }, ""},
		"full_var":          {func(f *deploy.Facts) { f.RoomVar = new(int64(10 << 20)) }, deploy.DiskFull},
		"no_room_in_var":    {func(f *deploy.Facts) { f.RoomVar = new(int64(0)) }, deploy.DiskFull},
		"no_room_in_usr":    {func(f *deploy.Facts) { f.RoomUsr = new(int64(0)) }, deploy.DiskFull},
		"unknown_room":      {func(f *deploy.Facts) { f.RoomVar, f.RoomUsr = nil, nil }, ""},
		"full_usr":          {func(f *deploy.Facts) { f.RoomUsr = new(int64(10 << 20)) }, deploy.DiskFull},
		"clock_behind":      {func(f *deploy.Facts) { f.Clock = now.Add(-48 * time.Hour) }, deploy.ClockOff},
		"clock_ahead":       {func(f *deploy.Facts) { f.Clock = now.Add(6 * time.Minute) }, deploy.ClockOff},
		"clock_nearly":      {func(f *deploy.Facts) { f.Clock = now.Add(-4 * time.Minute) }, ""},
		"control_plane_far": {func(f *deploy.Facts) { f.Reach = "no answer from cp:8443 within 5 s" }, deploy.UnreachableControlPlane},
		"no_tool_to_try":    {func(f *deploy.Facts) { f.Reach = "unknown" }, ""},
	} {
		f := good()
		c.change(&f)
		// As komainuctl gets them: nothing is not the same as not known.
		var sent deploy.Facts
		if text, err := json.Marshal(f); err != nil {
			t.Fatal(err)
		} else if err := json.Unmarshal(text, &sent); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(f, sent); diff != "" {
			t.Errorf("%s, as JSON: %s", name, diff)
		}
		got := deploy.ReasonID("")
		if failure := f.Check(deploy.Requirements{Now: now}); failure != nil {
			got = failure.Reason.ID
			if failure.Reason.Text == "" || failure.Reason.Remedy == "" {
				t.Errorf("%s: %s has no text or no remedy", name, got)
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	f := good()
	f.Others = "mdatp"
	if failure := f.Check(deploy.Requirements{Now: now, Despite: true}); failure != nil {
		t.Errorf("despite the other product: %v", failure)
	}
}

// TestFactsKnowNothing tells a host that has nothing from one of which nothing
// is known.
func TestFactsKnowNothing(t *testing.T) {
	for value, want := range map[string]*int64{"": nil, "-": nil, "-4": nil, "0": new(int64(0)), "12": new(int64(12 << 10)), "9999999999999999": nil} {
		f, err := deploy.Inspect(t.Context(), script{lines: []string{"fact memory_kb " + value, "fact var_kb " + value, "fact usr_kb " + value, "done"}}, "")
		if diff := cmp.Diff(deploy.Facts{Memory: want, RoomVar: want, RoomUsr: want}, f); err != nil || diff != "" {
			t.Errorf("%q: %v %s", value, err, diff)
		}
	}
}

func TestEveryReasonSaysWhatToDo(t *testing.T) {
	for _, id := range deploy.ReasonIDs() {
		r := deploy.ReasonOf(id, "")
		if r.Text == "" || r.Remedy == "" || strings.HasSuffix(r.Text, ".") {
			t.Errorf("%+v", r)
		}
	}
}

// here runs scripts on this machine, with another shell in the place of sh.
type here struct{ shell []string }

func (h here) Run(ctx context.Context, script string, args []string, stdin io.Reader, line func(string)) error {
	cmd := exec.CommandContext(ctx, h.shell[0], append(append(append([]string{}, h.shell[1:]...), "-c", script, "komainu"), args...)...)
	cmd.Stdin = stdin
	out, err := cmd.Output()
	for l := range strings.Lines(string(out)) {
		if ours, ok := strings.CutPrefix(strings.TrimRight(l, "\n"), deploy.Prefix); ok {
			line(ours)
		}
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return &deploy.Exit{Code: exit.ExitCode(), Tail: string(exit.Stderr)}
	}
	return err
}

func (here) Close() error { return nil }

// TestInspect has real shells look at this machine.
func TestInspect(t *testing.T) {
	for _, shell := range [][]string{{"sh"}, {"bash"}, {"bash", "--posix"}, {"dash"}, {"mksh"}, {"zsh", "--emulate", "sh"}, {"busybox", "sh"}} {
		if _, err := exec.LookPath(shell[0]); err != nil {
			continue
		}
		f, err := deploy.Inspect(t.Context(), here{shell}, "127.0.0.1:1")
		if err != nil {
			t.Fatalf("%q: %v", shell, err)
		}
		if f.System != "Linux" || f.Kernel == "" || f.OS == "" || f.Memory == nil || *f.Memory < 64<<20 || f.Clock.IsZero() || f.RoomVar == nil || f.RoomUsr == nil || f.Manager == "" || f.Reach == "ok" {
			t.Errorf("%q: %+v", shell, f)
		}
	}
}

// script answers with what a test wants to have been said.
type script struct {
	lines []string
	err   error
}

func (s script) Run(_ context.Context, _ string, _ []string, stdin io.Reader, line func(string)) error {
	for _, l := range s.lines {
		line(l)
	}
	return s.err
}

func (script) Close() error { return nil }

func TestInstallOnBelievesTheScript(t *testing.T) {
	for name, c := range map[string]struct {
		host script
		want deploy.ReasonID
	}{
		"done":           {script{lines: []string{"step transfer", "step install", "done 1.2.3 device-1"}}, ""},
		"reason":         {script{[]string{"step install", "fail package_manager_busy apt-get, process 7"}, &deploy.Exit{Code: 90}}, deploy.PackageManagerBusy},
		"no_answer":      {script{}, deploy.OutputGarbled},
		"invented":       {script{[]string{"fail everything_is_fine"}, &deploy.Exit{Code: 90}}, deploy.OutputGarbled},
		"another_exit":   {script{err: &deploy.Exit{Code: 127, Tail: "sh: not found"}}, deploy.OutputGarbled},
		"lost":           {script{[]string{"step install"}, deploy.Fail(deploy.ConnectionLost, "")}, deploy.ConnectionLost},
		"reason_first":   {script{[]string{"fail disk_full no room", "fail checksum x"}, deploy.Fail(deploy.ConnectionLost, "")}, deploy.DiskFull},
		"fails_and_done": {script{lines: []string{"fail disk_full no room", "done 1 2"}}, deploy.DiskFull},
	} {
		var steps []string
		got, err := deploy.InstallOn(t.Context(), c.host, deploy.Installation{Token: "kmj1.x"}, func(s deploy.Step, _ string) { steps = append(steps, string(s)) })
		failure, _ := errors.AsType[*deploy.Failure](err)
		switch {
		case c.want == "" && (err != nil || got.Version != "1.2.3" || got.Device != "device-1" || strings.Join(steps, " ") != "transfer install"):
			t.Errorf("%s: %+v, %v, steps %q", name, got, err, steps)
		case c.want != "" && (failure == nil || failure.Reason.ID != c.want):
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add("fact uid 0\nfact memory_kb 99999999999999999999\nfail disk_full \xff\ndone a b c")
	f.Fuzz(func(t *testing.T, text string) {
		facts, err := deploy.Inspect(t.Context(), script{lines: strings.Split(text, "\n")}, "")
		if err == nil {
			_ = facts.Check(deploy.Requirements{Now: now})
		}
	})
}
