package ondemand

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
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

// walk sends the files of a scan to its threads.
func (r *Runner) walk(ctx context.Context, s *scan) error {
	files := make(chan string, 256)
	var threads sync.WaitGroup
	for range max(1, r.cfg.Settings().OnDemandScanThreads) {
		threads.Go(func() {
			for path := range files {
				if ctx.Err() == nil {
					r.file(ctx, s, path)
				}
			}
		})
	}
	err := r.list(ctx, s, files)
	close(files)
	threads.Wait()
	return err
}

// list names the files of a scan.
func (r *Runner) list(ctx context.Context, s *scan, files chan<- string) error {
	switch s.request.Type {
	case Custom:
		return r.tree(ctx, s, s.request.Path, true, files)
	case Full:
		for _, mount := range r.cfg.Mounts() {
			if err := r.tree(ctx, s, mount, false, files); err != nil {
				return err
			}
		}
		return nil
	default:
		return r.quick(ctx, s, files)
	}
}

func (r *Runner) quick(ctx context.Context, s *scan, files chan<- string) error {
	for _, path := range runningPrograms() {
		select {
		case files <- path:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for _, folder := range append(slices.Clone(quickFolders), homes()...) {
		if _, err := os.Lstat(folder); err != nil {
			continue
		}
		if err := r.tree(ctx, s, folder, false, files); err != nil {
			return err
		}
	}
	return nil
}

// runningPrograms lists the executables of all processes, each once.
func runningPrograms() []string {
	links, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		return nil
	}
	var paths []string
	for _, link := range links {
		if path, err := os.Readlink(link); err == nil && !strings.HasSuffix(path, " (deleted)") && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths
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

// tree walks a folder without following links. It stays on one filesystem
// unless somebody asked for the path: other local ones are walked for
// themselves, and foreign ones are nobody's wish.
func (r *Runner) tree(ctx context.Context, s *scan, root string, cross bool, files chan<- string) error {
	device, err := deviceOf(root)
	if err != nil {
		s.skipped.Add(1)
		return nil
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			s.skipped.Add(1)
			return nil
		}
		if d.IsDir() {
			if s.matcher != nil && s.matcher.Folder(path) {
				return fs.SkipDir
			}
			if other, err := deviceOf(path); err == nil && other != device && (!cross || pseudo(path)) {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		if s.matcher != nil {
			if _, excluded := s.matcher.Match(path, ""); excluded {
				return nil
			}
		}
		select {
		case files <- path:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// pseudo reports whether a folder is one of the kernel's.
func pseudo(path string) bool {
	return slices.ContainsFunc([]string{"/proc", "/sys", "/dev"}, func(p string) bool { return path == p || strings.HasPrefix(path, p+"/") })
}

// file scans one file.
func (r *Runner) file(ctx context.Context, s *scan, path string) {
	f, err := OpenRegular(path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.skipped.Add(1)
		}
		return
	}
	defer f.Close()
	v, err := r.cfg.Scan(ctx, f)
	if err != nil {
		s.skipped.Add(1)
		return
	}
	s.files.Add(1)
	s.bytes.Add(v.Size)
	switch v.Outcome {
	case finding.Malicious:
		s.threats.Add(1)
		r.cfg.Found(ctx, string(s.request.Type), path, f, v)
	case finding.NotFullyScanned, finding.ScanFailed:
		s.skipped.Add(1)
	}
}

// errNotRegular is what OpenRegular answers for links, devices and folders.
var errNotRegular = fault.New(fault.Invalid, "not a regular file")
