package cli

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var verbs = regexp.MustCompile(`%(\[\d+\])?[-+# 0]*\d*[a-z]`)

// TestEveryMessageIsInJapanese reads the source, so that a text is found
// wherever it stands.
func TestEveryMessageIsInJapanese(t *testing.T) {
	files := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(files, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && v.Names[0].Name == "msgAliasLong" {
				return false // under its other name the command speaks English
			}
			lit, ok := n.(*ast.CompositeLit)
			if !ok || len(lit.Elts) != 2 {
				return true
			}
			if name, ok := lit.Type.(*ast.Ident); lit.Type != nil && (!ok || name.Name != "text") {
				return true
			}
			en, isEN := word(lit.Elts[0])
			ja, isJA := word(lit.Elts[1])
			if !isEN || !isJA {
				return true
			}
			seen++
			if en == "" || ja == "" || en == ja {
				t.Errorf("%s: %q is %q in Japanese", files.Position(lit.Pos()), en, ja)
			}
			if a, b := sortedVerbs(en), sortedVerbs(ja); !slices.Equal(a, b) {
				t.Errorf("%s: %q takes %q, its Japanese %q takes %q", files.Position(lit.Pos()), en, a, ja, b)
			}
			return true
		})
	}
	if seen < 150 {
		t.Errorf("only %d texts were found", seen)
	}
}

// word returns the value of a string literal.
func word(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

func sortedVerbs(s string) []string {
	all := verbs.FindAllString(s, -1)
	slices.Sort(all)
	return all
}
