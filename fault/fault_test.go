package fault_test

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"komainu/fault"
)

func TestKindSurvivesWrapping(t *testing.T) {
	base := fault.New(fault.NotFound, "device %q is not known: %w", "a", fs.ErrNotExist)
	err := fmt.Errorf("open device page: %w", base)
	if got := fault.KindOf(err); got != fault.NotFound {
		t.Errorf("KindOf = %v", got)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error("the cause is lost")
	}
	if want := `open device page: device "a" is not known: file does not exist`; err.Error() != want {
		t.Errorf("message %q", err)
	}
}

func TestOuterKindWins(t *testing.T) {
	err := fault.Wrap(fault.Unavailable, fault.New(fault.Exhausted, "disk is full"), "store is down")
	if got := fault.KindOf(err); got != fault.Unavailable {
		t.Errorf("KindOf = %v", got)
	}
	if want := "store is down: disk is full"; err.Error() != want {
		t.Errorf("message %q", err)
	}
}

func TestNamesRoundTrip(t *testing.T) {
	for k := fault.Internal; k <= fault.NeedsRoot; k++ {
		if got := fault.ParseKind(k.String()); got != k {
			t.Errorf("%v came back as %v", k, got)
		}
	}
	if fault.ParseKind("from_the_future") != fault.Internal {
		t.Error("an unknown kind must read as internal")
	}
}

func TestExit(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errors.New("x"), 1},
		{fault.New(fault.Invalid, "x"), 2},
		{fault.New(fault.NeedsRoot, "x"), 3},
		{fault.New(fault.Unavailable, "x"), 4},
		{fault.New(fault.Managed, "x"), 5},
		{fault.New(fault.Unauthentic, "x"), 6},
		{fault.New(fault.Unsupported, "x"), 7},
	} {
		if got := fault.Exit(c.err); got != c.want {
			t.Errorf("Exit(%v) = %d, want %d", c.err, got, c.want)
		}
	}
}
