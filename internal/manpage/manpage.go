// Package manpage writes the manual page of a command line: one page for a
// command with everything below it. Only tests and generators import it.
package manpage

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Page is what the commands do not say themselves.
type Page struct {
	Section int    // 1 for everybody, 8 for administrators
	Name    string // of the command, with what it is in a few words
	// Sections are further parts: a heading and lines, each a paragraph. A line
	// "term<TAB>text" is an item.
	Sections []Section
}

// Section is a part with a heading.
type Section struct {
	Title string
	Lines []string
}

// Write writes the page of root in the man macros of roff, man(7). It holds no
// date, so that the same commands make the same bytes.
func Write(w io.Writer, root *cobra.Command, p Page) error {
	var b strings.Builder
	root.InitDefaultHelpFlag()
	fmt.Fprintf(&b, ".\\\" Made from the commands themselves; do not edit.\n")
	fmt.Fprintf(&b, ".TH %s %d \"\" \"Komainu\" \"Komainu manual\"\n", strings.ToUpper(root.Name()), p.Section)
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", text(root.Name()), text(p.Name))
	fmt.Fprintf(&b, ".SH SYNOPSIS\n.B %s\n.I COMMAND\n[options]\n", text(root.Name()))
	fmt.Fprintf(&b, ".SH DESCRIPTION\n%s\n", paragraphs(about(root)))
	fmt.Fprint(&b, ".SH COMMANDS\n")
	commands(&b, root)
	fmt.Fprint(&b, ".SH OPTIONS OF ALL COMMANDS\n")
	flags(&b, root.PersistentFlags())
	for _, s := range p.Sections {
		fmt.Fprintf(&b, ".SH %s\n", text(strings.ToUpper(s.Title)))
		for _, line := range s.Lines {
			if term, about, ok := strings.Cut(line, "\t"); ok {
				fmt.Fprintf(&b, ".TP\n.B %s\n%s\n", text(term), text(about))
			} else {
				fmt.Fprintf(&b, ".PP\n%s\n", text(line))
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// commands writes what can be run, in the order of the help.
func commands(b *strings.Builder, parent *cobra.Command) {
	for _, c := range parent.Commands() {
		if c.Hidden || c.Name() == "help" {
			continue
		}
		if c.HasSubCommands() {
			commands(b, c)
			continue
		}
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", text(strings.TrimSuffix(c.UseLine(), " [flags]")), paragraphs(about(c)))
		local := c.NonInheritedFlags()
		if local.HasAvailableFlags() {
			fmt.Fprint(b, ".RS\n")
			flags(b, local)
			fmt.Fprint(b, ".RE\n")
		}
	}
}

func about(c *cobra.Command) string {
	if c.Long != "" {
		return c.Long
	}
	return c.Short
}

func flags(b *strings.Builder, set *pflag.FlagSet) {
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		fmt.Fprintf(b, ".TP\n.B %s", text(name))
		if value != "" {
			fmt.Fprintf(b, " %s", text(value))
		}
		fmt.Fprintf(b, "\n%s\n", text(usage))
	})
}

// paragraphs parts a text at empty lines.
func paragraphs(s string) string {
	var list []string
	for p := range strings.SplitSeq(strings.TrimSpace(s), "\n\n") {
		var lines []string
		for line := range strings.Lines(p) {
			lines = append(lines, text(strings.TrimSpace(line)))
		}
		list = append(list, strings.Join(lines, "\n"))
	}
	return strings.Join(list, "\n.PP\n")
}

// text keeps roff from reading commands in a text.
func text(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	return s
}
