package content_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"komainu/agent/content"
	"komainu/fault"
)

// TestPipeOnAMedium puts a pipe in the place of each kind of file. Nobody
// writes to it, and nobody waits for it.
func TestPipeOnAMedium(t *testing.T) {
	h := newHouse(t)
	medium := h.copy()
	for _, pattern := range []string{"metadata/timestamp.json", "metadata/*.snapshot.json", "metadata/*.targets.json"} {
		found, err := filepath.Glob(filepath.Join(medium, pattern))
		if err != nil || len(found) == 0 {
			t.Fatal(found, err)
		}
		pipe := found[len(found)-1] // the newest
		whole, err := os.ReadFile(pipe)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(pipe); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(pipe, 0o600); err != nil {
			t.Fatal(err)
		}
		refused := make(chan error, 1)
		go func() { refused <- h.client.Refresh(t.Context(), content.Folder(medium)) }()
		select {
		case err := <-refused:
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%s is a pipe: %v", pattern, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s is a pipe, and is waited for", pattern)
			if err := os.WriteFile(pipe, nil, 0o600); err != nil { // lets go of who waits
				t.Error(err)
			}
			<-refused
		}
		if err := os.Remove(pipe); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(pipe, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.client.Refresh(t.Context(), content.Folder(medium)); err != nil {
		t.Errorf("the medium as it was: %v", err)
	}
}
