package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestGoldenImage prepares a state folder as an image has it, and starts the
// real agent on machines of that image: the one where it was prepared, a copy
// of it, and a copy of the copy. What tells machines apart here is their
// machine-id, as it is for containers.
func TestGoldenImage(t *testing.T) {
	if !onStage(t) {
		return
	}
	s := newStack(t)
	s.startControl("127.0.0.1:0")
	s.must(os.MkdirAll("/etc/komainu", 0o755))
	s.must(unix.Mount("komainu-etc", "/etc/komainu", "tmpfs", 0, "mode=0755,size=1m"))
	var token struct{ Token string }
	s.api("POST", "/api/v1/environments/"+s.environment()+"/join-tokens", map[string]any{"label": "image", "maxUses": 10}, &token)
	s.machine("11111111111111111111111111111111")
	s.must(os.WriteFile("/etc/komainu/join-token", []byte(token.Token+"\n"), 0o600))
	product, _ := os.ReadFile("/sys/class/dmi/id/product_uuid")
	s.must(os.WriteFile("/etc/komainu/image", []byte("11111111111111111111111111111111\n"+string(product)), 0o600))

	// The image itself stays nobody.
	s.startAgent()
	s.link("this is a golden image")
	if n := len(s.devices()); n != 0 {
		t.Errorf("the image has enrolled: %d devices", n)
	}
	s.stopAgent()

	// A copy becomes a device, and forgets the token.
	s.machine("22222222222222222222222222222222")
	s.startAgent()
	s.eventually("the copy has enrolled", func() bool { return len(s.devices()) == 1 })
	s.link("https://")
	for _, file := range []string{"/etc/komainu/join-token", "/etc/komainu/image"} {
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("%s is still there: %v", file, err)
		}
	}
	first := s.devices()[0]
	s.stopAgent()
	original := filepath.Join(s.dir, "original")
	if out, err := exec.CommandContext(t.Context(), "cp", "-a", filepath.Join(s.dir, "agent"), original).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	// A copy of it does not take its place.
	s.machine("33333333333333333333333333333333")
	s.startAgent()
	s.link("is a copy of one that is enrolled as device " + first)
	if got := s.devices(); len(got) != 1 {
		t.Errorf("devices %v", got)
	}
	// With a token it enrols by itself, as somebody else.
	s.must(os.WriteFile("/etc/komainu/join-token", []byte(token.Token+"\n"), 0o600))
	s.stopAgent()
	s.startAgent()
	s.eventually("the second copy has enrolled", func() bool { return len(s.devices()) == 2 })
	s.link("https://")
	s.stopAgent()

	// The first one is still who it was.
	s.must(os.RemoveAll(filepath.Join(s.dir, "agent")))
	s.must(os.Rename(original, filepath.Join(s.dir, "agent")))
	s.machine("22222222222222222222222222222222")
	s.startAgent()
	s.link("https://")
	if got := s.devices(); len(got) != 2 {
		t.Errorf("devices %v", got)
	}
}

// machine makes this stage another machine.
func (s *stack) machine(id string) {
	s.t.Helper()
	_ = unix.Unmount("/etc/machine-id", unix.MNT_DETACH) // of the machine before, if any
	file := filepath.Join(s.dir, "machine-id-"+id)
	s.must(os.WriteFile(file, []byte(id+"\n"), 0o444))
	s.must(unix.Mount(file, "/etc/machine-id", "", unix.MS_BIND, ""))
	s.t.Cleanup(func() { _ = unix.Unmount("/etc/machine-id", unix.MNT_DETACH) })
}

func (s *stack) stopAgent() {
	s.t.Helper()
	s.must(s.agent.Process.Signal(unix.SIGTERM))
	_ = s.agent.Wait()
}

// link waits until the agent says this of its link.
func (s *stack) link(want string) {
	s.t.Helper()
	s.eventually("the agent says: "+want, func() bool {
		out, _ := s.cli("health", "-o", "json")
		return strings.Contains(out, want)
	})
}

func (s *stack) devices() (list []string) {
	s.t.Helper()
	var answer struct{ Items []struct{ ID string } }
	s.api("GET", "/api/v1/devices", nil, &answer)
	for _, d := range answer.Items {
		list = append(list, d.ID)
	}
	return list
}
