package spool_test

import (
	"os"
	"path/filepath"
	"testing"

	"komainu/agent/spool"
	"komainu/event"
)

// FuzzNumbers opens what a crash or a full disk may have left of the file of
// epochs: numbers are given all the same, and each once.
func FuzzNumbers(f *testing.F) {
	name := filepath.Join(f.TempDir(), "epoch")
	if _, err := spool.OpenNumbers(name); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(name)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte{})
	f.Add([]byte("18446744073709551615\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		name := filepath.Join(t.TempDir(), "epoch")
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		n, err := spool.OpenNumbers(name)
		if err != nil {
			return
		}
		first, second := n.Next("d", event.FromAgent), n.Next("d", event.FromAgent)
		if first == second || first.Seq == 0 || first.Epoch != n.Epoch() {
			t.Fatalf("%+v, then %+v", first, second)
		}
		again, err := spool.OpenNumbers(name)
		if err != nil || again.Epoch() == n.Epoch() {
			t.Fatalf("the next start has epoch %v, %v", again.Epoch(), err)
		}
	})
}
