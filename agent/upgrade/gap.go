package upgrade

import (
	"errors"
	"fmt"
	"io/fs"
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
// on, and that it begins again after one that has ended without it. Each line
// is one write, so that several processes can.
func Protected(dir string, up bool) {
	if handedOver(dir) || up && unprotected(dir) {
		note(dir, up, "agent")
	}
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

// gap adds up how long there was no protection, up to now.
func gap(dir string) time.Duration {
	sum, _ := measured(dir)
	return sum
}

// unprotected reports whether protection ended and has not begun again.
func unprotected(dir string) bool {
	_, open := measured(dir)
	return open
}

// forgetGap removes the marks of an earlier upgrade.
func forgetGap(dir string) error {
	if err := os.Remove(filepath.Join(dir, marksFile)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func measured(dir string) (sum time.Duration, open bool) {
	text, err := os.ReadFile(filepath.Join(dir, marksFile))
	if err != nil {
		return 0, false
	}
	return gapOf(marksOf(string(text)), mark{boot: bootID(), at: boottime()})
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
// between two boots is not known and not counted. A gap of this boot that is
// still open counts up to now.
func gapOf(marks []mark, now mark) (sum time.Duration, open bool) {
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
		if open = len(marks) == 0 && boot[0].boot == now.boot && down >= 0; open {
			sum += max(0, now.at-down)
		}
	}
	return sum, open
}
