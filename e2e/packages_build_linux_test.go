package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"komainu/internal/need"
)

// TestPackagesAreReproducible builds the agent's packages from two clones in
// different folders, signed, and wants the same bytes; and has the programs
// that people use check the signatures.
func TestPackagesAreReproducible(t *testing.T) {
	need.Root(t) // for what it takes and installs, not for what it may
	for _, program := range []string{"git", "gpg", "ar", "rpm", "rpmkeys"} {
		need.Program(t, program)
	}
	k := newKeyring(t)
	var outs []string
	for _, name := range []string{"a", "another/folder with a longer name"} {
		clone, out := filepath.Join(t.TempDir(), name), t.TempDir()
		k.run("git", "clone", "--quiet", "--shared", "..", clone)
		cmd := exec.CommandContext(t.Context(), "go", "run", "./dev", "packages", "-o", out, "-only", "komainu-agent", "-arch", "amd64", "-version", thisVersion, "-sign-key", k.secret)
		cmd.Dir = clone
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%q in %s: %v\n%s", cmd.Args, clone, err, text)
		}
		outs = append(outs, out)
	}
	var names []string
	for _, e := range listed(t, outs[0]) {
		names = append(names, e.Name())
		a, err := os.ReadFile(filepath.Join(outs[0], e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(filepath.Join(outs[1], e.Name())); err != nil || !bytes.Equal(a, b) {
			t.Errorf("two builds of %s differ (%v)", e.Name(), err)
		}
	}
	stem := "komainu-agent_" + thisVersion + "_amd64"
	want := []string{"SHA256SUMS", "SHA256SUMS.asc", "komainu-agent-" + thisVersion + "-1.x86_64.rpm", stem + ".deb", stem + ".tar.gz", stem + ".tar.gz.asc"}
	if !slices.Equal(names, want) || len(listed(t, outs[1])) != len(want) {
		t.Fatalf("what was built is %q", names)
	}
	k.checkDeb(filepath.Join(outs[0], stem+".deb"))
	k.checkRPM(filepath.Join(outs[0], want[2]))
	for _, name := range []string{"SHA256SUMS", stem + ".tar.gz"} {
		file := filepath.Join(outs[0], name)
		k.checkDetached(file, file+".asc")
	}
	k.run("sh", "-c", `cd "$1" && sha256sum --check --strict SHA256SUMS`, "sh", outs[0])
}

func listed(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// keyring is a person's gpg with a key that is made for the test.
type keyring struct {
	t              *testing.T
	home           string
	secret, public string // files with the key
}

func newKeyring(t *testing.T) *keyring {
	t.Helper()
	home, err := os.MkdirTemp("", "kg") // short: gpg-agent has its socket in it
	if err != nil {
		t.Fatal(err)
	}
	k := &keyring{t: t, home: home, secret: filepath.Join(home, "secret.asc"), public: filepath.Join(home, "public.asc")}
	t.Cleanup(func() {
		_ = exec.Command("gpgconf", "--homedir", home, "--kill", "gpg-agent").Run() // it ends by itself, too
		os.RemoveAll(home)
	})
	k.gpg("--passphrase", "", "--faked-system-time", "20250101T000000", "--quick-generate-key", "Komainu test", "rsa3072", "sign", "never")
	k.gpg("--armor", "--output", k.secret, "--export-secret-keys")
	k.gpg("--armor", "--output", k.public, "--export")
	return k
}

func (k *keyring) try(name string, args ...string) (string, error) {
	cmd := exec.CommandContext(k.t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (k *keyring) run(name string, args ...string) string {
	k.t.Helper()
	out, err := k.try(name, args...)
	if err != nil {
		k.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

func (k *keyring) gpg(args ...string) string {
	k.t.Helper()
	return k.run("gpg", append([]string{"--homedir", k.home, "--batch"}, args...)...)
}

// checkDetached verifies a signature, and that it is of these bytes only.
func (k *keyring) checkDetached(file, signature string) {
	k.t.Helper()
	if out := k.gpg("--verify", signature, file); !strings.Contains(out, "Good signature") {
		k.t.Errorf("gpg says of %s:\n%s", filepath.Base(file), out)
	}
	if out, err := k.try("gpg", "--homedir", k.home, "--batch", "--verify", signature, k.changed(file)); err == nil {
		k.t.Errorf("gpg takes a changed %s:\n%s", filepath.Base(file), out)
	}
}

// changed is a copy of a file with another byte in its middle.
func (k *keyring) changed(file string) string {
	k.t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		k.t.Fatal(err)
	}
	text[len(text)/2] ^= 1
	name := filepath.Join(k.t.TempDir(), filepath.Base(file))
	if err := os.WriteFile(name, text, 0o644); err != nil {
		k.t.Fatal(err)
	}
	return name
}

// checkDeb verifies the member _gpgorigin as debsig-verify does: it is a
// signature of the members before it, one after the other.
func (k *keyring) checkDeb(file string) {
	k.t.Helper()
	if members := strings.Fields(k.run("ar", "t", file)); !slices.Equal(members, []string{"debian-binary", "control.tar.gz", "data.tar.gz", "_gpgorigin"}) {
		k.t.Fatalf("the package holds %q", members)
	}
	dir := k.t.TempDir()
	k.run("sh", "-ec", `cd "$1"; ar p "$2" debian-binary >all; ar p "$2" control.tar.gz >>all; ar p "$2" data.tar.gz >>all; ar p "$2" _gpgorigin >signature`, "sh", dir, file)
	k.checkDetached(filepath.Join(dir, "all"), filepath.Join(dir, "signature"))
	if out := k.run("dpkg-deb", "--info", file); !strings.Contains(out, "Package: komainu-agent") {
		k.t.Errorf("dpkg-deb says\n%s", out)
	}
}

func (k *keyring) checkRPM(file string) {
	k.t.Helper()
	database := "_dbpath " + k.t.TempDir()
	if out, err := k.try("rpmkeys", "--define", database, "--checksig", file); err == nil {
		k.t.Errorf("rpm takes the package without knowing the key:\n%s", out)
	}
	k.run("rpmkeys", "--define", database, "--import", k.public)
	if out := k.run("rpmkeys", "--define", database, "--checksig", "--verbose", file); !strings.Contains(out, "Header V4 RSA/SHA256 Signature") || strings.Count(out, "OK") < 3 {
		k.t.Errorf("rpm says\n%s", out)
	}
	if out, err := k.try("rpmkeys", "--define", database, "--checksig", k.changed(file)); err == nil {
		k.t.Errorf("rpm takes a changed package:\n%s", out)
	}
}
