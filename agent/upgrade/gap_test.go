package upgrade

import (
	"strings"
	"testing"
	"time"
)

func TestGap(t *testing.T) {
	now := mark{boot: "b", at: 1000}
	f := func(text string, want time.Duration, wantOpen ...bool) {
		t.Helper()
		got, open := gapOf(marksOf(strings.ReplaceAll(text, "; ", "\n")), now)
		if got != want || open != (len(wantOpen) > 0) {
			t.Errorf("%s: %v, still open %v, want %v", text, got, open, want)
		}
	}
	f("", 0)
	f("b 100 down agent", 900, true) // it has not begun again
	f("b 100 down agent; b 300 up agent; b 400 down installer", 800, true)
	f("a 100 down agent", 0) // the host was off since
	f("a 100 down agent; b 400 down agent", 600, true)
	f("b 1100 down agent", 0, true) // written while it was read
	f("b 100 up agent", 0)
	f("b 100 down agent; b 300 up agent", 200)
	f("b 100 down agent; b 150 down installer; b 300 up agent", 200)
	f("b 150 down installer; b 100 down agent; b 300 up agent", 200) // written late
	f("b 100 down agent; b 300 up agent; b 400 down installer; b 450 up agent", 250)
	f("b 100 down agent; c 5 up agent; c 10 down agent; c 12 up agent", 2) // the host was off between
	f("b 100 down agent; b 2; b x up agent; garbage; b 300 up agent", 200)
}

func FuzzMarks(f *testing.F) {
	f.Add("b 100 down agent\nb 300 up agent\n")
	f.Add("b 100 down agent\nb 3")
	f.Fuzz(func(t *testing.T, text string) {
		for _, m := range marksOf(text) {
			if strings.ContainsAny(m.boot, " \n") {
				t.Fatalf("%+v of %q", m, text)
			}
		}
		_, _ = gapOf(marksOf(text), mark{boot: "b", at: 200})
	})
}
