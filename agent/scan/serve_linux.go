package scan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"komainu/finding"
)

// Serve is the main loop of the child: it confines itself, tells the agent
// what came of that, and scans what it is handed until the socket closes,
// when it returns nil. sock is os.NewFile(Socket, …). It must be the first
// thing that the process does.
func Serve(sock *os.File) error {
	debug.SetMemoryLimit(memoryLimit)
	debug.SetGCPercent(50) // a scan leaves little behind, and the process should stay small
	// What needs the filesystem or memory of the start comes before the doors
	// close: the socket with its poller, and the definitions.
	conn, err := connOf(sock)
	if err != nil {
		return err
	}
	defer conn.Close()
	s := &server{conn: conn, engine: New(Embedded(), DefaultLimits()), running: map[uint64]context.CancelFunc{}}
	confinement := confine()
	if err := s.send(reply{Hello: &confinement}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer s.work.Wait()
	defer cancel()
	s.work.Go(func() { s.beats(ctx) })
	return s.serve(ctx)
}

type server struct {
	conn   *net.UnixConn
	engine *Engine
	work   sync.WaitGroup

	mu      sync.Mutex
	running map[uint64]context.CancelFunc
}

// beats says that the process lives: its scheduler runs and its socket works.
func (s *server) beats(ctx context.Context) {
	tick := time.NewTicker(beatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if s.send(reply{Beat: &beat{Panics: s.engine.Panics()}}) != nil {
				return
			}
		}
	}
}

func (s *server) send(r reply) error {
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	_, err = s.conn.Write(text)
	return err
}

func (s *server) serve(ctx context.Context) error {
	buf, rights := make([]byte, maxMessage), make([]byte, unix.CmsgSpace(4))
	for {
		n, oobn, _, _, err := s.conn.ReadMsgUnix(buf, rights)
		if errors.Is(err, io.EOF) || err == nil && n == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("scanner: %w", err)
		}
		file, err := received(rights[:oobn])
		if err != nil {
			return fmt.Errorf("scanner: %w", err)
		}
		var r request
		if err := json.Unmarshal(buf[:n], &r); err != nil {
			return fmt.Errorf("scanner: %w", err)
		}
		switch {
		case file != nil:
			s.start(ctx, r, file)
		case r.Cancel:
			s.mu.Lock()
			if cancel := s.running[r.ID]; cancel != nil {
				cancel()
			}
			s.mu.Unlock()
		}
	}
}

// start scans in a goroutine of its own. The agent bounds how many there are.
func (s *server) start(ctx context.Context, r request, file *os.File) {
	ctx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	s.running[r.ID] = cancel
	s.mu.Unlock()
	s.work.Go(func() {
		v := s.scan(ctx, r, file)
		s.mu.Lock()
		delete(s.running, r.ID)
		s.mu.Unlock()
		cancel()
		_ = file.Close() // opened for reading; nothing can be lost
		_ = s.send(reply{ID: r.ID, Verdict: &v})
	})
}

func (s *server) scan(ctx context.Context, r request, file *os.File) finding.Verdict {
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return finding.Verdict{Outcome: finding.ScanFailed, Reason: "not a regular file"}
	}
	return s.engine.Scan(ctx, file, info.Size(), Options{Budget: r.Budget, SkipArchives: r.Closed})
}

// received returns the one descriptor of a message, nil when there is none.
func received(rights []byte) (*os.File, error) {
	if len(rights) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "scanned"))
		}
	}
	if len(files) != 1 {
		for _, f := range files {
			_ = f.Close()
		}
		return nil, fmt.Errorf("%d descriptors in a message", len(files))
	}
	return files[0], nil
}
