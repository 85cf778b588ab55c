package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// longOptions lets long options be typed with one dash, as runbooks do:
// `health -details`. Only what is exactly the name of a long option is
// touched, so that short options keep their meaning, and nothing after `--`.
func longOptions(root *cobra.Command, args []string) []string {
	known := map[string]bool{}
	note := func(f *pflag.Flag) { known[f.Name] = true }
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(note)
		cmd.PersistentFlags().VisitAll(note)
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
	out := slices.Clone(args)
	for i, arg := range args {
		if arg == "--" {
			break
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(arg, "-"), "=")
		if strings.HasPrefix(arg, "-") && known[name] {
			out[i] = "-" + arg
		}
	}
	return out
}

// nearest returns the name that is likely meant by what was typed, "" when
// none is near.
func nearest(typed string, names []string) string {
	best, at := "", len(typed)/3+2
	for _, n := range names {
		if d := distance(typed, n); d < at {
			best, at = n, d
		}
	}
	if best != "" || len(typed) < 3 {
		return best
	}
	if i := slices.IndexFunc(names, func(n string) bool { return strings.HasPrefix(n, typed) }); i >= 0 {
		return names[i]
	}
	return ""
}

// distance counts the single-letter changes between two words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
