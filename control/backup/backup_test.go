package backup_test

import (
	"bytes"
	"crypto/rand"
	"io"
	"strings"
	"testing"
	"time"

	"komainu/control/backup"
	"komainu/fault"
)

// memory keeps what a backup holds.
type memory map[string]*bytes.Buffer

type file struct{ *bytes.Buffer }

// Close implements io.Closer.
func (file) Close() error { return nil }

func (m memory) open(name string) (io.WriteCloser, error) {
	m[name] = &bytes.Buffer{}
	return file{m[name]}, nil
}

func content(b []byte) func(io.Writer) error {
	return func(w io.Writer) error {
		for len(b) > 0 { // in pieces of any size
			n := min(len(b), 100_003)
			if _, err := w.Write(b[:n]); err != nil {
				return err
			}
			b = b[n:]
		}
		return nil
	}
}

func sample(t *testing.T, files map[string][]byte, order ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := backup.NewWriter(&out, time.Unix(1e9, 0))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range order {
		if err := w.File(name, content(files[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(backup.Manifest{Version: "1", Counts: map[string]int64{"devices": 3}}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestFilesComeBack(t *testing.T) {
	large := make([]byte, 9<<20)
	_, _ = rand.Read(large)
	files := map[string][]byte{"empty": nil, "a/small": []byte("x"), "large": large, "exact": large[:4<<20], "large.part": []byte("y")}
	text := sample(t, files, "empty", "a/small", "large", "exact", "large.part")
	got := memory{}
	m, err := backup.Read(bytes.NewReader(text), got.open)
	if err != nil || m.Counts["devices"] != 3 || len(m.Files) != len(files) {
		t.Fatalf("%+v, %v", m, err)
	}
	for name, want := range files {
		if !bytes.Equal(got[name].Bytes(), want) {
			t.Errorf("%s comes back with %d bytes of %d", name, got[name].Len(), len(want))
		}
	}
}

// TestDamageIsFound cuts a backup at many places and turns bits in it.
func TestDamageIsFound(t *testing.T) {
	text := sample(t, map[string][]byte{"one": bytes.Repeat([]byte("komainu "), 5000), "two": []byte("2")}, "one", "two")
	for at := range text {
		if _, err := backup.Read(bytes.NewReader(text[:at]), memory{}.open); !fault.Is(err, fault.Invalid) {
			t.Fatalf("cut at %d of %d: %v", at, len(text), err)
		}
		spoiled := bytes.Clone(text)
		spoiled[at] ^= 0x10
		got := memory{}
		// A bit of the compression's own may change without changing anything.
		if _, err := backup.Read(bytes.NewReader(spoiled), got.open); err == nil && (got["one"].Len() != 40000 || got["two"].String() != "2") {
			t.Fatalf("a bit at %d of %d: other content, and no error", at, len(text))
		}
	}
}

// TestTheWholeStreamIsRead: whoever writes into a pipe gets rid of all of it,
// and what follows a backup is no part of one.
func TestTheWholeStreamIsRead(t *testing.T) {
	var text []byte
	for size := 0; size < 160<<10; size += 512 { // wherever the compression's blocks end
		text = sample(t, map[string][]byte{"one": make([]byte, size)}, "one")
		out, in := io.Pipe()
		read := make(chan error, 1)
		go func() {
			_, err := backup.Read(out, memory{}.open)
			out.CloseWithError(err)
			read <- err
		}()
		for i := range text {
			if _, err := in.Write(text[i : i+1]); err != nil {
				t.Fatalf("size %d: byte %d of %d is refused: %v", size, i, len(text), err)
			}
		}
		in.Close()
		if err := <-read; err != nil {
			t.Fatal(err)
		}
	}
	if _, err := backup.Read(bytes.NewReader(append(text, text...)), memory{}.open); !fault.Is(err, fault.Invalid) {
		t.Errorf("two backups in one file: %v", err)
	}
}

func TestNamesThatLeadElsewhere(t *testing.T) {
	for _, name := range []string{"../x", "/etc/passwd", "a/../../x", "a//b", ".", `a\b`} {
		text := sample(t, map[string][]byte{name: []byte("x")}, name)
		if _, err := backup.Read(bytes.NewReader(text), memory{}.open); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q: %v", name, err)
		}
	}
	twice := sample(t, map[string][]byte{"a": []byte("x"), "b": nil}, "a", "b", "a")
	if _, err := backup.Read(bytes.NewReader(twice), memory{}.open); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "twice") {
		t.Errorf("twice: %v", err)
	}
}

func TestLocks(t *testing.T) {
	for _, l := range []backup.Lock{{Passphrase: "x", Recipients: []string{"age1"}}, {Recipients: []string{"ssh"}}} {
		if _, err := l.Encrypt(io.Discard); !fault.Is(err, fault.Invalid) {
			t.Errorf("%+v: %v", l, err)
		}
	}
}
