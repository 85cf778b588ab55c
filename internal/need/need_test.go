package need_test

import (
	"testing"

	"komainu/internal/need"
)

func TestWanted(t *testing.T) {
	t.Setenv(need.Variable, "bpf,root")
	if !need.Wanted("root") || !need.Wanted("bpf") || need.Wanted("kernel") {
		t.Error("the list is misread")
	}
	t.Setenv(need.Variable, "")
	if need.Wanted("") && need.Wanted("root") {
		t.Error("an empty variable promises nothing")
	}
}
