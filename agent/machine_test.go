package agent

import (
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"komainu/agent/link"
	"komainu/agent/localapi"
	"komainu/deploy"
	"komainu/fault"
	"komainu/health"
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
	if was, _, err := tellCopy(dir, fingerprintOf("aaaa", "1111")); was != nil || err != nil {
		t.Errorf("without an identity: %v, %v", was, err)
	}
	// An identity of a version that did not note the machine.
	text := `{"device":"d1","policyKey":"` + "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=" + `","certificate":"c","key":"k"}`
	if err := os.WriteFile(filepath.Join(dir, "identity.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if was, _, err := tellCopy(dir, fingerprintOf("aaaa", "1111")); was != nil || err != nil {
		t.Errorf("the first look: %v, %v", was, err)
	}
	if id, err := link.Load(dir); err != nil || id.Machine != fingerprintOf("aaaa", "1111").String() {
		t.Errorf("the machine was not noted: %+v, %v", id.Machine, err)
	}
	if was, _, err := tellCopy(dir, fingerprintOf("aaaa", "1111")); was != nil || err != nil {
		t.Errorf("the same machine: %v, %v", was, err)
	}
	was, now, err := tellCopy(dir, fingerprintOf("aaaa", "2222"))
	if err != nil || was == nil || !now || was.Device != "d1" {
		t.Errorf("a copy: %v, %v", was, err)
	}
	if _, err := link.Load(dir); err == nil {
		t.Error("the identity of the other machine is still in use")
	}
	if was, now, err := tellCopy(dir, fingerprintOf("aaaa", "2222")); err != nil || was == nil || was.Device != "d1" || now {
		t.Errorf("the next start of a copy: %v, %v, %v", was, now, err)
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

// TestCopyStaysProtected: a copy goes on with the policy that it came with for
// as long as it has no identity of its own, however often it starts.
func TestCopyStaysProtected(t *testing.T) {
	if thisMachine().String() == "" {
		t.Skip("this machine does not say which one it is")
	}
	dir, sign := t.TempDir(), newSigner(t)
	id := link.Identity{Device: "d1", PolicyKey: sign.pub, Certificate: "c", Key: "k", Machine: fingerprintOf("other", "other").String()}
	text, err := json.Marshal(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "identity.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := mustOpen(t, dir, sign.pub).ApplyPolicy("d1", sign.policy(3, nil)); err != nil {
		t.Fatal(err)
	}
	for start := range 3 {
		w := &worker{cfg: Config{State: dir}, log: slog.New(slog.DiscardHandler)}
		if err := w.openSettings(); err != nil {
			t.Fatal(err)
		}
		if now := w.settings.Now(); !now.Licensed || now.Version != 3 || w.device.Load() != nil {
			t.Errorf("start %d: version %d, licensed %v, device %v", start, now.Version, now.Licensed, w.device.Load())
		}
		if c := w.joinCondition(health.Condition{Code: health.NotEnrolled}); c.Code != health.CopiedMachine || c.Detail != "d1" {
			t.Errorf("start %d: %+v", start, c)
		}
	}
}
