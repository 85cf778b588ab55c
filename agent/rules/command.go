package rules

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"komainu/event"
)

// viewers show, search or edit text that can hold anything.
var viewers = []string{"apropos", "awk", "bat", "cat", "echo", "ed", "egrep", "emacs", "fgrep", "gawk", "git", "grep", "head", "less", "man", "mawk", "more", "nano", "printf", "rg", "sed", "tail", "vi", "vim", "vim.basic", "vim.tiny"}

// viewer reports whether a process only shows its arguments' text, by a
// program that only root can have put in place.
func viewer(p *event.Process) bool {
	return protected(p.Path, p.Image) && slices.Contains(viewers, tool(p))
}

// hiddenFile finds programs whose file name begins with a dot.
type hiddenFile struct{}

func (hiddenFile) observe(_ *Engine, ev *event.Event) *match {
	p := executed(ev)
	if p == nil {
		return nil
	}
	name := path.Base(p.Path)
	if len(name) < 2 || name[0] != '.' || name == ".." || strings.HasPrefix(p.Path, "/nix/store/") || strings.HasPrefix(p.Path, "/gnu/store/") {
		return nil
	}
	return &match{acting: *p, files: image(p), subject: p.Path, summary: fmt.Sprintf("%s was executed, a file that listings do not show.", p.Path)}
}

func image(p *event.Process) []event.File {
	if p.Image == nil {
		return nil
	}
	return []event.File{*p.Image}
}

// miner finds the command lines of miners.
type miner struct{}

var (
	miners      = []string{"bminer", "ccminer", "cgminer", "cpuminer", "ethminer", "lolminer", "minerd", "nbminer", "nheqminer", "phoenixminer", "t-rex", "teamredminer", "xmr-stak", "xmrig", "xmrig-notls"}
	poolOptions = []string{"-o", "-O", "--url", "--pool", "--coin", "--algo", "-a", "--donate-level", "-P", "--user"}
)

func (miner) observe(_ *Engine, ev *event.Event) *match {
	p := executed(ev)
	if p == nil || len(p.Args) == 0 || viewer(p) {
		return nil
	}
	pool := slices.ContainsFunc(p.Args[1:], func(a string) bool {
		return strings.Contains(a, "stratum+tcp://") || strings.Contains(a, "stratum+ssl://") || strings.Contains(a, "stratum+tls://") ||
			strings.HasPrefix(a, "--donate-level") || strings.HasPrefix(a, "--randomx-")
	})
	byName := slices.Contains(miners, strings.ToLower(base(p))) && slices.ContainsFunc(p.Args[1:], func(a string) bool {
		option, _, _ := strings.Cut(a, "=")
		return slices.Contains(poolOptions, option)
	})
	if !pool && !byName {
		return nil
	}
	return &match{acting: *p, files: image(p), subject: p.Path, summary: fmt.Sprintf("%s was started with the command line of a miner.", base(p))}
}

// historyCleared finds shell histories that are deleted, emptied or led to
// nowhere.
type historyCleared struct{}

// emptied is a redirection of nothing to a shell's history, or its own command
// to forget.
var emptied = regexp.MustCompile(`(?:^|[;&|]|\bnull|:|\btrue|\becho(?: -n)?(?: ""| '')?)\s*>\s*\S*\.(?:bash|zsh|sh|ash)_history\b|\bhistory\s+-[a-z]*c|\bunset\s+HISTFILE\b|\bHISTFILE=/dev/null\b`)

func (historyCleared) observe(e *Engine, ev *event.Event) *match {
	p := executed(ev)
	if p == nil || len(p.Args) < 2 {
		return nil
	}
	args := p.Args[1:]
	var target string
	for _, a := range args {
		if !path.IsAbs(a) {
			a = path.Join(p.Cwd, a)
		}
		if e.cfg.Classify(a) == event.ShellHistory {
			target = a
		}
	}
	cleared := false
	switch tool(p) {
	case "rm", "shred", "unlink", "wipe", "srm":
		cleared = target != ""
	case "truncate":
		cleared = target != "" && (slices.Contains(args, "-s0") || slices.Contains(args, "0") || slices.Contains(args, "--size=0"))
	case "ln", "cp", "mv", "dd":
		cleared = target != "" && slices.ContainsFunc(args, func(a string) bool { return strings.TrimPrefix(a, "if=") == "/dev/null" })
	default:
		cleared = isShell(p) && slices.Contains(args, "-c") && emptied.MatchString(strings.Join(args, " "))
	}
	if !cleared {
		return nil
	}
	m := &match{acting: *p, summary: fmt.Sprintf("%s cleared a shell's history.", base(p))}
	if target != "" {
		m.files = []event.File{{Path: target, Sensitive: event.ShellHistory}}
		m.summary = fmt.Sprintf("%s cleared the shell history %s.", base(p), target)
	}
	m.subject = e.cfg.Tree.Root(p.Key).String()
	return m
}

// auditDisabled finds the system's audit log being switched off.
type auditDisabled struct{}

func (auditDisabled) observe(_ *Engine, ev *event.Event) *match {
	p := executed(ev)
	if p == nil || len(p.Args) < 2 {
		return nil
	}
	args := p.Args[1:]
	audit := slices.Contains(args, "auditd") || slices.Contains(args, "auditd.service")
	off := false
	switch tool(p) {
	case "systemctl":
		off = audit && slices.ContainsFunc(args, func(a string) bool { return a == "stop" || a == "disable" || a == "mask" || a == "kill" })
	case "service":
		off = audit && slices.Contains(args, "stop")
	case "chkconfig", "update-rc.d":
		off = audit && (slices.Contains(args, "off") || slices.Contains(args, "disable") || slices.Contains(args, "remove"))
	case "auditctl":
		i := slices.Index(args, "-e")
		off = slices.Contains(args, "-e0") || i >= 0 && i+1 < len(args) && args[i+1] == "0"
	case "pkill", "killall":
		off = slices.Contains(args, "auditd")
	}
	if !off {
		return nil
	}
	return &match{acting: *p, subject: "auditd", summary: fmt.Sprintf("%s switched the audit log off.", base(p))}
}
