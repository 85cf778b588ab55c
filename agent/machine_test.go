package agent

import (
	"os"
	"path/filepath"
	"testing"

	"komainu/agent/link"
	"komainu/agent/localapi"
	"komainu/deploy"
	"komainu/fault"
)

func TestMachinesAreToldApart(t *testing.T) {
	a := fingerprintOf("aaaa", "1111")
	for name, c := range map[string]struct {
		other fingerprint
		want  bool
	}{
		"itself":                     {fingerprintOf("aaaa", "1111"), false},
		"in capitals":                {fingerprintOf("AAAA", "1111"), false},
		"cloned by a hypervisor":     {fingerprintOf("aaaa", "2222"), true},
		"a container from one image": {fingerprintOf("bbbb", "1111"), true},
		"another":                    {fingerprintOf("bbbb", "2222"), true},
		"that does not say":          {fingerprintOf("", ""), false},
		"without firmware":           {fingerprintOf("aaaa", ""), false},
		"without firmware, another":  {fingerprintOf("bbbb", ""), true},
	} {
		if got := a.another(c.other); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
		if got := parseFingerprint(a.String()).another(parseFingerprint(c.other.String())); got != c.want {
			t.Errorf("%s, as it is noted: %v", name, got)
		}
	}
}

func TestGoldenImageIsNotItsCopy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "image")
	for name, c := range map[string]struct {
		text string
		here fingerprint
		want bool
	}{
		"where_it_was_made":   {"aaaa\n1111\n", fingerprintOf("aaaa", "1111"), true},
		"a_copy":              {"aaaa\n1111\n", fingerprintOf("aaaa", "2222"), false},
		"a_copy_with_new_ids": {"aaaa\n1111\n", fingerprintOf("bbbb", "2222"), false},
		"without_firmware":    {"aaaa\n", fingerprintOf("aaaa", ""), true},
		"without_ids":         {"", fingerprintOf("aaaa", "1111"), false},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := isImage(file, c.here); err != nil || got != c.want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if got, err := isImage(filepath.Join(t.TempDir(), "none"), fingerprintOf("aaaa", "")); err != nil || got {
		t.Errorf("no image: %v, %v", got, err)
	}
}

func TestIdentityOfAnotherMachineIsPutAway(t *testing.T) {
	dir := t.TempDir()
	if was, err := tellCopy(dir, fingerprintOf("aaaa", "1111")); was != nil || err != nil {
		t.Errorf("without an identity: %v, %v", was, err)
	}
	// An identity of a version that did not note the machine.
	text := `{"device":"d1","policyKey":"` + "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" + `","certificate":"c","key":"k"}`
	if err := os.WriteFile(filepath.Join(dir, "identity.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if was, err := tellCopy(dir, fingerprintOf("aaaa", "1111")); was != nil || err != nil {
		t.Errorf("the first look: %v, %v", was, err)
	}
	if id, err := link.Load(dir); err != nil || id.Machine != fingerprintOf("aaaa", "1111").String() {
		t.Errorf("the machine was not noted: %+v, %v", id.Machine, err)
	}
	if was, err := tellCopy(dir, fingerprintOf("aaaa", "1111")); was != nil || err != nil {
		t.Errorf("the same machine: %v, %v", was, err)
	}
	was, err := tellCopy(dir, fingerprintOf("aaaa", "2222"))
	if err != nil || was == nil || was.Device != "d1" {
		t.Errorf("a copy: %v, %v", was, err)
	}
	if _, err := link.Load(dir); err == nil {
		t.Error("the identity of the other machine is still in use")
	}
	if _, err := os.Stat(filepath.Join(dir, "identity.copied.json")); err != nil {
		t.Error(err)
	}
}

// TestACopyProvesNothing: a machine that was copied while its agent ran has the
// identity still.
func TestACopyProvesNothing(t *testing.T) {
	id := link.Identity{Device: "d", Machine: fingerprintOf("aaaa", "1111").String()}
	if _, err := prove(id, fingerprintOf("aaaa", "2222"), localapi.ProofRequest{Nonce: deploy.NewNonce()}); !fault.Is(err, fault.Conflict) {
		t.Error(err)
	}
	// On its own machine it would, had it a key.
	if _, err := prove(id, fingerprintOf("aaaa", "1111"), localapi.ProofRequest{Nonce: deploy.NewNonce()}); !fault.Is(err, fault.Invalid) {
		t.Error(err)
	}
}
