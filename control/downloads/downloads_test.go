package downloads_test

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"komainu/control/downloads"
)

// eicarSHA256 is what eicar.org publishes.
const eicarSHA256 = "275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f"

func get(t *testing.T, name string) []byte {
	t.Helper()
	for _, f := range downloads.Files() {
		if f.Name != name {
			continue
		}
		w := httptest.NewRecorder()
		f.ServeHTTP(w, httptest.NewRequest("GET", "/downloads/"+name, nil))
		if !strings.Contains(w.Header().Get("Content-Disposition"), `"`+name+`"`) {
			t.Errorf("%s: headers %v", name, w.Header())
		}
		return w.Body.Bytes()
	}
	t.Fatalf("no file %s", name)
	return nil
}

func member(t *testing.T, archive []byte, name string) []byte {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	f, err := z.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	content, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestEICAR(t *testing.T) {
	for name, content := range map[string][]byte{
		"plain":  get(t, "eicar.com"),
		"text":   get(t, "eicar.com.txt"),
		"zip":    member(t, get(t, "eicar_com.zip"), "eicar.com"),
		"nested": member(t, member(t, get(t, "eicarcom2.zip"), "eicar_com.zip"), "eicar.com"),
	} {
		if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != eicarSHA256 {
			t.Errorf("%s: %d bytes with another hash", name, len(content))
		}
	}
}

func TestEDRTest(t *testing.T) {
	script := get(t, "edr_test_linux.sh")
	if !bytes.HasPrefix(script, []byte("#!")) {
		t.Errorf("script %.20q", script)
	}
	if !bytes.Equal(member(t, get(t, "edr-test-linux.zip"), "edr_test_linux.sh"), script) || !bytes.Equal(member(t, get(t, "MDE-Linux-EDR-DIY.zip"), "mde_linux_edr_diy.sh"), script) {
		t.Error("the archives hold another script")
	}
}
