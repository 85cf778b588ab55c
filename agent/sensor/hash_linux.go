package sensor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"komainu/agent/sensor/procfs"
	"komainu/event"
)

const (
	hashQueue = 256
	hashCache = 8192
	hashMax   = 256 << 20 // bytes of an executable
)

// hasher computes SHA-256 of executables beside the events. An executable can
// not be written while it runs, so that a hash is known by what the kernel
// changes with every write: the inode's change time.
type hasher struct {
	queue chan hashJob

	mu    sync.Mutex
	known map[imageID]string // "" while it is computed
}

type imageID struct {
	device, inode uint64
	size          int64
	changed       time.Time
}

type hashJob struct {
	id   imageID
	pid  event.PID
	path string
}

func newHasher() *hasher {
	return &hasher{queue: make(chan hashJob, hashQueue), known: map[imageID]string{}}
}

// of returns the hash of a process's executable, "" while it is not known.
func (h *hasher) of(p *event.Process) string {
	id := imageID{p.Image.Device, p.Image.Inode, p.Image.Size, p.Image.ChangeTime}
	h.mu.Lock()
	defer h.mu.Unlock()
	hash, ok := h.known[id]
	if ok || id.size > hashMax {
		return hash
	}
	if len(h.known) >= hashCache {
		clear(h.known)
	}
	select {
	case h.queue <- hashJob{id, p.Key.PID, p.Path}:
		h.known[id] = ""
	default: // the next start of it tries again
	}
	return ""
}

func (h *hasher) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case job := <-h.queue:
			hash := job.compute()
			h.mu.Lock()
			if hash == "" {
				delete(h.known, job.id)
			} else {
				h.known[job.id] = hash
			}
			h.mu.Unlock()
		}
	}
}

// compute hashes the file if it can be found and is still the same.
func (j hashJob) compute() string {
	for _, name := range []string{fmt.Sprintf("/proc/%d/exe", j.pid), j.path} {
		file, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			continue
		}
		hash := j.hash(file)
		file.Close()
		if hash != "" {
			return hash
		}
	}
	return ""
}

func (j hashJob) hash(file *os.File) string {
	var st unix.Stat_t
	if unix.Fstat(int(file.Fd()), &st) != nil {
		return ""
	}
	f := procfs.FileOf("", &st)
	if (imageID{f.Device, f.Inode, f.Size, f.ChangeTime}) != j.id {
		return ""
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.LimitReader(file, hashMax)); err != nil {
		return ""
	}
	return hex.EncodeToString(sum.Sum(nil))
}
