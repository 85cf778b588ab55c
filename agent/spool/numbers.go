package spool

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"komainu/event"
	"komainu/internal/atomicfile"
)

// Numbers gives events their identity: a new epoch at every start and a
// sequence per source within it. It is safe for concurrent use.
type Numbers struct {
	file  string
	epoch event.Epoch

	mu      sync.Mutex
	unnoted error
	last    map[event.Source]uint64
}

// OpenNumbers begins a new epoch and notes it in the file before anything is
// numbered. An epoch is the time in milliseconds and twenty random bits, and
// greater than the one noted: state that was rolled back, or a clock that
// went back, gives none again.
//
// A disk that is full or read-only is no reason to protect nothing: the epoch
// is then not noted, which Unnoted tells, until Note can. Only a clock that
// goes back before the next start could give it again, once in a million times.
func OpenNumbers(file string) (*Numbers, error) {
	epoch := uint64(time.Now().UnixMilli())<<20 | random20()
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read epoch: %w", err)
	}
	if last, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil && last >= epoch && last < math.MaxUint64 {
		epoch = last + 1
	}
	n := &Numbers{file: file, epoch: event.Epoch(epoch), last: map[event.Source]uint64{}}
	err = n.write()
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.EDQUOT) {
		n.unnoted, err = err, nil
	}
	if err != nil {
		return nil, fmt.Errorf("note epoch: %w", err)
	}
	return n, nil
}

func (n *Numbers) write() error {
	return atomicfile.Write(n.file, []byte(strconv.FormatUint(uint64(n.epoch), 10)+"\n"), 0o600)
}

// Unnoted returns why the epoch could not be noted, nil when it is.
func (n *Numbers) Unnoted() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.unnoted
}

// Note tries again to note an epoch that could not be noted. It returns what
// Unnoted does.
func (n *Numbers) Note() error {
	if n.Unnoted() == nil {
		return nil
	}
	err := n.write()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.unnoted = err
	return err
}

// Epoch returns the epoch of this start.
func (n *Numbers) Epoch() event.Epoch { return n.epoch }

// Next returns the next identity of a source.
func (n *Numbers) Next(device event.DeviceID, source event.Source) event.ID {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.last[source]++
	return event.ID{Device: device, Epoch: n.epoch, Source: source, Seq: n.last[source]}
}

func random20() uint64 {
	var b [8]byte
	// crypto/rand never fails on the platforms of the agent; it ends the
	// program if it does.
	_, _ = rand.Read(b[:])
	return binary.LittleEndian.Uint64(b[:]) & (1<<20 - 1)
}
