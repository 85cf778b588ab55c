package cloud

import (
	"bufio"
	"io"
	"strings"
	"time"
)

// Text returns a script that has its arguments in it: clouds run scripts
// without any, and what stands in a script is seen by root alone on the
// machine, where arguments of a process are seen by everybody.
func Text(script string, args []string) string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\nset --")
	for _, a := range args {
		b.WriteString(" '" + strings.ReplaceAll(a, "'", `'\''`) + "'")
	}
	b.WriteString("\n" + strings.TrimPrefix(script, "#!/bin/sh\n"))
	return b.String()
}

// Lines gives the lines that begin with a prefix to f, without it.
func Lines(output, prefix string, f func(string)) {
	for text := range strings.Lines(output) {
		if rest, ok := strings.CutPrefix(strings.TrimRight(text, "\r\n"), prefix); ok {
			f(rest)
		}
	}
}

// Tail returns the end of an output, for people.
func Tail(output string) string {
	output = strings.ToValidUTF8(strings.TrimSpace(output), "?")
	if len(output) > 300 {
		output = "…" + strings.ToValidUTF8(output[len(output)-300:], "")
	}
	return output
}

// Empty reports whether nothing is to be sent along with a script. What there
// is is not read further than its first byte.
func Empty(stdin io.Reader) bool {
	if stdin == nil {
		return true
	}
	_, err := bufio.NewReaderSize(stdin, 16).Peek(1)
	return err != nil
}

// Pauses between questions for the outcome of something.
const (
	firstPause = 250 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Pause returns how long to wait after a number of questions.
func Pause(asked int) time.Duration {
	return min(lastPause, firstPause<<min(asked/2, 10))
}
