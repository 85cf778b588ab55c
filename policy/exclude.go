package policy

import (
	"path"
	"slices"
	"strings"
)

// Matcher answers whether exclusions keep a file out of protection. It is
// made once per change of policy, is immutable, and is safe for concurrent
// use. A nil Matcher excludes nothing.
//
// Paths are real paths: the caller resolves symbolic links first, and an
// exclusion that names a link matches nothing. Comparison is byte by byte.
type Matcher struct {
	exact     map[string]Exclusion // whole paths of files, without wildcards
	folders   []Exclusion
	globs     []Exclusion // files and folders with wildcards
	suffixes  []Exclusion // extensions
	processes []Exclusion
}

// NewMatcher prepares exclusions of the given scopes; the others are left
// out. On-access protection takes ScopeEPP and ScopeGlobal, a scan on demand
// only ScopeEPP, the sensor only ScopeGlobal.
func NewMatcher(exclusions []Exclusion, scopes ...Scope) *Matcher {
	m := &Matcher{exact: map[string]Exclusion{}}
	for _, x := range exclusions {
		if !slices.Contains(scopes, x.Scope) {
			continue
		}
		wild := strings.ContainsAny(x.Value, "*?")
		switch {
		case x.Type == ExcludeExtension:
			m.suffixes = append(m.suffixes, x)
		case x.Type == ExcludeProcess:
			m.processes = append(m.processes, x)
		case wild:
			m.globs = append(m.globs, x)
		case x.Type == ExcludeFile:
			m.exact[path.Clean(x.Value)] = x
		case x.Type == ExcludeFolder:
			m.folders = append(m.folders, x)
		}
	}
	return m
}

// Match returns the exclusion that keeps the file out, and whether there is
// one. process is the path of the executable that opens it, "" where no
// process does, as in a scan on demand.
func (m *Matcher) Match(file, process string) (Exclusion, bool) {
	if m == nil {
		return Exclusion{}, false
	}
	if x, ok := m.exact[file]; ok {
		return x, true
	}
	for _, x := range m.folders {
		if within(file, path.Clean(x.Value)) {
			return x, true
		}
	}
	for _, x := range m.suffixes {
		if base := path.Base(file); len(base) > len(x.Value) && strings.HasSuffix(base, x.Value) {
			return x, true
		}
	}
	for _, x := range m.globs {
		if glob(path.Clean(x.Value), file, x.Type == ExcludeFolder) {
			return x, true
		}
	}
	if process != "" {
		for _, x := range m.processes {
			if matchProcess(x.Value, process) {
				return x, true
			}
		}
	}
	return Exclusion{}, false
}

// Folder reports whether everything below the folder is excluded, so that a
// walk need not enter it. A false answer promises nothing.
func (m *Matcher) Folder(dir string) bool {
	if m == nil {
		return false
	}
	for _, x := range m.folders {
		if within(dir, path.Clean(x.Value)) {
			return true
		}
	}
	return false
}

func matchProcess(value, process string) bool {
	if !path.IsAbs(value) {
		return glob(value, path.Base(process), false)
	}
	return glob(path.Clean(value), process, false)
}

// glob matches a path with a pattern of * and ?. Both stay within a segment,
// but a * that ends the pattern takes everything that follows. below also
// accepts whatever lies under a folder that matches.
//
// A failed * is retried only from the last one, which keeps the work within
// len(pattern) × len(name): the segments before it are fixed already.
func glob(pattern, name string, below bool) bool {
	p, n := 0, 0
	star, retry := -1, 0
	for {
		switch {
		case p == len(pattern) && (n == len(name) || below && name[n] == '/'):
			return true
		case p < len(pattern) && pattern[p] == '*':
			if p == len(pattern)-1 {
				return true
			}
			star, retry = p, n
			p++
			continue
		case p < len(pattern) && n < len(name) && (pattern[p] == name[n] || pattern[p] == '?' && name[n] != '/'):
			p++
			n++
			continue
		}
		if star < 0 || retry >= len(name) || name[retry] == '/' {
			return false
		}
		retry++
		p, n = star+1, retry
	}
}
