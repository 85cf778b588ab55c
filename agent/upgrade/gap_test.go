package upgrade

import (
	"strings"
	"testing"
	"time"
)

func TestGap(t *testing.T) {
	f := func(text string, want time.Duration) {
		t.Helper()
		if got := gapOf(marksOf(strings.ReplaceAll(text, "; ", "\n"))); got != want {
			t.Errorf("%s: %v, want %v", text, got, want)
		}
	}
	f("", 0)
	f("b 100 down agent", 0) // it has not begun again
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
		_ = gapOf(marksOf(text))
	})
}
