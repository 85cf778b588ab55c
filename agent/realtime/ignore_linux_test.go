package realtime_test

import (
	"os"
	"os/exec"
	"strconv"
	"testing"

	"komainu/agent/realtime"
)

// TestIgnoreMarks leaves marks in each of the ways that kernels of different
// age know: all of them must be dropped by a write and by us.
func TestIgnoreMarks(t *testing.T) {
	s, inside := inStage(t)
	if !inside {
		return
	}
	for age := range realtime.IgnoreAges {
		t.Run(strconv.Itoa(age), func(t *testing.T) {
			f, err := os.OpenFile(s.path("clean"), os.O_RDWR, 0) // before anybody has to answer
			must(t, err)
			reader, err := os.Open(s.path("clean"))
			must(t, err)
			defer reader.Close()
			g, err := realtime.NewIgnoreGroup(s.mount, age)
			must(t, err)
			defer g.Close()
			events := func() int {
				done := make(chan struct{})
				go func() {
					defer close(done)
					if err := exec.Command("cat", s.path("clean")).Run(); err != nil {
						t.Error(err)
					}
				}()
				return g.Serve(done)
			}
			expect := func(want int, when string) {
				t.Helper()
				if got := events(); got != want {
					t.Errorf("%d events %s, want %d", got, when, want)
				}
			}
			expect(1, "at first")
			expect(1, "while a writer has it open")
			_, err = f.WriteString("n")
			must(t, err)
			must(t, f.Close())
			expect(1, "after the writer has closed it")
			expect(0, "once it is marked")
			g.Remove(reader)
			expect(1, "after the mark was removed")
			expect(0, "once it is marked again")
			must(t, os.Truncate(s.path("clean"), 3))
			expect(1, "after it was changed")
			if age == realtime.IgnoreAges-1 {
				g.Remove(reader)
				g.FillUp()
				expect(1, "for the mark that is one too many")
				expect(1, "when all marks were dropped")
				expect(0, "once it is marked a third time")
			}
			if g.Age() != age {
				t.Errorf("way %d was not enough: %d", age, g.Age())
			}
		})
	}
}
