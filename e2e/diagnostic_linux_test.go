package e2e

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// maxDiagnostics is more than an archive that people attach to a ticket takes.
const maxDiagnostics = 5 << 20

// diagnosticsTellNoSecrets makes a diagnostic archive of the running agent and
// looks in every file of it for what must not leave the host.
func (s *stack) diagnosticsTellNoSecrets(state string) {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(state, "identity.json"))
	s.must(err)
	var identity struct{ Key, Certificate string }
	s.must(json.Unmarshal(text, &identity))
	secrets := map[string]string{"a private key": "PRIVATE KEY", "a join token": "kmj1."}
	for line := range strings.Lines(identity.Key) {
		if line = strings.TrimSpace(line); len(line) > 40 {
			secrets["a line of the key of this device"] = line
		}
	}
	if len(secrets) != 3 {
		s.t.Fatal("the key of the device was not found")
	}
	dir := s.t.TempDir()
	s.do("diagnostic", "create", "--path", dir)
	files, err := filepath.Glob(filepath.Join(dir, "*.zip"))
	s.must(err)
	if len(files) != 1 {
		s.t.Fatalf("archives: %v", files)
	}
	archive, err := os.ReadFile(files[0])
	s.must(err)
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	s.must(err)
	var total int64
	manifest, names := "", []string{}
	for _, f := range z.File {
		r, err := f.Open()
		s.must(err)
		content, err := io.ReadAll(io.LimitReader(r, maxDiagnostics))
		s.must(err)
		total += int64(len(content))
		for what, secret := range secrets {
			if bytes.Contains(content, []byte(secret)) {
				s.t.Errorf("%s of the archive holds %s", f.Name, what)
			}
		}
		if f.Name == "MANIFEST.txt" {
			manifest = string(content)
		} else {
			names = append(names, f.Name)
		}
	}
	for _, name := range names {
		if !strings.Contains(manifest, name) {
			s.t.Errorf("the manifest does not name %s", name)
		}
	}
	if len(names) < 5 || total >= maxDiagnostics {
		s.t.Errorf("%d files with %d bytes", len(names), total)
	}
}
