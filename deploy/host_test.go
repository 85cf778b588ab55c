package deploy_test

import (
	"bytes"
	"errors"
	"net"
	"os/exec"
	"strings"
	"testing"

	"komainu/deploy"
)

// shells are those that run our scripts on servers, as far as they are here.
func shells(t *testing.T) (list [][]string) {
	t.Helper()
	for _, shell := range [][]string{{"sh"}, {"bash", "--posix"}, {"dash"}, {"busybox", "sh"}} {
		if _, err := exec.LookPath(shell[0]); err == nil {
			list = append(list, shell)
		}
	}
	return list
}

// ran runs a text with a shell in a folder.
func ran(t *testing.T, shell []string, dir, text string, args ...string) (out string, code int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), shell[0], append(append(append([]string{}, shell[1:]...), "-c", text, "komainu"), args...)...)
	var b bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, &b, &b
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return b.String(), exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), 0
}

// hostPiece runs commands with the functions of the script for hosts.
func hostPiece(t *testing.T, shell []string, commands string, args ...string) (out string, code int) {
	t.Helper()
	functions, _, ok := strings.Cut(deploy.Script, "\naction=")
	if !ok {
		t.Fatal("the script has no place where its functions end")
	}
	return ran(t, shell, t.TempDir(), functions+"\n"+commands, args...)
}

// TestReachWithoutCurl connects as hosts do that have no curl.
func TestReachWithoutCurl(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("bash is not installed, which does it")
	}
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Logf("%s is not tried: %v", address, err)
			continue
		}
		host, port := strings.TrimSuffix(address, ":0"), l.Addr().String()[strings.LastIndex(l.Addr().String(), ":")+1:]
		const noCurl = `has() { [ "$1" != curl ] && command -v "$1" >/dev/null; }; reach "$1" "$2"`
		for _, shell := range shells(t) {
			if out, _ := hostPiece(t, shell, noCurl, host, port); out != "ok\n" {
				t.Errorf("%q reaches %s: %s", shell, address, out)
			}
		}
		l.Close()
		for _, shell := range shells(t) {
			if out, _ := hostPiece(t, shell, noCurl, host, port); out != host+":"+port+" cannot be connected to\n" {
				t.Errorf("%q reaches nobody at %s: %s", shell, address, out)
			}
		}
	}
}

// TestRPMLooksAtNoSignature holds the script to what docs/operations.md says.
func TestRPMLooksAtNoSignature(t *testing.T) {
	for _, shell := range shells(t) {
		out, code := hostPiece(t, shell, `work=. format=rpm; settled() { :; }; crumbs() { :; }; rpm() { echo "$@" >called; }; unpack agent.rpm; cat called`)
		if code != 0 || !strings.Contains(out, "-U ") || !strings.Contains(out, " --nosignature ") || !strings.HasSuffix(out, " agent.rpm\n") {
			t.Errorf("%q: %d, %s", shell, code, out)
		}
	}
}
