package spool

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"komainu/event"
	"komainu/internal/atomicfile"
)

// Numbers gives events their identity: a new epoch at every start and a
// sequence per source within it. It is safe for concurrent use.
type Numbers struct {
	epoch event.Epoch

	mu   sync.Mutex
	last map[event.Source]uint64
}

// OpenNumbers begins a new epoch and notes it in the file before anything is
// numbered. An epoch is the time in milliseconds and twenty random bits, and
// greater than the one noted: state that was rolled back, or a clock that
// went back, gives none again.
func OpenNumbers(file string) (*Numbers, error) {
	epoch := uint64(time.Now().UnixMilli())<<20 | random20()
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read epoch: %w", err)
	}
	if last, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil && last >= epoch {
		epoch = last + 1
	}
	if err := atomicfile.Write(file, []byte(strconv.FormatUint(epoch, 10)+"\n"), 0o600); err != nil {
		return nil, fmt.Errorf("note epoch: %w", err)
	}
	return &Numbers{epoch: event.Epoch(epoch), last: map[event.Source]uint64{}}, nil
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
