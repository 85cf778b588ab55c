package ondemand

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"komainu/fault"
	"komainu/finding"
)

// quickFolders are where malware likes to be and everybody can write, or
// where what starts by itself is kept.
var quickFolders = []string{"/tmp", "/var/tmp", "/dev/shm", "/run/shm", "/etc/cron.d", "/etc/cron.hourly", "/etc/cron.daily", "/etc/init.d",
	"/etc/systemd/system", "/var/spool/cron", "/usr/local/bin", "/usr/local/sbin", "/var/www"}

// homeFolders are looked at in every home.
var homeFolders = []string{"Downloads", "Desktop", ".config/autostart", ".local/bin", "bin"}

// target is a file to scan: open, because a path can mean something else by
// the time that somebody looks again.
type target struct {
	path string
	file *os.File
}

// walk sends the files of a scan to its threads.
func (r *Runner) walk(ctx context.Context, s *job) error {
	// What waits is open, so little may wait.
	targets := make(chan target, 16)
	var threads sync.WaitGroup
	for range max(1, r.cfg.Settings().OnDemandScanThreads) {
		threads.Go(func() {
			for t := range targets {
				if ctx.Err() == nil {
					r.scan(ctx, s, t)
				}
				_ = t.file.Close() // read only; nothing can be lost
			}
		})
	}
	listed := make(chan error, 1)
	go func() {
		lowerPriority()
		listed <- r.list(ctx, s, targets)
	}()
	err := <-listed
	close(targets)
	threads.Wait()
	return err
}

// list finds the files of a scan.
func (r *Runner) list(ctx context.Context, s *job, targets chan<- target) error {
	w := &walker{ctx: ctx, scan: s, targets: targets, points: mountPoints(), enter: map[string]bool{}}
	local := r.cfg.Mounts()
	switch s.request.Type {
	case Full:
		// Every filesystem is walked for itself, so none is entered from above.
		for _, mount := range local {
			if err := w.tree(mount); err != nil {
				return err
			}
		}
		return nil
	case Custom:
		// A path can hold mount points; those of local filesystems are meant,
		// the kernel's and other hosts' are not.
		for _, mount := range local {
			w.enter[mount] = true
		}
		return w.tree(s.request.Path)
	default:
		for _, mount := range local {
			w.enter[mount] = true
		}
		return w.quick()
	}
}

func (w *walker) quick() error {
	if err := w.running(); err != nil {
		return err
	}
	for _, folder := range append(slices.Clone(quickFolders), homes()...) {
		if info, err := os.Lstat(folder); err != nil || !info.IsDir() {
			continue // not on this host, or a link to a folder that is looked at under its name
		}
		if err := w.tree(folder); err != nil {
			return err
		}
	}
	return nil
}

func homes() []string {
	list, err := filepath.Glob("/home/*")
	if err != nil {
		return nil
	}
	var folders []string
	for _, home := range append(list, "/root") {
		for _, f := range homeFolders {
			folders = append(folders, filepath.Join(home, f))
		}
	}
	return folders
}

// walker sends the files below a folder to the threads. It goes from handle to
// handle and follows no link, so that nobody can lead it elsewhere while it
// walks.
type walker struct {
	ctx     context.Context // of the one walk that the walker is made for
	scan    *job
	targets chan<- target
	points  map[string]bool // all mount points
	enter   map[string]bool // mount points that are entered from above
}

// maxDepth bounds the folders within folders, and with them the open handles.
const maxDepth = 256

// send hands an open file to the threads, unless it is excluded.
func (w *walker) send(path string, f *os.File) error {
	if _, excluded := w.scan.matcher.Match(path, ""); excluded {
		return f.Close()
	}
	select {
	case w.targets <- target{path, f}:
		return nil
	case <-w.ctx.Done():
		return errors.Join(w.ctx.Err(), f.Close())
	}
}

// skip counts what could not be looked at. What vanished meanwhile is nothing
// to look at.
func (w *walker) skip(err error) {
	if !errors.Is(err, fs.ErrNotExist) {
		w.scan.skipped.Add(1)
	}
}

// wanted reports whether the walk goes into a folder.
func (w *walker) wanted(path string) bool {
	return !w.scan.matcher.Folder(path) && (!w.points[path] || w.enter[path])
}

// scan scans one file.
func (r *Runner) scan(ctx context.Context, s *job, t target) {
	s.current.Store(&t.path)
	v, err := r.cfg.Scan(ctx, t.file)
	if err != nil {
		if ctx.Err() == nil {
			s.skipped.Add(1)
		}
		return
	}
	s.files.Add(1)
	s.bytes.Add(v.Size)
	switch v.Outcome {
	case finding.Malicious:
		s.threats.Add(1)
		r.cfg.Found(ctx, string(s.request.Type), t.path, t.file, v)
	case finding.NotFullyScanned, finding.ScanFailed:
		s.skipped.Add(1)
	}
}

// errNotRegular is what OpenRegular answers for links, devices and folders.
var errNotRegular = fault.New(fault.Invalid, "not a regular file")
