package scan

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"time"

	"komainu/finding"
)

// Config is how a Process runs.
type Config struct {
	// Command makes the command of the child: this binary with the hidden
	// argument for the scanner, which calls Serve with Socket. Process adds
	// the descriptor, the environment and what the platform needs.
	Command func() *exec.Cmd
	// Parallel is how many files are scanned at once; 0 is 4.
	Parallel int
	// Nice lowers the priority of the child: 0 to 19. Above 0 it also reads
	// from disks only after everybody else.
	Nice int
	// Idle ends the child when nothing was scanned for so long; the next
	// scan starts it again. 0 keeps it.
	Idle time.Duration
	// Keep reports whether the child is there all the same, because somebody
	// may not wait for its start. It may change its mind. Nil means no.
	Keep func() bool
	Log  *slog.Logger
}

// Process is the scanner as the agent sees it: a child that may do nothing
// but read the files it is handed. Run keeps it alive; Scan may be called
// from any number of goroutines, before, during and after.
//
// A file that the child dies or hangs on gets the verdict ScanFailed. When
// several were being scanned, each is tried once more, alone, so that only
// the one that kills again is blamed. A file that was blamed twice is not
// tried again for ten minutes.
type Process struct {
	cfg Config
	processState
}

// NewProcess returns a process that Run has to keep.
func NewProcess(cfg Config) *Process {
	if cfg.Parallel <= 0 {
		cfg.Parallel = 4
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	p := &Process{cfg: cfg}
	p.init()
	return p
}

// Run starts the child, and starts it again when it ends, until ctx ends. It
// returns nil then, and fault.Unsupported at once where there is no scanner
// process.
func (p *Process) Run(ctx context.Context) error { return p.run(ctx) }

// Scan returns the verdict on the file that is open for reading. The file is
// not closed and its offset does not move; it may be closed when Scan
// returns. Scan waits for a free place and for a child that is starting.
//
// When ctx ends first, its error is returned and the child is told to stop.
// Other errors have the kind fault.Unavailable: the child cannot be started.
// Everything that is the file's fault is a verdict.
func (p *Process) Scan(ctx context.Context, file *os.File, o Options) (finding.Verdict, error) {
	return p.scan(ctx, file, o)
}

// Status is what is known of the scanner process.
type Status struct {
	Up      bool
	PID     int
	Since   time.Time     // of this child, or of its absence
	Silent  time.Duration // since the last sign of life, which comes twice a second
	Problem string        // why it is not up, or what its confinement lacks
	Confinement
	Started uint64 // children
	Crashes uint64 // children that died by themselves
	Hangs   uint64 // children that were killed because they did not answer
	Scans   uint64 // verdicts
	Failed  uint64 // verdicts that are ScanFailed
	Panics  uint64 // recovered in this child
	Waiting int    // calls of Scan that have no place yet
}

// Confinement is what the child says of the restrictions that it put on
// itself, after it tried to break each of them.
type Confinement struct {
	UID        int      // it runs as
	NoNewPrivs bool     // exec gives nothing
	Seccomp    bool     // only the listed system calls
	Landlock   int      // version of the kernel's interface, 0: absent
	Missing    []string // restrictions that could not be put on, with the reason
	Escapes    []string // what should have failed and did not
}

// Confined reports whether every restriction is in place.
func (c Confinement) Confined() bool {
	return c.NoNewPrivs && c.Seccomp && c.Landlock > 0 && len(c.Escapes) == 0
}

// Status returns the state of the process.
func (p *Process) Status() Status { return p.status() }
