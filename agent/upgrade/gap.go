package upgrade

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// mark is a moment at which protection began or ended.
type mark struct {
	boot string // boottime does not go on over a boot
	at   time.Duration
	up   bool
}

// Protected notes that protection begins or ends now, while an upgrade goes
// on. Each line is one write, so that several processes can.
func Protected(dir string, up bool) {
	if !handedOver(dir) {
		return
	}
	note(dir, up, "agent")
}

func note(dir string, up bool, who string) {
	f, err := os.OpenFile(filepath.Join(dir, marksFile), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return // the gap is then not known, and the upgrade goes on
	}
	defer f.Close()
	word := "down"
	if up {
		word = "up"
	}
	_, _ = fmt.Fprintf(f, "%s %d %s %s\n", bootID(), int64(boottime()), word, who)
}

// gap adds up how long there was no protection.
func gap(dir string) time.Duration {
	text, err := os.ReadFile(filepath.Join(dir, marksFile))
	if err != nil {
		return 0
	}
	return gapOf(marksOf(string(text)))
}

func marksOf(text string) []mark {
	var marks []mark
	for line := range strings.Lines(text) {
		var m mark
		var at int64
		var word, who string
		if n, _ := fmt.Sscanf(line, "%s %d %s %s", &m.boot, &at, &word, &who); n < 4 || word != "up" && word != "down" {
			continue // cut by a crash
		}
		m.at, m.up = time.Duration(at), word == "up"
		marks = append(marks, m)
	}
	return marks
}

// gapOf adds up the times between an end of protection and the next beginning.
// That several tell of one end counts once, from the first of them. What lies
// between two boots is not known and not counted.
func gapOf(marks []mark) (sum time.Duration) {
	for len(marks) > 0 {
		n := slices.IndexFunc(marks, func(m mark) bool { return m.boot != marks[0].boot })
		if n < 0 {
			n = len(marks)
		}
		boot := slices.SortedStableFunc(slices.Values(marks[:n]), func(a, b mark) int { return int(a.at - b.at) })
		marks = marks[n:]
		down := time.Duration(-1)
		for _, m := range boot {
			switch {
			case !m.up && down < 0:
				down = m.at
			case m.up && down >= 0:
				sum += m.at - down
				down = -1
			}
		}
	}
	return sum
}
