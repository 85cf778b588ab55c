package policy

import (
	"crypto/ed25519"
	"encoding/json"
	"testing"
)

// FuzzOpen opens documents that are signed, so that their content is reached:
// the control plane may be newer, or somebody may have got hold of its key.
func FuzzOpen(f *testing.F) {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	good, err := json.Marshal(&Document{Format: Format, Version: 1, Device: "d", Plan: P2, Licensed: true, Managed: Settings{
		EnforcementLevel: new(RealTime), Filesystems: []FilesystemRule{{Path: "*", Mode: Block}}, Exclusions: []Exclusion{{Type: ExcludeFile, Value: "/a/*?", Scope: ScopeEPP}},
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(`{"format":1,"version":1,"device":"d","plan":"P1","managed":{"exclusions":[{"type":"process","value":"[","scope":"epp"}]}}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, payload []byte) {
		d, err := Open(Signed{Payload: payload, Signature: ed25519.Sign(key, append([]byte(context), payload...))}, key.Public().(ed25519.PublicKey))
		if err != nil {
			return
		}
		if err := d.Validate(); err != nil {
			t.Fatalf("opened and not valid: %v", err)
		}
		e := Merge(d, Settings{})
		e.ModeOf("/srv/www")
		m := NewMatcher(e.Exclusions, ScopeEPP, ScopeGlobal)
		m.Match("/srv/www/a.txt", "/usr/bin/x")
		m.Folder("/srv")
		if signed, err := Sign(d, key); err != nil {
			t.Fatal(err)
		} else if _, err := Open(signed, key.Public().(ed25519.PublicKey)); err != nil {
			t.Fatalf("signed anew it is refused: %v", err)
		}
	})
}

// FuzzMatch holds patterns and paths against each other: whatever they are, an
// exclusion that holds no wildcard matches itself.
func FuzzMatch(f *testing.F) {
	f.Add("/srv/*/x?", "/srv/a/xy")
	f.Add("/***a*b*", "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
	f.Add("/srv/www", "/srv/www")
	f.Fuzz(func(t *testing.T, pattern, file string) {
		for _, kind := range []ExclusionType{ExcludeFile, ExcludeFolder, ExcludeExtension, ExcludeProcess} {
			x := Exclusion{Type: kind, Value: pattern, Scope: ScopeEPP}
			if x.Validate() != nil {
				continue
			}
			m := NewMatcher([]Exclusion{x}, ScopeEPP)
			if got, ok := m.Match(file, file); ok && got != x {
				t.Fatalf("%+v matched as %+v", x, got)
			}
			if _, ok := NewMatcher([]Exclusion{x}, ScopeGlobal).Match(file, file); ok {
				t.Fatalf("%+v matched out of its scope", x)
			}
		}
	})
}
