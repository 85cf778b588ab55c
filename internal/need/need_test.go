package need_test

import (
	"os"
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

func TestKernelOfTheFutureSkips(t *testing.T) {
	t.Run("skips", func(t *testing.T) {
		defer func() {
			if !t.Skipped() {
				t.Error("a kernel of the far future was found")
			}
		}()
		need.Kernel(t, "9999.0")
	})
	t.Run("runs", func(t *testing.T) {
		defer func() {
			if t.Skipped() {
				t.Error("every Linux is newer than 0.1")
			}
		}()
		if _, err := os.Stat("/proc/sys/kernel/osrelease"); err == nil {
			need.Kernel(t, "0.1")
		}
	})
}
