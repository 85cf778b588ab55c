package incident

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"komainu/event"
	"komainu/finding"
)

// role says how an entity takes part in an alert: it acts (the process that
// did it, the file it is about, the session it came from), or it stands above
// (an ancestor of an acting process).
//
// Two alerts belong together when an entity that acts in one acts or stands
// above in the other. Two that only have an ancestor in common do not: every
// process of a host has one.
type role string

const (
	acts  role = "acts"
	above role = "above"
)

type entity struct {
	key  string
	role role
}

// entities names what joins the alert of a finding with others.
func entities(f *finding.Finding) []entity {
	var list []entity
	add := func(r role, kind, value string) {
		if value != "" && !slices.Contains(list, entity{kind + ":" + value, r}) {
			list = append(list, entity{kind + ":" + value, r})
		}
	}
	if f.Source == finding.SourceAntivirus {
		// The file is what it is about; in a behaviour, files are victims.
		for _, e := range f.Evidence {
			if e.File != nil {
				add(acts, "sha256", e.File.Hashes.SHA256)
				add(acts, "path", e.File.Path)
			}
		}
	}
	if f.Severity > finding.Informational {
		// What is only for information, such as a test file, does not make the
		// rest of a person's session suspicious; anything else does.
		add(acts, "session", session(f.Tree))
		addProcesses(f.Tree, add)
	}
	slices.SortFunc(list, func(a, b entity) int { return strings.Compare(a.key+string(a.role), b.key+string(b.role)) })
	return list
}

// addProcesses adds a tree: the acting process and its ancestors, nearest
// first, and then others that took part.
func addProcesses(tree []event.Process, add func(r role, kind, value string)) {
	parent, lineage := event.ProcessKey{}, true
	for i, p := range tree {
		lineage = lineage && (i == 0 || p.Key.Same(parent))
		switch {
		case i == 0 || !lineage:
			add(acts, "process", stable(p.Key))
		case p.Key.PID > 1:
			add(above, "process", stable(p.Key))
		}
		parent = p.Parent
	}
}

// stable names a process the same way whether its start is exact or was
// rounded to the clock tick by /proc.
func stable(k event.ProcessKey) string {
	if k.IsZero() {
		return ""
	}
	return fmt.Sprintf("%s/%d/%d", k.Boot, k.PID, k.Start/uint64(10*time.Millisecond))
}

// session names the Unix session that the acting process belongs to: by its
// leader where the tree has it, which tells sessions with a reused number
// apart.
func session(tree []event.Process) string {
	if len(tree) == 0 || tree[0].Session <= 1 {
		return ""
	}
	for _, p := range tree {
		if uint32(p.Key.PID) == tree[0].Session {
			return stable(p.Key)
		}
	}
	return fmt.Sprintf("%s/%d", tree[0].Key.Boot, tree[0].Session)
}

// foldKey is the same for findings that tell of one thing: of a threat in a
// file, or of a rule and the process that it is about.
func foldKey(f *finding.Finding) string {
	parts := []string{string(f.Device), string(f.Source), fmt.Sprint(f.Test)}
	switch {
	case f.Source == finding.SourceAntivirus && f.Threat != nil:
		parts = append(parts, f.Threat.Name, mainPath(f))
	case len(f.Tree) > 0:
		parts = append(parts, f.Rule.ID, stable(f.Tree[0].Key))
	default:
		parts = append(parts, string(f.ID))
	}
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

func mainPath(f *finding.Finding) string {
	for _, e := range f.Evidence {
		if e.File != nil {
			return e.File.Path
		}
	}
	return ""
}

// prevented reports whether what was found could not do anything.
func prevented(s finding.State) bool {
	return s == finding.Blocked || s == finding.Quarantined || s == finding.Removed
}

// severity of an alert: malware that was prevented is for information.
func severity(f *finding.Finding) finding.Severity {
	if f.Source == finding.SourceAntivirus && prevented(f.State) {
		return finding.Informational
	}
	return f.Severity
}

// title of an alert: malware is named by its family and what became of it, in
// the words that people know; a behaviour by its rule.
func title(f *finding.Finding) string {
	if f.Source != finding.SourceAntivirus || f.Threat == nil || f.Threat.Name == "" {
		return f.Title
	}
	_, family, ok := strings.Cut(f.Threat.Name, "/")
	if !ok {
		family = f.Threat.Name
	}
	if ext := path.Ext(family); ext != "" && ext != family {
		family = strings.TrimSuffix(family, ext) // the variant
	}
	if prevented(f.State) {
		return "'" + family + "' malware was prevented"
	}
	return "'" + family + "' malware was detected"
}
