package komainu

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// module is the prefix of every import of ours.
const module = "komainu/"

// layer says what the packages that match pkg may import of ours. A pattern
// that ends in a slash covers everything below it; the longest match counts.
type layer struct {
	pkg string
	may []string
}

// shared is what every part and slice may speak: the vocabulary and leaves.
var shared = []string{"event", "finding", "policy", "health", "fault", "drill", "deploy", "internal/"}

func with(more ...string) []string { return append(more, shared...) }

// layers is the map of the house. A package that no line covers fails the
// test, so the map stays complete; an exception is a line with its reason.
var layers = []layer{
	// Vocabulary: what both halves talk about.
	{"event", nil},
	{"policy", nil},
	{"health", nil},
	{"fault", nil},
	{"drill", nil},
	{"deploy", nil},
	{"deploy/", []string{"deploy", "fault"}}, // ways to a host
	{"finding", []string{"event"}},
	{"wire", []string{"wire/", "event", "finding", "policy", "health", "fault", "drill", "deploy"}},
	{"wire/", nil}, // generated
	{"internal/", nil},
	{"content/", nil},

	// The agent: parts do not know each other, package agent joins them.
	{"agent", with("agent/", "content/", "wire")}, // encodes what the spool keeps
	{"agent/", shared},
	{"agent/sensor", with("agent/sensor/")},  // it chooses the platform's back end
	{"agent/sensor/", with("agent/sensor/")}, // back ends share the record types of the sensor
	{"agent/rules", with("content/")},        // the shipped rules are data
	{"agent/scan", with("content/")},         // the shipped definitions are data
	{"agent/link", with("wire")},             // the only part that speaks the protocol
	{"agent/selftest", with("content/")},     // the EDR test is data
	{"agent/cli", with("agent/localapi")},    // the command line is the client of the local API

	// The control plane: slices do not know each other, package control joins them.
	{"control", with("control/", "content/", "wire")}, // hands the codec of wire to the store
	{"control/", with("control/db", "control/rest", "control/access", "control/seal")},
	{"control/db", shared},
	{"control/rest", shared},
	{"control/seal", shared},
	{"control/access", with("control/db", "control/rest")},
	{"control/eventstore", with("control/eventstore/")},
	{"control/eventstore/", with("control/eventstore")},
	{"control/ingest", with("wire", "control/db", "control/rest")},
	{"control/gateway", with("wire", "control/db", "control/rest")},
	{"control/downloads", with("content/", "control/rest")},
	{"control/connector", with("control/db", "control/rest", "control/access", "control/seal", "control/machine", "control/connector/", "deploy/")}, // inventories are machines
	{"control/connector/", with("control/connector/cloud")},                                      // clouds do not know each other
	{"control/onboard", with("control/db", "control/rest", "control/access", "control/machine")}, // works on machines
	{"control/client", shared},

	// Commands import one half each.
	{"cmd/komainud", []string{"agent", "fault"}},
	{"cmd/komainu", []string{"agent/cli", "fault"}},
	{"cmd/komainu-control", []string{"control", "fault"}},
	{"cmd/komainuctl", []string{"control/client", "fault", "deploy", "deploy/remote"}}, // deploy works from the workstation

	// The front door and the whole-system tests stand outside of the product.
	{"dev", with("dev/", "control/client")},
	{"dev/", with("dev/", "control/client")},
	{"e2e", with("control/client", "agent/localapi")},
}

// foreign says which third-party modules only some packages may import.
// Everything else is free: the licence check and review decide there.
var foreign = []struct {
	module string
	only   []string
	why    string
}{
	{"github.com/cilium/ebpf", []string{"agent/sensor/"}, "kernel programs belong to the sensor"},
	{"modernc.org/sqlite", []string{"control/db"}, "one place opens the state"},
	{"github.com/duckdb/duckdb-go", []string{"control/eventstore/"}, "one place opens the event store"},
	{"github.com/nats-io", []string{"control/queue"}, "one place knows the queue"},
	{"github.com/spf13/cobra", []string{"agent/cli", "cmd/komainuctl", "internal/manpage"}, "commands only"},
	{"github.com/aws/aws-sdk-go-v2", []string{"control/connector/aws"}, "one place knows each cloud"},
	{"github.com/Azure/azure-sdk-for-go", []string{"control/connector/azure"}, "one place knows each cloud"},
	{"google.golang.org/api", []string{"control/connector/gcp"}, "one place knows each cloud"},
	{"github.com/lxzan/gws", []string{"agent/link", "control/gateway"}, "the two ends of the link"},
}

// bannedNames say nothing about what a package provides.
var bannedNames = []string{"util", "utils", "common", "helper", "helpers", "misc", "base", "shared", "types", "models", "manager", "service"}

// TestLayers reads the imports of every file itself instead of asking go
// list: that covers all platforms at once, and the go command then knows
// which files the result depends on when it caches it.
func TestLayers(t *testing.T) {
	eachGoFile(t, func(name string, imports []string) {
		from := path.Dir(name)
		may, ok := allowed(from)
		if !ok {
			t.Errorf("%s has no line in layers; add one here and in ARCHITECTURE.md", from)
			return
		}
		for _, imp := range imports {
			if to, ours := strings.CutPrefix(imp, module); ours && !slices.ContainsFunc(may, func(m string) bool { return matches(m, to) }) {
				t.Errorf("%s: %s must not import %s", name, from, to)
			}
			for _, f := range foreign {
				if (imp == f.module || strings.HasPrefix(imp, f.module+"/")) && !slices.ContainsFunc(f.only, func(m string) bool { return matches(m, from) }) {
					t.Errorf("%s: %s must not import %s: %s", name, from, imp, f.why)
				}
			}
		}
		if slices.Contains(bannedNames, path.Base(from)) {
			t.Errorf("%s: a package name says what it provides; %q does not", from, path.Base(from))
		}
	})
}

// TestMapIsComplete checks that ARCHITECTURE.md names every package.
func TestMapIsComplete(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	eachGoFile(t, func(name string, _ []string) {
		dir := path.Dir(name)
		if !seen[dir] && !strings.Contains(string(text), "`"+dir+"`") {
			t.Errorf("ARCHITECTURE.md does not name `%s`", dir)
		}
		seen[dir] = true
	})
}

// TestQueuesAreTested checks that the tests that docs/queues.md names exist.
func TestQueuesAreTested(t *testing.T) {
	text, err := os.ReadFile("docs/queues.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| .* \\| `([a-z/]+)` (Test[A-Za-z]+) \\|$").FindAllStringSubmatch(string(text), -1)
	if len(rows) != strings.Count(string(text), "\n| ")-3 {
		t.Errorf("%d rows name a package and a test", len(rows))
	}
	for _, row := range rows {
		names, err := fs.Glob(os.DirFS(row[1]), "*_test.go")
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(names, func(name string) bool {
			src, err := os.ReadFile(path.Join(row[1], name))
			return err == nil && strings.Contains(string(src), "func "+row[2]+"(")
		}) {
			t.Errorf("%s has no %s", row[1], row[2])
		}
	}
}

// eachGoFile calls f for every Go file of the product that is not a test,
// with its imports. Test files are exempt: tests may join neighbours.
func eachGoFile(t *testing.T, f func(name string, imports []string)) {
	t.Helper()
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "node_modules"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || path.Dir(name) == ".":
			return nil
		}
		src, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, src, parser.ImportsOnly)
		if err != nil {
			return err
		}
		var imports []string
		for _, spec := range file.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			imports = append(imports, imp)
		}
		f(name, imports)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// allowed returns what pkg may import: its own line, else the longest prefix.
func allowed(pkg string) (may []string, ok bool) {
	best := -1
	for _, l := range layers {
		if l.pkg == pkg {
			return l.may, true
		}
		if strings.HasSuffix(l.pkg, "/") && strings.HasPrefix(pkg, l.pkg) && len(l.pkg) > best {
			best, may, ok = len(l.pkg), l.may, true
		}
	}
	return may, ok
}

// matches reports whether the pattern covers the package. A pattern that ends
// in a slash covers the folder and everything below it.
func matches(pattern, pkg string) bool {
	folder, deep := strings.CutSuffix(pattern, "/")
	return pkg == folder || deep && strings.HasPrefix(pkg, pattern)
}
