package need

import "testing"

func TestOlder(t *testing.T) {
	for _, c := range []struct {
		release, version string
		want             bool
	}{
		{"6.1.0-18-cloud-amd64\n", "5.19", false},
		{"5.10.0\n", "5.19", true},
		{"5.9.16\n", "5.19", true},
		{"5.19.0-rc1\n", "5.19", false},
		{"what is this", "5.19", true},
	} {
		if got := older(c.release, c.version); got != c.want {
			t.Errorf("older(%q, %q) = %v", c.release, c.version, got)
		}
	}
}
