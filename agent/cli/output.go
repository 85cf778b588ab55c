package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"

	"komainu/health"
)

// print writes a line for people.
func (a *app) print(format string, args ...any) {
	fmt.Fprintf(a.env.Stdout, format+"\n", args...)
}

// json writes v for machines: one line in a pipe, indented on a terminal.
func (a *app) json(v any) error {
	b, err := encode(v)
	if err != nil {
		return err
	}
	if a.env.Terminal {
		var indented bytes.Buffer
		if err := json.Indent(&indented, b, "", "  "); err != nil {
			return err
		}
		b = indented.Bytes()
	}
	_, err = fmt.Fprintf(a.env.Stdout, "%s\n", b)
	return err
}

// items is the JSON of every list.
type items[T any] struct {
	Items      []T  `json:"items"`
	Restricted bool `json:"restricted,omitempty"`
}

// show writes a list: as JSON, or entry by entry with a blank line between,
// or a word that there is none.
func show[T any](a *app, all []T, none text, each func(T)) error {
	if a.output == "json" {
		if all == nil {
			all = []T{}
		}
		return a.json(items[T]{Items: all})
	}
	if len(all) == 0 {
		a.print("%s", a.say(none))
	}
	for i, v := range all {
		if i > 0 {
			a.print("")
		}
		each(v)
	}
	return nil
}

// changed says that something was done. Pairs are keys and values that go
// with it: lines for people, members for machines, whose message is always
// in English.
func (a *app) changed(done text, pairs ...string) error {
	if a.output == "json" {
		m := map[string]string{"message": done.en}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return a.json(m)
	}
	a.print("%s", a.say(done))
	for i := 0; i < len(pairs); i += 2 {
		a.print("%s: %s", capital(pairs[i]), strconv.Quote(pairs[i+1]))
	}
	return nil
}

// keyWidth aligns the colons of `health`.
const keyWidth = 44

// field writes one line of `health`.
func (a *app) field(f health.Field) {
	suffix := ""
	if f.Managed {
		suffix = " [managed]"
	}
	a.print("%-*s: %s%s", keyWidth, f.Name, value(f.Value), suffix)
}

// value formats the value of a field: strings quoted, lists as JSON.
func value(v any) string {
	switch v := v.(type) {
	case string:
		return strconv.Quote(v)
	case []string:
		if len(v) == 0 {
			return "[]"
		}
	case []health.Tag:
		if len(v) == 0 {
			return "[]"
		}
	}
	b, err := encode(v)
	if err != nil {
		return strconv.Quote(err.Error())
	}
	return string(b)
}

// encode returns v as JSON in which every character can be printed: names
// of files may hold what a terminal obeys.
func encode(v any) ([]byte, error) {
	var raw bytes.Buffer
	e := json.NewEncoder(&raw)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, r := range strings.TrimSuffix(raw.String(), "\n") {
		switch {
		case unicode.IsPrint(r):
			out.WriteRune(r)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&out, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(&out, `\u%04x`, r)
		}
	}
	return out.Bytes(), nil
}

// clean makes prose that came from elsewhere safe for a terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}

// when formats a time as `threat list` does, in the local zone.
func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.ANSIC)
}

// table writes rows in columns: aligned on a terminal, separated by tabs in
// a pipe.
func (a *app) table(header []string, rows [][]string) {
	w := tabwriter.NewWriter(a.env.Stdout, 0, 8, 2, ' ', 0)
	for _, row := range append([][]string{header}, rows...) {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = strings.ReplaceAll(clean(cell), "\n", " ")
		}
		if line := strings.Join(cells, "\t"); a.env.Terminal {
			fmt.Fprintln(w, line)
		} else {
			a.print("%s", line)
		}
	}
	w.Flush()
}
