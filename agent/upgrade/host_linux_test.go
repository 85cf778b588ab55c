package upgrade

import (
	"testing"

	"komainu/fault"
)

// TestFullDiskIsTold: package managers say it in words alone.
func TestFullDiskIsTold(t *testing.T) {
	for says, want := range map[string]fault.Kind{
		"dpkg: error processing archive new: cannot copy extracted data: failed to write (No space left on device)": fault.Exhausted,
		"installing package komainu-agent-1.2.0-1.x86_64 needs 30MB on the / filesystem":                            fault.Exhausted,
		"installing package komainu-agent-1.2.0-1.x86_64 needs 4KB more space on the /usr filesystem":               fault.Exhausted,
		"dpkg: dependency problems prevent configuration":                                                           fault.Internal,
	} {
		if err := do(t.Context(), "", "sh", "-c", `echo "$1" >&2; exit 1`, "sh", says); !fault.Is(err, want) {
			t.Errorf("%v is %v", err, fault.KindOf(err))
		}
	}
}
