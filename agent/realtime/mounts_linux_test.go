package realtime

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const mountinfo = `22 28 0:20 / /proc rw,nosuid - proc proc rw
28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 28 0:25 / /mnt/with\040space\134 rw - tmpfs tmp\011fs rw
32 28 254:0 /sub /srv/bind rw - ext4 /dev/vda rw
33 28 0:40 / /mnt/far rw - nfs4 server:/export rw
34 28 0:41 / /mnt/fuse rw - fuse.sshfs user@host: rw
35 28 0:42 / /var/lib/docker/overlay rw - overlay overlay rw
a line that is not understood
36 28 0:43
`

func TestParseMounts(t *testing.T) {
	want := []Mount{
		{Path: "/", Type: "ext4", Source: "/dev/vda", Device: "254:0"},
		{Path: "/mnt/with space\\", Type: "tmpfs", Source: "tmp\tfs", Device: "0:25"},
		{Path: "/var/lib/docker/overlay", Type: "overlay", Source: "overlay", Device: "0:42"},
	}
	if d := cmp.Diff(want, parseMounts(mountinfo)); d != "" {
		t.Error(d)
	}
}

func FuzzParseMounts(f *testing.F) {
	f.Add(mountinfo)
	f.Fuzz(func(t *testing.T, text string) {
		for _, m := range parseMounts(text) {
			if !strings.HasPrefix(m.Path, "/") || m.Type == "" || m.Device == "" {
				t.Errorf("mount %+v", m)
			}
		}
	})
}
