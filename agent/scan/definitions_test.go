package scan_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"komainu/agent/scan"
	"komainu/content/definitions"
	"komainu/fault"
	"komainu/finding"
)

const head = "komainu-definitions 1\nversion 1.2.3\nupdated 2026-01-02T03:04:05Z\n"

func TestEmbedded(t *testing.T) {
	d := scan.Embedded()
	if d.Version() == "" || d.Updated().IsZero() || d.Count() == 0 {
		t.Errorf("%v", d)
	}
	// Whoever scans this repository, with this engine or another, must not
	// find EICAR in the definitions.
	if bytes.Contains(definitions.Base, eicar()) || bytes.Contains(definitions.Base, sample()) {
		t.Error("the definitions hold a test file in clear")
	}
	if v := scanBytes(t, engine(scan.DefaultLimits()), definitions.Base, scan.Options{}); v.Outcome != finding.Clean {
		t.Errorf("the definitions are %+v", v)
	}
}

func TestReadDefinitions(t *testing.T) {
	secret := []byte("an unlikely content")
	text := fmt.Sprintf("%scount 1\n\n# a comment\nhash %x Trojan:Linux/Unlikely.A!x\n", head, sha256.Sum256(secret))
	d, err := scan.ReadDefinitions(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if d.Version() != "1.2.3" || d.Count() != 1 || d.Updated().Year() != 2026 {
		t.Errorf("%v", d)
	}
	if v := scanBytes(t, scan.New(d, scan.DefaultLimits()), secret, scan.Options{}); v.Threat != "Trojan:Linux/Unlikely.A!x" || v.Type != "trojan" {
		t.Errorf("%+v", v)
	}
}

func TestBadDefinitions(t *testing.T) {
	for text, want := range map[string]fault.Kind{
		"":                                   fault.Invalid,
		"komainu-definitions 2\n":            fault.Unsupported,
		"something else\n":                   fault.Invalid,
		head:                                 fault.Invalid,
		head + "count -1\n":                  fault.Invalid,
		head + "count 1\n":                   fault.Invalid, // cut
		head + "count 0\nfind 00 A:b/c\n":    fault.Invalid, // more than promised
		head + "count 1\nfind 0011 Aa:b/c\n": fault.Invalid, // short literal
		head + "count 1\nhash 00 Aa:b/c\n":   fault.Invalid,
		head + "count 1\nfind " + strings.Repeat("ab", 20) + " not-a-name\n": fault.Invalid,
		head + "count 1\nwhole abcd 1 Aa:b/c\n":                              fault.Invalid, // shorter than its bytes
		head + "count 1\nwhole abcd 9999999 Aa:b/c\n":                        fault.Invalid,
		head + "count 1\nmagic abcd Aa:b/c\n":                                fault.Invalid,
		head + "count 1\nfind " + strings.Repeat("a", 9000) + " Aa:b/c\n":    fault.Invalid, // long line
		"komainu-definitions 1\nversion ../../x\n":                           fault.Invalid,
		"komainu-definitions 1\nversion 1.2\nupdated yesterday\n":            fault.Invalid,
	} {
		if _, err := scan.ReadDefinitions(strings.NewReader(text)); !fault.Is(err, want) {
			t.Errorf("%.60q: %v", text, err)
		}
	}
}

func FuzzReadDefinitions(f *testing.F) {
	f.Add(definitions.Base)
	f.Add([]byte(head + "count 1\nwhole abcd 10 Aa:b/c\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := scan.ReadDefinitions(bytes.NewReader(text))
		if err != nil {
			return
		}
		scanBytes(t, scan.New(d, scan.DefaultLimits()), text, scan.Options{})
	})
}
