package realtime

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"komainu/fault"
	"komainu/policy"
)

// scope is what is protected how.
type scope struct {
	byDevice map[uint64]policy.Mode
	marks    []Mark
}

// mode returns the mode of the filesystem that a file lies on. A subvolume has
// a device number of its own, which no mark knows: then its path decides. But
// only where opens are blocked does somebody wait.
func (s *scope) mode(device uint64, path string, k Kind) policy.Mode {
	if m, ok := s.byDevice[device]; ok {
		return m
	}
	if k == OpenPerm {
		return policy.Block
	}
	mode, best := policy.Watch, -1
	for _, m := range s.marks {
		under := strings.TrimSuffix(m.Path, "/") + "/"
		if len(under) > best && strings.HasPrefix(path, under) {
			mode, best = m.Mode, len(under)
		}
	}
	return mode
}

// target is a filesystem to mark, held open.
type target struct {
	Mark
	fd     int
	device uint64
}

// SetMarks replaces what is protected. There is no moment in which a
// filesystem that was protected and stays so is not. The error names every
// filesystem that could not be marked; the others are.
func (h *Handle) SetMarks(ctx context.Context, marks []Mark) error {
	h.marks.Lock()
	defer h.marks.Unlock()
	targets, err := h.open(marks)
	defer func() {
		for _, t := range targets {
			unix.Close(t.fd)
		}
	}()
	errs := []error{err}
	// Events may come as soon as the first mark is there.
	next := &scope{byDevice: map[uint64]policy.Mode{}, marks: marks}
	for _, t := range targets {
		next.byDevice[t.device] = t.Mode
	}
	h.scope.Store(next)
	errs = append(errs, h.unmark(ctx, next))
	for _, t := range targets {
		if err := h.ask(ctx, message{op: opMark, arg: uint32(maskOf(t.Mode)), file: t.fd}); err != nil {
			errs = append(errs, fmt.Errorf("mark %s: %w", t.Path, err))
		}
	}
	return errors.Join(append(errs, h.Invalidate())...)
}

// open opens what is to be marked, once for each filesystem: where two marks
// disagree, the stronger one holds.
func (h *Handle) open(marks []Mark) ([]target, error) {
	var targets []target
	var errs []error
	seen := map[uint64]int{}
	for _, m := range marks {
		if maskOf(m.Mode) == 0 {
			continue
		}
		fd, device, err := openMount(m.Path)
		if err != nil {
			errs = append(errs, fmt.Errorf("mark %s: %w", m.Path, err))
			continue
		}
		if i, ok := seen[device]; ok {
			if m.Mode == policy.Block {
				targets[i].Mark = m
			}
			unix.Close(fd)
			continue
		}
		seen[device] = len(targets)
		targets = append(targets, target{Mark: m, fd: fd, device: device})
	}
	return targets, errors.Join(errs...)
}

// unmark takes marks off all filesystems that are not protected any more.
func (h *Handle) unmark(ctx context.Context, next *scope) error {
	mounts, err := Mounts()
	if err != nil {
		return err
	}
	var errs []error
	for _, m := range mounts {
		fd, device, err := openMount(m.Path)
		if err != nil {
			continue // it cannot be reached, so it was never marked
		}
		if _, ok := next.byDevice[device]; !ok {
			if err := h.ask(ctx, message{op: opMark, file: fd}); err != nil {
				errs = append(errs, fmt.Errorf("unmark %s: %w", m.Path, err))
			}
		}
		unix.Close(fd)
	}
	return errors.Join(errs...)
}

func maskOf(m policy.Mode) uint64 {
	switch m {
	case policy.Block:
		return blockMask
	case policy.Watch:
		return watchMask
	default:
		return 0
	}
}

func openMount(path string) (fd int, device uint64, err error) {
	fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return -1, 0, err
	}
	stamp, _ := stampOf(fd)
	return fd, stamp.Device, nil
}

// How long a mark may take, and when it is asked for again: the broker may be
// starting, and a mark that is set twice is set.
const (
	markWithin = 5 * time.Second
	askAgain   = 500 * time.Millisecond
)

// ask sends a message and waits for its outcome.
func (h *Handle) ask(ctx context.Context, m message) error {
	h.seq++
	m.seq = h.seq
	ctx, cancel := context.WithTimeout(ctx, markWithin)
	defer cancel()
	again := time.NewTicker(askAgain)
	defer again.Stop()
	if err := h.tell(&m); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return fault.New(fault.Unavailable, "the broker does not answer")
		case <-again.C:
			if err := h.tell(&m); err != nil {
				return err
			}
		case r := <-h.done:
			switch {
			case r.seq != m.seq: // of a former request
			case r.arg != 0:
				return unix.Errno(r.arg)
			default:
				return nil
			}
		}
	}
}
