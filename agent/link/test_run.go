package link

import (
	"maps"

	"komainu/drill"
	"komainu/fault"
	"komainu/wire"
)

// maxTests bounds the reports that wait for a connection.
const maxTests = 16

// ReportTest tells the control plane how far a detection test is. It never
// waits: of each run the last report is kept until it can be sent.
func (l *Link) ReportTest(r drill.Run) {
	l.mu.Lock()
	if _, known := l.tests[r.ID]; !known && len(l.tests) >= maxTests {
		for id := range l.tests { // any: what happens now matters more
			delete(l.tests, id)
			break
		}
	}
	l.tests[r.ID] = r
	l.mu.Unlock()
	poke(l.test)
}

// begin starts a test that the control plane asks for.
func (l *Link) begin(t wire.DetectionTest) error {
	if l.cfg.Test == nil {
		return fault.New(fault.Unsupported, "this agent has no detection tests")
	}
	return l.cfg.Test(t)
}

// tests sends reports while the session lasts, to a control plane that knows
// what they are.
func (s *session) tests() {
	if s.l.State().Protocol < wire.TestProtocol {
		return
	}
	for {
		s.l.mu.Lock()
		waiting := s.l.tests
		s.l.tests = map[string]drill.Run{}
		s.l.mu.Unlock()
		for _, r := range waiting {
			if err := s.send(&wire.TestRun{Run: r}); err != nil {
				s.l.mu.Lock()
				maps.DeleteFunc(waiting, func(id string, _ drill.Run) bool { _, newer := s.l.tests[id]; return newer })
				maps.Copy(s.l.tests, waiting)
				s.l.mu.Unlock()
				s.fail(err)
				return
			}
		}
		select {
		case <-s.done:
			return
		case <-s.l.test:
		}
	}
}
