package rules

import (
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"komainu/event"
)

// executed returns the process of an event that tells of the execution of a
// program, nil for any other event. A fork executes nothing.
func executed(ev *event.Event) *event.Process {
	if ev.Action != event.ProcessCreated || ev.Fields["via"] == "fork" || ev.Process == nil {
		return nil
	}
	return ev.Process
}

// base returns the name of a process's program.
func base(p *event.Process) string {
	if p.Path == "" {
		return p.Name
	}
	return path.Base(p.Path)
}

// tool returns the name under which a program does its work: busybox is many.
func tool(p *event.Process) string {
	name := base(p)
	if name != "busybox" || len(p.Args) == 0 {
		return name
	}
	if applet := path.Base(p.Args[0]); applet != "busybox" {
		return applet
	}
	if len(p.Args) > 1 {
		return p.Args[1]
	}
	return name
}

var (
	shells       = []string{"ash", "bash", "dash", "fish", "ksh", "mksh", "sh", "zsh"}
	interpreters = []string{"lua", "node", "nodejs", "perl", "php", "python", "ruby"}
)

func isShell(p *event.Process) bool { return slices.Contains(shells, tool(p)) }

// isInterpreter reports whether a program runs other people's text; a version
// at the end of its name does not matter.
func isInterpreter(p *event.Process) bool {
	return isShell(p) || slices.Contains(interpreters, strings.TrimRight(tool(p), "0123456789.-"))
}

// runsScript reports whether an interpreter was given something to run, so
// that it does not talk to a person.
func runsScript(p *event.Process) bool {
	if !isInterpreter(p) || len(p.Args) < 2 {
		return false
	}
	return slices.ContainsFunc(p.Args[1:], func(a string) bool {
		return !strings.HasPrefix(a, "-") && !strings.HasPrefix(a, "+") || a == "-c" || a == "-s"
	})
}

// script returns the path of the file that an interpreter runs, "" if it runs
// none.
func script(p *event.Process) string {
	if !isInterpreter(p) || len(p.Args) < 2 {
		return ""
	}
	for _, a := range p.Args[1:] {
		switch {
		case a == "-c" || a == "-m" || a == "-e" || a == "-":
			return ""
		case strings.HasPrefix(a, "-"):
		case path.IsAbs(a):
			return path.Clean(a)
		default:
			return path.Join(p.Cwd, a)
		}
	}
	return ""
}

// sameProgram reports whether child was forked from parent and has executed
// nothing since.
func sameProgram(child, parent *event.Process) bool {
	return child.Path == parent.Path && slices.Equal(child.Args, parent.Args)
}

// systemFolders are where packages put programs, and where only root writes.
var systemFolders = []string{"/usr/", "/bin/", "/sbin/", "/lib/", "/lib64/", "/opt/", "/snap/", "/nix/store/"}

func inSystem(file string) bool {
	return slices.ContainsFunc(systemFolders, func(f string) bool { return strings.HasPrefix(file, f) })
}

// protected reports whether only root can have put a program where it is.
func protected(file string, f *event.File) bool {
	return f != nil && f.Owner.UID == 0 && f.Mode&0o022 == 0 && inSystem(file)
}

// program returns the name of what a process runs if only root can have put it
// there, and "". For an interpreter that is the script: its variables can make
// it run anything, so that it counts only when root runs it.
func (e *Engine) program(p *event.Process) string {
	if !protected(p.Path, p.Image) {
		return ""
	}
	if !isInterpreter(p) {
		return tool(p)
	}
	file := script(p)
	if file == "" || p.User.EUID != 0 {
		return ""
	}
	f, err := e.cfg.Inspect(file)
	if err != nil || !protected(f.Path, &f) {
		return ""
	}
	return path.Base(file)
}

// inspect asks the filesystem what is at a path.
func inspect(name string) (event.File, error) {
	resolved, err := filepath.EvalSymlinks(name)
	if err != nil {
		return event.File{}, err
	}
	info, err := os.Stat(resolved)
	if err != nil {
		return event.File{}, err
	}
	if !info.Mode().IsRegular() {
		return event.File{}, fs.ErrInvalid
	}
	return describe(resolved, info), nil
}
