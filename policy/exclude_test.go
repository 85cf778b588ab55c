package policy_test

import (
	"path"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"komainu/policy"
)

func TestMatcher(t *testing.T) {
	for _, c := range []struct {
		typ           policy.ExclusionType
		value         string
		file, process string
		want          bool
	}{
		{policy.ExcludeFile, "/srv/a.txt", "/srv/a.txt", "", true},
		{policy.ExcludeFile, "/srv/a.txt", "/srv/a.txt.old", "", false},
		{policy.ExcludeFile, "/srv/*.txt", "/srv/b.txt", "", true},
		{policy.ExcludeFile, "/srv/*.txt", "/srv/sub/b.txt", "", false},
		{policy.ExcludeFile, "/srv/*/b.txt", "/srv/sub/b.txt", "", true},
		{policy.ExcludeFile, "/srv/*/b.txt", "/srv/sub/sub/b.txt", "", false},
		{policy.ExcludeFile, "/srv/*", "/srv/sub/deep/b.txt", "", true},
		{policy.ExcludeFile, "/srv/?.txt", "/srv/a.txt", "", true},
		{policy.ExcludeFile, "/srv?a.txt", "/srv/a.txt", "", false},
		{policy.ExcludeFile, "/srv/[a].txt", "/srv/[a].txt", "", true},
		{policy.ExcludeFile, "/srv/[a].txt", "/srv/a.txt", "", false},
		{policy.ExcludeFolder, "/srv/cache/", "/srv/cache/x/y", "", true},
		{policy.ExcludeFolder, "/srv/cache", "/srv/cached/x", "", false},
		{policy.ExcludeFolder, "/srv/*/cache", "/srv/web/cache/x/y", "", true},
		{policy.ExcludeFolder, "/srv/*/cache", "/srv/web/cached/x", "", false},
		{policy.ExcludeFolder, "/srv/*/cache", "/srv/web/deep/cache/x", "", false},
		{policy.ExcludeFolder, "/", "/etc/passwd", "", true},
		{policy.ExcludeExtension, ".log", "/var/log/a.log", "", true},
		{policy.ExcludeExtension, ".log", "/var/log/.log", "", false},
		{policy.ExcludeExtension, ".tar.gz", "/srv/a.tar.gz", "", true},
		{policy.ExcludeExtension, ".log", "/var/a.log/b", "", false},
		{policy.ExcludeProcess, "/usr/bin/cat", "/srv/a", "/usr/bin/cat", true},
		{policy.ExcludeProcess, "/usr/bin/cat", "/srv/a", "/tmp/usr/bin/cat", false},
		{policy.ExcludeProcess, "cat", "/srv/a", "/usr/bin/cat", true},
		{policy.ExcludeProcess, "cat", "/srv/a", "", false},
		{policy.ExcludeProcess, "/opt/*/run", "/srv/a", "/opt/v1/run", true},
	} {
		m := policy.NewMatcher([]policy.Exclusion{{Type: c.typ, Value: c.value, Scope: policy.ScopeEPP}}, policy.ScopeEPP)
		if x, got := m.Match(c.file, c.process); got != c.want || got && x.Value != c.value {
			t.Errorf("%s %q: Match(%q, %q) = %v, %v", c.typ, c.value, c.file, c.process, x, got)
		}
	}
}

func TestMatcherScopes(t *testing.T) {
	list := []policy.Exclusion{
		{Type: policy.ExcludeFile, Value: "/a", Scope: policy.ScopeEPP},
		{Type: policy.ExcludeFile, Value: "/b", Scope: policy.ScopeGlobal},
	}
	onDemand := policy.NewMatcher(list, policy.ScopeEPP)
	onAccess := policy.NewMatcher(list, policy.ScopeEPP, policy.ScopeGlobal)
	for file, want := range map[string][2]bool{"/a": {true, true}, "/b": {false, true}, "/c": {false, false}} {
		_, d := onDemand.Match(file, "")
		_, a := onAccess.Match(file, "")
		if got := [2]bool{d, a}; got != want {
			t.Errorf("%s: on demand and on access %v, want %v", file, got, want)
		}
	}
	if _, ok := (*policy.Matcher)(nil).Match("/a", ""); ok {
		t.Error("no matcher, no exclusion")
	}
}

func TestMatcherFolder(t *testing.T) {
	m := policy.NewMatcher([]policy.Exclusion{
		{Type: policy.ExcludeFolder, Value: "/srv/cache", Scope: policy.ScopeEPP},
		{Type: policy.ExcludeFile, Value: "/srv/file", Scope: policy.ScopeEPP},
	}, policy.ScopeEPP)
	for dir, want := range map[string]bool{"/srv/cache": true, "/srv/cache/deep": true, "/srv": false, "/srv/file": false} {
		if m.Folder(dir) != want {
			t.Errorf("Folder(%q) = %v", dir, !want)
		}
	}
}

// TestGlobAgainstPathMatch compares with the standard library where both
// mean the same: no * at the end, no character classes.
func TestGlobAgainstPathMatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := "/" + rapid.StringMatching(`[ab*?/]{0,8}[ab?]`).Draw(t, "pattern")
		name := "/" + rapid.StringMatching(`[ab/]{0,8}[ab]`).Draw(t, "name")
		if path.Clean(pattern) != pattern || path.Clean(name) != name || !strings.ContainsAny(pattern, "*?") {
			t.Skip("not a clean path with a wildcard")
		}
		want, err := path.Match(pattern, name)
		if err != nil {
			t.Fatal(err)
		}
		m := policy.NewMatcher([]policy.Exclusion{{Type: policy.ExcludeFile, Value: pattern, Scope: policy.ScopeEPP}}, policy.ScopeEPP)
		if _, got := m.Match(name, ""); got != want {
			t.Fatalf("%q against %q: %v, path.Match says %v", pattern, name, got, want)
		}
	})
}
