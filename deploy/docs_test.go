package deploy_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"komainu/deploy"
)

var update = flag.Bool("update", false, "write the list of reasons into the documentation")

// TestReasonsAreDocumented holds the list for people against the catalogue.
func TestReasonsAreDocumented(t *testing.T) {
	const file, begin, end = "../docs/onboarding.md", "<!-- reasons -->\n", "<!-- end of reasons -->\n"
	var list strings.Builder
	list.WriteString("\n| name | reason | what to do |\n|---|---|---|\n")
	for _, id := range deploy.ReasonIDs() {
		r := deploy.ReasonOf(id, "")
		fmt.Fprintf(&list, "| `%s` | %s | %s |\n", id, r.Text, r.Remedy)
	}
	list.WriteString("\n")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the reasons", file)
	}
	if *update {
		if err := os.WriteFile(file, []byte(before+begin+list.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != list.String() {
		t.Errorf("the reasons in %s are not those of the catalogue; go test ./deploy -run TestReasonsAreDocumented -update", file)
	}
	for _, s := range deploy.States() {
		if !strings.Contains(before, "| `"+string(s)+"` |") {
			t.Errorf("%s does not say what the state %s means", file, s)
		}
	}
}
