package quarantine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"komainu/fault"
	"komainu/finding"
	"komainu/internal/atomicfile"
)

// HistoryLimits bound the protection history. Zero values mean the defaults.
type HistoryLimits struct {
	Items int           // default 10000
	Age   time.Duration // default 90 days
}

// Threat is an entry of the protection history.
type Threat struct {
	ID       finding.ID       `json:"id"`
	Name     string           `json:"name"`
	Type     string           `json:"type"`
	Path     string           `json:"path,omitempty"`
	Inside   string           `json:"inside,omitempty"`
	SHA256   string           `json:"sha256,omitempty"`
	Size     int64            `json:"size,omitempty"`
	User     string           `json:"user,omitempty"`
	Process  string           `json:"process,omitempty"`
	Reason   string           `json:"reason,omitempty"`
	Severity finding.Severity `json:"severity"`
	State    finding.State    `json:"state"`
	Time     time.Time        `json:"time"`
}

// History is what was found on this device, in a file of JSON lines: every
// change of an entry is a further line, the last one counts. A line that was
// cut off by a crash is dropped and counted. It is safe for concurrent use.
type History struct {
	file   string
	limits HistoryLimits

	mu    sync.Mutex
	f     *os.File // nil while what is on disk is not what is here
	items map[finding.ID]Threat
	lines int

	damaged int // lines that could not be read when it was opened
}

// Damaged returns how many lines could not be read when the history was
// opened. They are gone: the file was written anew.
func (h *History) Damaged() int { return h.damaged }

// OpenHistory reads the history, drops what is too old, and writes it anew. A
// full disk is no reason to protect nothing: what cannot be written then is
// kept in memory, and written with the next entry that can be.
func OpenHistory(file string, l HistoryLimits) (*History, error) {
	if l.Items == 0 {
		l.Items = 10_000
	}
	if l.Age == 0 {
		l.Age = 90 * 24 * time.Hour
	}
	h := &History{file: file, limits: l, items: map[finding.ID]Threat{}}
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open history: %w", err)
	}
	h.read(text)
	if err := full(h.compact()); err != nil && !fault.Is(err, fault.Exhausted) {
		return nil, fmt.Errorf("open history: %w", err)
	}
	return h, nil
}

// Covers reports whether something that was found at a time has to be in the
// history: what is older, or beyond the number that is kept, was forgotten.
func (h *History) Covers(at time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at.Before(time.Now().Add(-h.limits.Age)) {
		return false
	}
	list := h.sorted()
	return len(list) < h.limits.Items || at.After(list[len(list)-1].Time)
}

// maxLine bounds a line: paths and reasons are bounded where they come from.
const maxLine = 64 << 10

func (h *History) read(text []byte) {
	for line := range bytes.Lines(text) {
		var t Threat
		if len(line) <= maxLine && json.Unmarshal(line, &t) == nil && t.ID != "" {
			h.items[t.ID] = t
		} else if len(bytes.TrimSpace(line)) > 0 {
			h.damaged++
		}
	}
}

// compact writes one line per entry into a new file. h.mu is held, or nobody
// else has h yet.
func (h *History) compact() error {
	list := h.sorted()
	oldest := time.Now().Add(-h.limits.Age)
	for i, t := range list {
		if i >= h.limits.Items || t.Time.Before(oldest) {
			delete(h.items, t.ID)
		}
	}
	var b bytes.Buffer
	for _, t := range slices.Backward(h.sorted()) {
		line, err := json.Marshal(t)
		if err != nil {
			return err
		}
		b.Write(append(line, '\n'))
	}
	if h.f != nil {
		_ = h.f.Close()
		h.f = nil
	}
	if err := atomicfile.Write(h.file, b.Bytes(), 0o600); err != nil {
		return err
	}
	f, err := os.OpenFile(h.file, os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	h.f, h.lines = f, len(h.items)
	return nil
}

func (h *History) sorted() []Threat {
	list := make([]Threat, 0, len(h.items))
	for _, t := range h.items {
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b Threat) int {
		if c := b.Time.Compare(a.Time); c != 0 {
			return c
		}
		return bytes.Compare([]byte(a.ID), []byte(b.ID))
	})
	return list
}

// Limit changes the bounds; what is beyond them goes with the next entry that
// is written. Zero values leave a bound as it is.
func (h *History) Limit(l HistoryLimits) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.Items > 0 {
		h.limits.Items = l.Items
	}
	if l.Age > 0 {
		h.limits.Age = l.Age
	}
}

// Add adds an entry.
func (h *History) Add(t Threat) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.put(t)
}

func (h *History) put(t Threat) error {
	line, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if len(line) >= maxLine {
		return fault.New(fault.Invalid, "a history entry of %d bytes", len(line))
	}
	h.items[t.ID] = t
	h.lines++
	// Without a file, something in memory is not on disk: all of it is written.
	if h.f == nil || h.lines > 2*h.limits.Items || len(h.items) > h.limits.Items+h.limits.Items/10 {
		return full(h.compact())
	}
	if _, err := h.f.Write(append(line, '\n')); err != nil {
		_ = h.f.Close() // it may end in half a line
		h.f = nil
		return full(err)
	}
	return nil
}

// SetState notes what became of a threat. Errors: fault.NotFound.
func (h *History) SetState(id finding.ID, s finding.State, reason string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	t, ok := h.items[id]
	if !ok {
		return fault.New(fault.NotFound, "there is no threat %s in the history", id)
	}
	t.State, t.Reason = s, reason
	return h.put(t)
}

// List returns the history, newest first.
func (h *History) List() []Threat {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sorted()
}

// Get returns one entry.
func (h *History) Get(id finding.ID) (Threat, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	t, ok := h.items[id]
	return t, ok
}
