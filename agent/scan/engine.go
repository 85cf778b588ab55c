// Package scan says of a file whether it is malicious.
//
// Engine is the pure part: one pass over the bytes with read(2) (never mmap,
// because a hostile file that shrinks would kill the process) feeds SHA-256
// and the signatures, and archives are opened within limits. It keeps no
// state between files and is safe for concurrent use.
//
// Process is how the agent uses it: the same binary started once more as a
// process that may do nothing but read the descriptors it is handed (Serve).
// A file that crashes or hangs the engine costs that process, which starts
// again, and gets the verdict ScanFailed.
//
// What holds for every verdict: Clean means that everything was looked at. A
// limit, an encrypted member or a format that cannot be read makes it
// NotFullyScanned with the reason.
package scan

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"komainu/finding"
)

// EngineVersion is shown as engine_version. It changes when the same
// definitions can give another verdict.
const EngineVersion = "1.0.1"

// Options are what a caller decides for one scan.
type Options struct {
	// Budget bounds the time of the scan, including all that is unpacked; 0
	// is Limits.Time. What was not looked at by then is NotFullyScanned.
	Budget time.Duration
	// SkipArchives leaves archives closed. The verdict then speaks of the
	// archive's own bytes only, so it must not be cached for a scan that
	// opens archives.
	SkipArchives bool
}

// Limits bound what one file can cost.
type Limits struct {
	Time    time.Duration // of one scan, when Options has no budget
	Bytes   int64         // unpacked in all, over all levels
	Ratio   int64         // unpacked to packed size, once 64 MiB are unpacked
	Depth   int           // archives within archives; .tar.gz is two
	Members int           // over all levels
	Buffer  int64         // an archive within an archive that must be held in memory to be opened
}

// DefaultLimits returns the limits of the scanner process. They are sized for
// its memory limit: four parallel scans fit.
func DefaultLimits() Limits {
	return Limits{Time: 30 * time.Second, Bytes: 2 << 30, Ratio: 250, Depth: 12, Members: 50_000, Buffer: 32 << 20}
}

// Engine scans files with one set of definitions.
type Engine struct {
	defs   *Definitions
	limits Limits
	feeds  sync.Pool
	heavy  chan struct{} // held by the one scan that may use a large unpacking window
	panics atomic.Uint64
}

// New returns an engine.
func New(defs *Definitions, limits Limits) *Engine {
	e := &Engine{defs: defs, limits: limits, heavy: make(chan struct{}, 1)}
	e.feeds.New = func() any { return newFeed(defs) }
	return e
}

// Panics returns how often an unpacker panicked. Each made a ScanFailed.
func (e *Engine) Panics() uint64 { return e.panics.Load() }

// Scan reads the file from its beginning to its end and returns the verdict.
// size is what the file's owner claims; the bytes that are there decide. When
// ctx ends, the verdict is about what was read until then.
func (e *Engine) Scan(ctx context.Context, file io.ReaderAt, size int64, o Options) (v finding.Verdict) {
	budget := o.Budget
	if budget <= 0 {
		budget = e.limits.Time
	}
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	j := &job{engine: e, ctx: ctx, options: o, packed: size}
	defer j.releaseHeavy()
	defer func() {
		if p := recover(); p != nil {
			e.panics.Add(1)
			v = finding.Verdict{
				Outcome: finding.ScanFailed, Size: size, Definitions: e.defs.version,
				Reason: bounded(fmt.Sprintf("the engine failed on %s: %v at %s", j.where(), p, panicSite(debug.Stack()))),
			}
		}
	}()
	res, err := j.stream(wholeFile{io.NewSectionReader(file, 0, 1<<62)}, file, 0)
	return j.verdict(res, err)
}

// verdict turns what the job knows into the answer.
func (j *job) verdict(res result, err error) finding.Verdict {
	v := finding.Verdict{Outcome: finding.Clean, Size: max(res.size, j.packed), MediaType: res.media, Definitions: j.engine.defs.version}
	if res.whole {
		v.SHA256, v.Size = hex.EncodeToString(res.sum[:]), res.size
	}
	switch {
	case j.threat != "":
		v.Outcome, v.Threat, v.Type, v.Inside = finding.Malicious, j.threat, threatType(j.threat), j.inside
	case err != nil && !errors.Is(err, errStop):
		v.Outcome, v.Reason = finding.ScanFailed, bounded(err.Error())
	case j.partial != "":
		v.Outcome, v.Reason, v.Bomb = finding.NotFullyScanned, bounded(j.partial), j.bomb
	}
	return v
}

// job is one scan of one file.
type job struct {
	engine  *Engine
	ctx     context.Context // lives exactly as long as the call of Scan that made it
	options Options

	packed   int64 // size of the file itself, for the ratio
	unpacked int64
	members  int
	heavy    bool
	path     []element // of the member that is being read

	partial string // first reason why the scan is not complete
	bomb    finding.Bomb
	threat  finding.ThreatName
	inside  string
}

// element is one step of the way into archives. A loose one is the content of
// a plain compressor: it is only named when nothing better follows.
type element struct {
	name  string
	loose bool
}

// errStop ends the whole scan: a threat is found or a total limit is reached.
var errStop = errors.New("stop")

// wholeFile marks failures to read the file itself, as opposed to what an
// unpacker says of its content.
type wholeFile struct{ r io.Reader }

type readError struct{ error }

func (w wholeFile) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = readError{fmt.Errorf("read: %w", err)}
	}
	return n, err
}

// note records why the scan cannot be complete; the first reason is kept.
func (j *job) note(format string, args ...any) {
	if j.partial == "" {
		j.partial = fmt.Sprintf(format, args...)
		if w := j.where(); w != "" {
			j.partial += " (" + w + ")"
		}
	}
}

// stop records a total limit.
func (j *job) stop(format string, args ...any) error {
	j.note(format, args...)
	return errStop
}

// found records a threat in what is being read.
func (j *job) found(name finding.ThreatName) error {
	j.threat, j.inside = name, j.where()
	return errStop
}

// where returns the path of the current member, "" in the file itself.
func (j *job) where() string {
	var parts []string
	for i, el := range j.path {
		if !el.loose || i == len(j.path)-1 {
			parts = append(parts, el.name)
		}
	}
	return bounded(strings.Join(parts, "/"))
}

// expired reports that the budget is used up.
func (j *job) expired() bool { return j.ctx.Err() != nil }

// bounded makes text from a file safe to show: printable, and not long.
func bounded(s string) string {
	const limit = 1024
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '\ufffd' // controls and what turns the direction of text
		}
		return r
	}, strings.ToValidUTF8(s, "\ufffd"))
	if len(clean) > limit {
		clean = strings.ToValidUTF8(clean[:limit], "") + "…"
	}
	return clean
}

// panicSite names the function that panicked, for the reason of the verdict.
func panicSite(stack []byte) string {
	lines := strings.Split(string(stack), "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, "panic(") && i+2 < len(lines) {
			name, _, _ := strings.Cut(lines[i+2], "(0x")
			return name
		}
	}
	return "unknown"
}
