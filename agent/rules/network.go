package rules

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"komainu/event"
)

// reverseShell finds shells whose input and output is a connection.
type reverseShell struct{}

// device and exchange make a shell command that gives a shell away: it names a
// connection as a device, and takes its input from it or is a person's. A
// connection alone is how scripts find out whether a port is open.
var (
	device   = regexp.MustCompile(`/dev/(?:tcp|udp)/`)
	exchange = regexp.MustCompile(`\b(?:ba|da|z|k|a)?sh\s+-i\b|\b0[<>]&\d`)
)

func (reverseShell) observe(e *Engine, ev *event.Event) *match {
	p := executed(ev)
	if p == nil || viewer(p) {
		return nil
	}
	how := ""
	switch shell := isShell(p); {
	case shell && ev.Fields["stdin"] == "inet_socket" && ev.Fields["stdout"] == "inet_socket" && !runsScript(p):
		how = "was started with a network connection as its input and output"
	case shell && slices.ContainsFunc(p.Args, device.MatchString) && exchange.MatchString(strings.Join(p.Args, " ")):
		how = "was told to take its input from the network"
	case handsOverShell(p):
		how = "was told to hand a shell over to the network"
	default:
		return nil
	}
	return &match{acting: *p, subject: e.cfg.Tree.Root(p.Key).String(), summary: fmt.Sprintf("%s %s.", base(p), how)}
}

// relays connect a program with the network.
var relays = []string{"nc", "nc.traditional", "nc.openbsd", "ncat", "netcat", "socat", "socat1"}

// handsOverShell reports whether a network tool was told to execute a shell.
func handsOverShell(p *event.Process) bool {
	name := tool(p)
	if len(p.Args) < 2 || !slices.Contains(relays, name) {
		return false
	}
	for i, a := range p.Args[1:] {
		next := ""
		if i+2 < len(p.Args) {
			next = p.Args[i+2]
		}
		switch name {
		default:
			option, value, _ := strings.Cut(a, "=")
			if slices.Contains([]string{"-e", "-c", "--exec", "--sh-exec"}, option) && namesShell(next+" "+value) {
				return true
			}
		case "socat", "socat1":
			kind, rest, _ := strings.Cut(a, ":")
			if (strings.EqualFold(kind, "exec") || strings.EqualFold(kind, "system")) && namesShell(strings.Split(rest, ",")[0]) {
				return true
			}
		}
	}
	return false
}

func namesShell(command string) bool {
	return slices.ContainsFunc(strings.Fields(command), func(word string) bool {
		return slices.Contains(shells, path.Base(strings.Trim(word, `'"`)))
	})
}

const (
	downloadWindow = time.Minute
	downloadsMax   = 512
)

// downloads finds what is downloaded and executed right after.
type downloads struct {
	recent []download // oldest first
}

// download is a program that fetches, with the names that it can leave.
type download struct {
	at      time.Time
	root    event.ProcessKey
	parent  event.ProcessKey
	process event.Process
	names   []string
}

func newDownloads() *downloads { return &downloads{} }

var (
	fetchers  = []string{"aria2c", "curl", "fetch", "ftp", "tftp", "wget", "wget2"}
	temporary = []string{"/tmp/", "/var/tmp/", "/dev/shm/"}
)

func (r *downloads) observe(e *Engine, ev *event.Event) *match {
	p := executed(ev)
	if p == nil {
		return nil
	}
	r.recent = slices.DeleteFunc(r.recent, func(d download) bool { return ev.Time.Sub(d.at) > downloadWindow })
	if slices.Contains(fetchers, tool(p)) {
		if len(r.recent) == downloadsMax {
			r.recent = slices.Delete(r.recent, 0, 1)
		}
		r.recent = append(r.recent, download{ev.Time, e.cfg.Tree.Root(p.Key), p.Parent, *p, fetched(p)})
		return nil
	}
	if len(r.recent) == 0 {
		return nil
	}
	file := p.Path
	if isInterpreter(p) {
		file = script(p)
	}
	piped := isShell(p) && ev.Fields["stdin"] == "pipe" && file == "" && !slices.Contains(p.Args, "-c")
	inTemporary := slices.ContainsFunc(temporary, func(t string) bool { return strings.HasPrefix(file, t) })
	if !piped && !inTemporary {
		return nil
	}
	root := e.cfg.Tree.Root(p.Key)
	for _, d := range slices.Backward(r.recent) {
		switch {
		case !d.root.Same(root):
		case piped && d.parent.Same(p.Parent) && len(d.names) == 0 && ev.Time.Sub(d.at) < 2*time.Second:
			return &match{acting: *p, others: []event.Process{d.process}, subject: root.String(),
				summary: fmt.Sprintf("What %s downloaded went straight into %s.", base(&d.process), base(p))}
		case inTemporary && slices.Contains(d.names, path.Base(file)):
			m := &match{acting: *p, others: []event.Process{d.process}, subject: root.String() + file,
				summary: fmt.Sprintf("%s was executed %s after %s downloaded it.", file, max(ev.Time.Sub(d.at), time.Second).Round(time.Second), base(&d.process))}
			m.files = []event.File{{Path: file}}
			if p.Image != nil && p.Image.Path == file {
				m.files = image(p)
			}
			return m
		}
	}
	return nil
}

// fetched returns the names of files that a fetcher was told to leave; none
// when it writes to its standard output.
func fetched(p *event.Process) []string {
	var names []string
	toFile := tool(p) != "curl" && tool(p) != "fetch" // these print unless told otherwise
	args := p.Args[min(1, len(p.Args)):]
	for i, a := range args {
		next := ""
		if i+1 < len(args) {
			next = args[i+1]
		}
		option, value, assigned := strings.Cut(a, "=")
		switch {
		case option == "-o" || option == "--output" || option == "--output-document" || option == "--out",
			tool(p) == "wget" && strings.HasPrefix(a, "-") && !strings.HasPrefix(a, "--") && strings.HasSuffix(a, "O"),
			tool(p) == "curl" && strings.HasPrefix(a, "-") && !strings.HasPrefix(a, "--") && strings.HasSuffix(a, "o"):
			if !assigned {
				value = next
			}
			if value == "-" || value == "/dev/stdout" {
				return nil
			}
			toFile = true
			names = append(names, path.Base(value))
		case tool(p) == "curl" && (a == "--remote-name" || a == "--remote-name-all" || strings.HasPrefix(a, "-") && !strings.HasPrefix(a, "--") && strings.HasSuffix(a, "O")):
			toFile = true
		case strings.Contains(a, "://"):
			address, _, _ := strings.Cut(a, "?")
			names = append(names, path.Base(address))
		}
	}
	if !toFile {
		return nil
	}
	return names
}
