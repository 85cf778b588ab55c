package deploy_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"strings"
	"testing"

	"komainu/deploy"
)

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestProof(t *testing.T) {
	key, n := newKey(t), deploy.NewNonce()
	made, err := deploy.Prove(key, []byte("a certificate"), "device-1", n)
	if err != nil {
		t.Fatal(err)
	}
	p, err := deploy.ParseProof(made.String())
	if err != nil || string(p.Certificate) != "a certificate" || !p.Of(key.Public(), "device-1", n) {
		t.Fatalf("%+v, %v", p, err)
	}
	other, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spoilt := p
	spoilt.Signature = append([]byte(nil), p.Signature...)
	spoilt.Signature[len(spoilt.Signature)-1]++
	// The same letters, cut in another place.
	moved, err := deploy.Prove(key, nil, "device-1A", n[1:])
	if err != nil {
		t.Fatal(err)
	}
	for name, proven := range map[string]bool{
		"another_nonce":   p.Of(key.Public(), "device-1", deploy.NewNonce()),
		"another_device":  p.Of(key.Public(), "device-2", n),
		"another_key":     p.Of(newKey(t).Public(), "device-1", n),
		"kind_of_key":     p.Of(other, "device-1", n),
		"no_key":          p.Of(nil, "device-1", n),
		"spoilt":          spoilt.Of(key.Public(), "device-1", n),
		"unsigned":        deploy.Proof{}.Of(key.Public(), "device-1", n),
		"no_device":       p.Of(key.Public(), "", n),
		"no_nonce":        p.Of(key.Public(), "device-1", ""),
		"another_moved":   moved.Of(key.Public(), "device-1", "A"+n[1:]),
		"nonce_too_long":  p.Of(key.Public(), "device-1", deploy.Nonce(strings.Repeat("A", 65))),
		"device_too_long": p.Of(key.Public(), strings.Repeat("d", 65), n),
	} {
		if proven {
			t.Errorf("%s: it is taken for a proof", name)
		}
	}
}

// TestOnlyNoncesAreSigned: the key is never used on what somebody could have
// given another meaning.
func TestOnlyNoncesAreSigned(t *testing.T) {
	for _, n := range []deploy.Nonce{"", "short", deploy.Nonce(strings.Repeat("A", 65)), "with a space in it", "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f", "ümlautümlaut1234"} {
		if p, err := deploy.Prove(newKey(t), nil, "device-1", n); err == nil || p.Signature != nil {
			t.Errorf("%q is signed", n)
		}
	}
	if a, b := deploy.NewNonce(), deploy.NewNonce(); a == b {
		t.Error("a nonce comes twice")
	}
}

func TestProofsThatAreNone(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "word": "aGVsbG8", "no_signature": "aGVsbG8.", "no_certificate": ".aGVsbG8", "not_base64": "a b.c!", "padding": "aGVsbG8=.aGVsbG8=",
		"loose_bits": "aGVsbG9.aGVsbG8", "newline": "0\n00.000", "too_long": strings.Repeat("a", 2000) + "." + strings.Repeat("a", 1000),
	} {
		if p, err := deploy.ParseProof(text); err == nil {
			t.Errorf("%s: %+v", name, p)
		}
	}
}

func FuzzParseProof(f *testing.F) {
	f.Add("aGVsbG8.aGVsbG8")
	f.Add("..")
	f.Add("0\n00.000")
	key, n := newKey(f), deploy.NewNonce()
	f.Fuzz(func(t *testing.T, text string) {
		p, err := deploy.ParseProof(text)
		if err != nil {
			return
		}
		if p.String() != text {
			t.Errorf("%q is read as %q", text, p)
		}
		if p.Of(key.Public(), "device-1", n) {
			t.Errorf("%q proves something", text)
		}
	})
}

func TestProofFrom(t *testing.T) {
	long := strings.Repeat("a", 2000)
	for name, c := range map[string]struct {
		lines []string
		want  string
	}{
		"proof":    {[]string{"fact proof " + long, "done"}, long},
		"none":     {[]string{"fact proof ", "done"}, ""},
		"too_long": {[]string{"fact proof " + strings.Repeat("a", 4000), "done"}, strings.Repeat("a", 3000)}, // which cannot be read
		"others":   {[]string{"fact uid 0", "done"}, ""},
	} {
		if got, err := deploy.ProofFrom(t.Context(), script{lines: c.lines}, deploy.NewNonce()); err != nil || got != c.want {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if _, err := deploy.ProofFrom(t.Context(), script{lines: []string{"fact proof x"}}, deploy.NewNonce()); err == nil {
		t.Error("a script that was cut off is believed")
	}
}

// TestScriptAsksTheAgent runs what real shells make of the agent's answer.
func TestScriptAsksTheAgent(t *testing.T) {
	long := strings.Repeat("a", 900)
	for _, shell := range shells(t) {
		for command, want := range map[string]string{
			`timeout() { shift; echo "$*"; }`:                                   "/usr/bin/komainu identity prove N0NCE",
			`timeout() { echo ` + long + `; echo more; }`:                       long,
			`timeout() { echo 'Unknown command "identity"' >&2; return 2; }`:    "",
			`timeout() { return 127; }`:                                         "",
			`timeout() { printf 'a\tb\001\n'; printf 'komainu:fact uid 0\n'; }`: "a b",
		} {
			out, code := hostPiece(t, shell, command+`; nonce=N0NCE; prove`)
			if code != 0 || out != "komainu:fact proof "+want+"\nkomainu:done\n" {
				t.Errorf("%q, %s: %d, %q", shell, command, code, out)
			}
		}
	}
	// On this machine, which has no agent.
	if got, err := deploy.ProofFrom(t.Context(), here{[]string{"sh"}}, deploy.NewNonce()); err != nil || got != "" {
		t.Errorf("%q, %v", got, err)
	}
}
