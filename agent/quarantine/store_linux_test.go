package quarantine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"komainu/fault"
	"komainu/finding"
	"komainu/internal/need"
)

// content looks like nothing that a scanner would take.
var content = bytes.Repeat([]byte("not really malware\n"), 20_000)

// TestMain lets the test binary be an agent that is killed while it seals.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 5 && os.Args[1] == "seal-and-die":
		sealAndDie(os.Args[2], os.Args[3], os.Args[4])
	case len(os.Args) == 5 && os.Args[1] == "restore-and-die":
		restoreAndDie(os.Args[2], os.Args[3], os.Args[4])
	case len(os.Args) == 3 && os.Args[1] == "seal-on-full-disk":
		fmt.Println(sealOnFullDisk(os.Args[2]))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func openStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "quarantine"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t testing.TB, path string, text []byte, mode os.FileMode) *os.File {
	t.Helper()
	if err := os.WriteFile(path, text, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func request(id string, f *os.File) Request {
	return Request{ID: finding.ID(id), File: f, Path: f.Name(), Threat: "Test:Any/Sample", Time: time.Now().UTC()}
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestSealAndRestore(t *testing.T) {
	s := openStore(t)
	path := filepath.Join(t.TempDir(), "a file")
	f := write(t, path, content, 0o741)
	old := time.Date(2020, 1, 2, 3, 4, 5, 6000, time.UTC)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	o, err := s.Add(t.Context(), request("id-1", f))
	if err != nil {
		t.Fatal(err)
	}
	if exists(path) {
		t.Error("the original is still there")
	}
	if o.Size != int64(len(content)) || o.Mode != 0o741 || !o.ModTime.Equal(old) || len(o.SHA256) != 64 {
		t.Errorf("%+v", o)
	}
	sealed, err := os.ReadFile(s.path("id-1"))
	if err != nil || bytes.Contains(sealed, content[:40]) {
		t.Errorf("%v, or the content stands in clear", err)
	}
	for name, want := range map[string]os.FileMode{s.dir: os.ModeDir | 0o700, s.path("id-1"): 0o600, filepath.Join(s.dir, "key"): 0o600} {
		if info, err := os.Stat(name); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}

	again, err := Open(s.dir) // a restart
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Get("id-1"); err != nil || got.SHA256 != o.SHA256 || got.Path != path {
		t.Errorf("%+v, %v", got, err)
	}
	where, err := again.Restore(t.Context(), "id-1", "")
	if err != nil || where != path {
		t.Fatalf("%q, %v", where, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o741 || !info.ModTime().Equal(old) {
		t.Errorf("%v, %v", info, err)
	}
	if text, _ := os.ReadFile(path); !bytes.Equal(text, content) {
		t.Error("the content is another one")
	}
	if _, err := again.Get("id-1"); !fault.Is(err, fault.NotFound) || exists(again.path("id-1")) {
		t.Error("a restored object is no more in quarantine")
	}
	if entries, _ := os.ReadDir(filepath.Dir(path)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

// TestSwappedPath: a path that means another file by now costs that file
// nothing.
func TestSwappedPath(t *testing.T) {
	for name, swap := range map[string]func(t *testing.T, path string){
		"other_file": func(t *testing.T, path string) {
			write(t, path+".new", []byte("innocent"), 0o600)
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
		},
		"link_to_victim": func(t *testing.T, path string) {
			victim := filepath.Join(t.TempDir(), "victim")
			write(t, victim, []byte("innocent"), 0o600)
			if err := errors.Join(os.Remove(path), os.Symlink(victim, path)); err != nil {
				t.Fatal(err)
			}
		},
		"folder_is_link": func(t *testing.T, path string) {
			other := t.TempDir()
			write(t, filepath.Join(other, filepath.Base(path)), []byte("innocent"), 0o600)
			if err := errors.Join(os.RemoveAll(filepath.Dir(path)), os.Symlink(other, filepath.Dir(path))); err != nil {
				t.Fatal(err)
			}
		},
		"gone": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t)
			dir := filepath.Join(t.TempDir(), "d")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "f")
			f := write(t, path, content, 0o600)
			swap(t, path)
			if _, err := s.Add(t.Context(), request("id", f)); !fault.Is(err, fault.Conflict) {
				t.Errorf("%v", err)
			}
			if text, err := os.ReadFile(path); name != "gone" && (err != nil || string(text) != "innocent") {
				t.Errorf("%q, %v", text, err)
			}
			if list, _ := s.List(); len(list) != 0 {
				t.Errorf("%v", list)
			}
			if entries, _ := os.ReadDir(s.dir); len(entries) != 1 { // the key
				t.Errorf("left behind: %v", entries)
			}
		})
	}
}

func TestChangedContent(t *testing.T) {
	s := openStore(t)
	f := write(t, filepath.Join(t.TempDir(), "f"), content, 0o600)
	r := request("id", f)
	r.SHA256 = strings.Repeat("0", 64)
	if _, err := s.Add(t.Context(), r); !fault.Is(err, fault.Conflict) || !exists(f.Name()) {
		t.Errorf("%v", err)
	}
	// Grown while it was sealed: what came after would be lost.
	s.at = func(step string) {
		if step == "copied" {
			if err := os.WriteFile(f.Name(), append(content, "more"...), 0o600); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := s.Add(t.Context(), request("id", f)); !fault.Is(err, fault.Conflict) || !exists(f.Name()) || exists(s.path("id")) {
		t.Errorf("%v", err)
	}
}

// TestHardLinks: the name that was found goes, the other one stays.
func TestHardLinks(t *testing.T) {
	s := openStore(t)
	dir := t.TempDir()
	f := write(t, filepath.Join(dir, "f"), content, 0o600)
	if err := os.Link(f.Name(), filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Add(t.Context(), request("id", f)); err != nil {
		t.Fatal(err)
	}
	if exists(f.Name()) || !exists(filepath.Join(dir, "other")) {
		t.Error("want the found name gone and the other one left")
	}
}

// TestRestoreThroughLink: whoever can write to the folder must not choose
// where root restores to.
func TestRestoreThroughLink(t *testing.T) {
	s := openStore(t)
	top := t.TempDir()
	dir := filepath.Join(top, "home", "d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	f := write(t, filepath.Join(dir, "job"), content, 0o644)
	if _, err := s.Add(t.Context(), request("id", f)); err != nil {
		t.Fatal(err)
	}
	secret := filepath.Join(top, "cron.d")
	if err := errors.Join(os.Mkdir(secret, 0o755), os.Remove(dir), os.Symlink(secret, dir)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Restore(t.Context(), "id", ""); !fault.Is(err, fault.Conflict) {
		t.Errorf("%v", err)
	}
	if entries, _ := os.ReadDir(secret); len(entries) != 0 {
		t.Errorf("%v", entries)
	}
	// Named by the one who restores, it is his wish.
	if where, err := s.Restore(t.Context(), "id", dir); err != nil || where != filepath.Join(dir, "job") || !exists(filepath.Join(secret, "job")) {
		t.Errorf("%q, %v", where, err)
	}
}

// TestRestoreToRealFolder: a file that was found through a link goes back to
// where the link led then.
func TestRestoreToRealFolder(t *testing.T) {
	s := openStore(t)
	top := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(top, "real"), 0o755), os.Symlink("real", filepath.Join(top, "link"))); err != nil {
		t.Fatal(err)
	}
	f := write(t, filepath.Join(top, "link", "f"), content, 0o644)
	if _, err := s.Add(t.Context(), request("id", f)); err != nil {
		t.Fatal(err)
	}
	if where, err := s.Restore(t.Context(), "id", ""); err != nil || where != filepath.Join(top, "real", "f") {
		t.Errorf("%q, %v", where, err)
	}
}

func TestRestoreRefuses(t *testing.T) {
	s := openStore(t)
	dir := t.TempDir()
	f := write(t, filepath.Join(dir, "f"), content, 0o600)
	if _, err := s.Add(t.Context(), request("id", f)); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Restore(t.Context(), "other", ""); !fault.Is(err, fault.NotFound) {
		t.Errorf("no such object: %v", err)
	}
	if _, err := s.Restore(t.Context(), "id", filepath.Join(dir, "nowhere")); !fault.Is(err, fault.NotFound) {
		t.Errorf("no such folder: %v", err)
	}
	for name, block := range map[string]func(path string) error{
		"file":          func(path string) error { return os.WriteFile(path, []byte("mine"), 0o600) },
		"dangling_link": func(path string) error { return os.Symlink("/nowhere/at/all", path) },
	} {
		if err := block(f.Name()); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Restore(t.Context(), "id", ""); !fault.Is(err, fault.Conflict) {
			t.Errorf("%s in the way: %v", name, err)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("%s: left behind: %v", name, entries)
		}
		if err := os.Remove(f.Name()); err != nil {
			t.Fatal(err)
		}
	}
	damage(t, s.path("id"))
	if _, err := s.Restore(t.Context(), "id", ""); !fault.Is(err, fault.Invalid) || exists(f.Name()) || !exists(s.path("id")) {
		t.Errorf("a damaged object: %v", err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Errorf("left behind: %v", entries)
	}
}

// damage changes the last byte of a file.
func damage(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	text[len(text)-1] ^= 1
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestRemoveAndPurge(t *testing.T) {
	s := openStore(t)
	now := time.Now().UTC()
	for i, age := range []int{100, 50, 1} {
		r := request(fmt.Sprint("id-", i), write(t, filepath.Join(t.TempDir(), "f"), content, 0o600))
		r.Time = now.AddDate(0, 0, -age)
		if _, err := s.Add(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.Purge(now.AddDate(0, 0, -90)); err != nil || n != 1 || exists(s.path("id-0")) {
		t.Errorf("%d, %v", n, err)
	}
	list, err := s.List()
	if err != nil || len(list) != 2 || list[0].ID != "id-2" {
		t.Errorf("newest first: %v, %v", list, err)
	}
	if err := s.Remove("id-1"); err != nil || exists(s.path("id-1")) {
		t.Errorf("%v", err)
	}
	if err := s.Remove("id-1"); !fault.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
}

func TestCancelledSeal(t *testing.T) {
	s := openStore(t)
	f := write(t, filepath.Join(t.TempDir(), "f"), content, 0o600)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Add(ctx, request("id", f)); !errors.Is(err, context.Canceled) || !exists(f.Name()) {
		t.Errorf("%v", err)
	}
	if entries, _ := os.ReadDir(s.dir); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestHostileNames(t *testing.T) {
	s := openStore(t)
	f := write(t, filepath.Join(t.TempDir(), "f"), content, 0o600)
	r := request("../../etc/passwd", f)
	if _, err := s.Add(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if filepath.Dir(s.path(r.ID)) != s.dir || !exists(s.path(r.ID)) {
		t.Errorf("%s", s.path(r.ID))
	}
	// An object that says it is another one is not believed.
	if err := os.Rename(s.path(r.ID), filepath.Join(s.dir, "else.sealed")); err != nil {
		t.Fatal(err)
	}
	again, err := Open(s.dir)
	if err != nil {
		t.Fatal(err)
	}
	if list, _ := again.List(); len(list) != 0 {
		t.Errorf("%v", list)
	}
}

func TestDamagedKey(t *testing.T) {
	s := openStore(t)
	if err := os.WriteFile(filepath.Join(s.dir, "key"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(s.dir); !fault.Is(err, fault.Invalid) {
		t.Errorf("%v", err)
	}
}

// TestKilled kills an agent at every step of sealing. There is the original or
// a whole sealed object, and after the next start nothing half done.
func TestKilled(t *testing.T) {
	for _, step := range []string{"created", "copied", "written", "sealed", "removed"} {
		t.Run(step, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "quarantine")
			f := write(t, filepath.Join(t.TempDir(), "f"), content, 0o600)
			err := exec.Command("/proc/self/exe", "seal-and-die", dir, f.Name(), step).Run()
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("it did not die at the step: %v", err)
			}
			s, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			original, _ := os.ReadFile(f.Name())
			whole := bytes.Equal(original, content)
			list, _ := s.List()
			if !whole {
				if len(list) != 1 {
					t.Fatal("neither the original nor the object")
				}
				if _, err := s.Restore(t.Context(), list[0].ID, t.TempDir()); err != nil {
					t.Error(err)
				}
			}
			if want := step == "sealed" || step == "removed"; (len(list) == 1) != want || whole != (step != "removed") {
				t.Errorf("original %v, objects %v", whole, list)
			}
			entries, _ := os.ReadDir(dir)
			if slices.ContainsFunc(entries, func(e os.DirEntry) bool { return strings.HasSuffix(e.Name(), partial) }) {
				t.Errorf("not swept: %v", entries)
			}
		})
	}
}

// TestKilledWhileRestoring kills an agent at every step of restoring: the
// object stays until the file is whole at its place, where nothing else is left.
func TestKilledWhileRestoring(t *testing.T) {
	for _, step := range []string{"made", "unsealed", "flushed", "named"} {
		t.Run(step, func(t *testing.T) {
			s, folder := openStore(t), t.TempDir()
			f := write(t, filepath.Join(folder, "f"), content, 0o640)
			if _, err := s.Add(t.Context(), request("id", f)); err != nil {
				t.Fatal(err)
			}
			err := exec.Command("/proc/self/exe", "restore-and-die", s.dir, "id", step).Run()
			exit, ok := errors.AsType[*exec.ExitError](err)
			if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
				t.Fatalf("it did not die at the step: %v", err)
			}
			entries, _ := os.ReadDir(folder)
			if step != "named" {
				if len(entries) != 0 {
					t.Errorf("left behind: %v", entries)
				}
			} else if text, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(text, content) || len(entries) != 1 {
				t.Errorf("the file is not whole: %d bytes, %v, beside it %v", len(text), err, entries)
			}
			again, err := Open(s.dir)
			if err != nil {
				t.Fatal(err)
			}
			path, err := again.Restore(t.Context(), "id", t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			if text, err := os.ReadFile(path); err != nil || !bytes.Equal(text, content) {
				t.Errorf("restored %d bytes, %v", len(text), err)
			}
		})
	}
}

func restoreAndDie(dir, id, step string) {
	s := openToDie(dir, step)
	_, err := s.Restore(context.Background(), finding.ID(id), "")
	fmt.Println(err)
}

// openToDie opens a store that kills its process at a step.
func openToDie(dir, step string) *Store {
	s, err := Open(dir)
	if err != nil {
		panic(err)
	}
	s.at = func(now string) {
		if now == step {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	return s
}

func sealAndDie(dir, path, step string) {
	s := openToDie(dir, step)
	f, err := os.Open(path)
	if err != nil {
		panic(err)
	}
	_, err = s.Add(context.Background(), request("id", f))
	fmt.Println(err)
}

// TestFullDisk fills a small filesystem while a file is being sealed.
func TestFullDisk(t *testing.T) {
	need.Root(t)
	cmd := exec.Command("/proc/self/exe", "seal-on-full-disk", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "exhausted; the original is whole; nothing left behind" {
		t.Errorf("%s, %v", out, err)
	}
}

func sealOnFullDisk(dir string) string {
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""), unix.Mount("tmpfs", dir, "tmpfs", 0, "size=24m")); err != nil {
		return err.Error()
	}
	s, err := Open(filepath.Join(dir, "quarantine"))
	if err != nil {
		return err.Error()
	}
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, bytes.Repeat(content, 6), 0o600); err != nil {
		return err.Error()
	}
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	s.at = func(step string) {
		if filler, err := os.Create(filepath.Join(dir, "filler")); err == nil && step == "created" {
			_, _ = io.Copy(filler, zeros{}) // until it is full
		}
	}
	_, err = s.Add(context.Background(), request("id", f))
	if !fault.Is(err, fault.Exhausted) {
		return fmt.Sprint("not exhausted: ", err)
	}
	if text, err := os.ReadFile(path); err != nil || !bytes.Equal(text, bytes.Repeat(content, 6)) {
		return "the original is damaged"
	}
	if entries, _ := os.ReadDir(s.dir); len(entries) != 1 {
		return fmt.Sprint("left behind: ", entries)
	}
	return "exhausted; the original is whole; nothing left behind"
}

// TestHistoryOnAFullDisk opens and writes a history on a filesystem without
// room: it is whole in memory, and on disk once there is room again.
func TestHistoryOnAFullDisk(t *testing.T) {
	need.Root(t)
	const inside = "KOMAINU_TEST_HISTORY"
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestHistoryOnAFullDisk$")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	dir := t.TempDir()
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""), unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k")); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	file := filepath.Join(dir, "history")
	open := func() *History {
		t.Helper()
		h, err := OpenHistory(file, HistoryLimits{})
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	add := func(h *History, id string) error {
		return h.Add(Threat{ID: finding.ID(id), Name: "Test:Any/Sample", Severity: finding.Low, Path: strings.Repeat("p", 300), Time: time.Now()})
	}
	h := open()
	for i := range 3 {
		if err := add(h, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	filler := filepath.Join(dir, "filler")
	f, err := os.Create(filler)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(f, zeros{})
	f.Close()
	failed := 0
	for i := range 30 { // what is left of the history's last page takes some
		if err := add(h, fmt.Sprint(10+i)); fault.Is(err, fault.Exhausted) {
			failed++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if failed == 0 || len(h.List()) != 33 {
		t.Errorf("%d writes failed, %d entries are known", failed, len(h.List()))
	}
	if again := open(); again.Damaged() > 1 || len(again.List()) < 3 {
		t.Errorf("a start on a full disk knows %d entries, %d are damaged", len(again.List()), again.Damaged())
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := add(h, "last"); err != nil {
		t.Errorf("there is room: %v", err)
	}
	if again := open(); again.Damaged() != 0 || len(again.List()) != 34 {
		t.Errorf("%d entries are on disk, %d damaged", len(again.List()), again.Damaged())
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func FuzzReadHeader(f *testing.F) {
	o := Object{ID: "id", Path: "/a/b", Size: 10, SHA256: strings.Repeat("a", 64)}
	good, err := encodeHeader(o, make([]byte, 16), 600)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("KMQ1\xff\xff\xff\xff"))
	f.Add([]byte("KMQ1\x10\x00\x00\x00aaaaaaaaaaaaaaaa"))
	f.Fuzz(func(t *testing.T, text []byte) {
		o, iv, body, err := readHeader(bytes.NewReader(text))
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%v", err)
			}
			return
		}
		if o.ID == "" || o.Size < 0 || len(iv) != 16 || body > int64(len(text)) {
			t.Errorf("%+v, %d, %d", o, len(iv), body)
		}
	})
}

func BenchmarkAdd(b *testing.B) {
	s := openStore(b)
	dir := b.TempDir()
	n := 0
	for b.Loop() {
		n++
		f := write(b, filepath.Join(dir, "f"), content[:68], 0o600)
		if _, err := s.Add(b.Context(), request(fmt.Sprint(n), f)); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}
