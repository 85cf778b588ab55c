package scan_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"pgregory.net/rapid"

	"komainu/agent/scan"
	"komainu/finding"
	"komainu/internal/need"
)

const eicarName = "Virus:DOS/EICAR_Test_File"

// eicar is put together here so that it stands nowhere whole.
func eicar() []byte {
	return []byte(`X5O!P%@AP[4\P` + "ZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-" + "TEST-FILE!$H+H*")
}

// sample is our own inert test content.
func sample() []byte {
	return []byte("KOMAINU-INERT-" + "SAMPLE:6d1f0c52-harmless-" + "lion-dog-at-the-gate")
}

func engine(limits scan.Limits) *scan.Engine { return scan.New(scan.Embedded(), limits) }

func scanBytes(t testing.TB, e *scan.Engine, text []byte, o scan.Options) finding.Verdict {
	t.Helper()
	return e.Scan(t.Context(), bytes.NewReader(text), int64(len(text)), o)
}

func TestEICAR(t *testing.T) {
	e := engine(scan.DefaultLimits())
	for _, c := range []struct {
		name string
		text []byte
		want finding.Outcome
	}{
		{"exact", eicar(), finding.Malicious},
		{"line end", append(eicar(), '\r', '\n'), finding.Malicious},
		{"128 bytes", append(eicar(), bytes.Repeat([]byte(" \t\x1a"), 20)...), finding.Malicious},
		{"129 bytes", append(eicar(), bytes.Repeat([]byte(" "), 61)...), finding.Clean},
		{"other tail", append(eicar(), 'x'), finding.Clean},
		{"not at the start", append([]byte(" "), eicar()...), finding.Clean},
		{"cut", eicar()[:67], finding.Clean},
		{"empty", nil, finding.Clean},
	} {
		v := scanBytes(t, e, c.text, scan.Options{})
		sum := sha256.Sum256(c.text)
		if v.Outcome != c.want || v.SHA256 != hex.EncodeToString(sum[:]) || v.Size != int64(len(c.text)) {
			t.Errorf("%s: %+v", c.name, v)
		}
		if c.want == finding.Malicious && (v.Threat != eicarName || v.Type != "virus" || v.Inside != "") {
			t.Errorf("%s: %+v", c.name, v)
		}
		if v.Definitions != scan.Embedded().Version() {
			t.Errorf("%s: definitions %q", c.name, v.Definitions)
		}
	}
}

func TestSampleAnywhere(t *testing.T) {
	e := engine(scan.DefaultLimits())
	noise := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{1}).Read(noise)
	// Around the border of two windows is where an overlap can be wrong.
	for _, at := range []int{0, 1, 7, 256<<10 - 30, 256 << 10, 256<<10 + 40, 1<<20 + 3, len(noise) - len(sample())} {
		text := bytes.Clone(noise)
		copy(text[at:], sample())
		if v := scanBytes(t, e, text, scan.Options{}); v.Threat != "Test:Any/Komainu_Sample" || v.Type != "test" {
			t.Errorf("at %d: %+v", at, v)
		}
	}
	if v := scanBytes(t, e, noise, scan.Options{}); v.Outcome != finding.Clean {
		t.Errorf("noise: %+v", v)
	}
}

// TestAgainstNaive compares the engine with bytes.Contains on random
// signatures, contents and sizes of reads.
func TestAgainstNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// A small alphabet makes near misses and overlaps common.
		word := rapid.SliceOfN(rapid.SampledFrom([]byte("abc")), 11, 24)
		words := rapid.SliceOfN(word, 1, 5).Draw(t, "words")
		var defs strings.Builder
		fmt.Fprintf(&defs, "komainu-definitions 1\nversion 1.0.1\nupdated 2026-01-01T00:00:00Z\ncount %d\n", len(words))
		for i, w := range words {
			fmt.Fprintf(&defs, "find %x Test:Any/W%d\n", w, i)
		}
		d, err := scan.ReadDefinitions(strings.NewReader(defs.String()))
		if err != nil {
			t.Fatal(err)
		}
		text := bytes.Repeat([]byte{'x'}, rapid.SampledFrom([]int{0, 5, 256<<10 - 20, 512<<10 + 3}).Draw(t, "pad"))
		text = append(text, rapid.SliceOfN(rapid.SampledFrom([]byte("abc")), 0, 60).Draw(t, "text")...)
		if rapid.Bool().Draw(t, "plant") {
			text = append(text, words[0]...)
		}
		want := false
		for _, w := range words {
			want = want || bytes.Contains(text, w)
		}
		file := chunked{bytes.NewReader(text), rapid.IntRange(1, 1<<20).Draw(t, "chunk")}
		v := scan.New(d, scan.DefaultLimits()).Scan(context.Background(), file, int64(len(text)), scan.Options{})
		if got := v.Outcome == finding.Malicious; got != want || !want && v.Outcome != finding.Clean {
			t.Fatalf("%+v, bytes.Contains says %v", v, want)
		}
		if want {
			var i int
			if _, err := fmt.Sscanf(string(v.Threat), "Test:Any/W%d", &i); err != nil || !bytes.Contains(text, words[i]) {
				t.Fatalf("%s is not in the text", v.Threat)
			}
		}
	})
}

// chunked gives at most n bytes per read.
type chunked struct {
	r io.ReaderAt
	n int
}

func (c chunked) ReadAt(p []byte, off int64) (int, error) {
	return c.r.ReadAt(p[:min(len(p), c.n)], off)
}

// The builders of archives: each wraps content, named name where it can be.

func zipOf(name string, content []byte) []byte {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, _ := w.Create(name)
	f.Write(content)
	w.Close()
	return b.Bytes()
}

func tarOf(name string, content []byte) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))})
	w.Write(content)
	w.Close()
	return b.Bytes()
}

func gzipOf(name string, content []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Name = name
	w.Write(content)
	w.Close()
	return b.Bytes()
}

func zstdOf(_ string, content []byte) []byte {
	w, _ := zstd.NewWriter(nil)
	return w.EncodeAll(content, nil)
}

// program compresses with a real program, the oracle of the format.
func program(t *testing.T, name string, content []byte, args ...string) []byte {
	t.Helper()
	need.Program(t, name)
	cmd := exec.Command(name, args...)
	cmd.Stdin = bytes.NewReader(content)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestArchives(t *testing.T) {
	e := engine(scan.DefaultLimits())
	for _, c := range []struct {
		name   string
		text   []byte
		inside string
	}{
		{"zip", zipOf("eicar.com", eicar()), "eicar.com"},
		{"zip_in_zip", zipOf("eicar_com.zip", zipOf("eicar.com", eicar())), "eicar_com.zip/eicar.com"},
		{"zip_behind_program", append([]byte("\x7fELF and more"), zipOf("a/b", eicar())...), "a/b"},
		{"zip_with_comment", withComment(zipOf("a", eicar())), "a"},
		{"tar", tarOf("dir/eicar.com", eicar()), "dir/eicar.com"},
		{"tar_gz", gzipOf("x.tar", tarOf("dir/eicar.com", eicar())), "dir/eicar.com"},
		{"gz_named", gzipOf("eicar.com", eicar()), "eicar.com"},
		{"gz_bare", gzipOf("", eicar()), "content"},
		{"gz_second_stream", append(gzipOf("", nil), gzipOf("", eicar())...), "content"},
		{"zstd", zstdOf("", eicar()), "content"},
		{"tar_zstd", zstdOf("", tarOf("e", eicar())), "e"},
		{"zip_in_tar_gz", gzipOf("", tarOf("z.zip", zipOf("e", eicar()))), "z.zip/e"},
		{"tar_gz_in_zip", zipOf("t.tgz", gzipOf("", tarOf("e", eicar()))), "t.tgz/e"},
		{"rar", rarOf("e.com", eicar()), "e.com"},
		{"rar_in_zip", zipOf("r.rar", rarOf("e.com", eicar())), "r.rar/e.com"},
		{"seven_zip", sevenZipOf("e.com", eicar()), "e.com"},
		{"seven_zip_in_gz", gzipOf("", sevenZipOf("e.com", eicar())), "e.com"},
		{"hostile_name", zipOf("a\x1b[2J\u202e\n.exe", eicar()), "a\ufffd[2J\ufffd\ufffd.exe"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := scanBytes(t, e, c.text, scan.Options{})
			sum := sha256.Sum256(c.text)
			if v.Outcome != finding.Malicious || v.Threat != eicarName || v.Inside != c.inside {
				t.Errorf("%+v", v)
			}
			if v.SHA256 != hex.EncodeToString(sum[:]) || v.Size != int64(len(c.text)) {
				t.Errorf("the verdict must speak of the file itself: %+v", v)
			}
			if v := scanBytes(t, e, c.text, scan.Options{SkipArchives: true}); v.Outcome != finding.Clean {
				t.Errorf("closed: %+v", v)
			}
		})
	}
}

func TestArchivesOfPrograms(t *testing.T) {
	e := engine(scan.DefaultLimits())
	for _, c := range []struct {
		name string
		args []string
	}{{"xz", []string{"-c"}}, {"bzip2", []string{"-c"}}, {"zstd", []string{"-c", "-q"}}, {"gzip", []string{"-c"}}} {
		t.Run(c.name, func(t *testing.T) {
			packed := program(t, c.name, tarOf("dir/e", eicar()), c.args...)
			if v := scanBytes(t, e, packed, scan.Options{}); v.Outcome != finding.Malicious || v.Inside != "dir/e" {
				t.Errorf("%+v", v)
			}
			clean := program(t, c.name, tarOf("dir/e", []byte("harmless")), c.args...)
			if v := scanBytes(t, e, clean, scan.Options{}); v.Outcome != finding.Clean {
				t.Errorf("%+v", v)
			}
			if v := scanBytes(t, e, packed[:len(packed)-9], scan.Options{}); v.Outcome == finding.Clean {
				t.Errorf("a cut archive is not clean: %+v", v)
			}
		})
	}
}

func withComment(z []byte) []byte {
	end := bytes.Clone(z)
	end[len(end)-2] = 4
	return append(end, "PK!!"...)
}

// TestLimits: over a limit nothing is Clean, and the reason says which.
func TestLimits(t *testing.T) {
	zeros := make([]byte, 1<<20)
	deep := eicar()
	for range 20 {
		deep = zipOf("z", deep)
	}
	many := func() []byte {
		var b bytes.Buffer
		w := zip.NewWriter(&b)
		for i := range 2000 {
			w.Create(fmt.Sprint(i))
		}
		w.Close()
		return b.Bytes()
	}()
	with := func(change func(*scan.Limits)) scan.Limits {
		l := scan.DefaultLimits()
		change(&l)
		return l
	}
	for _, c := range []struct {
		name   string
		limits scan.Limits
		text   []byte
		reason string
	}{
		{"bytes", with(func(l *scan.Limits) { l.Bytes = 1 << 19 }), gzipOf("", zeros), "unpacks to more than 0 MiB"},
		{"ratio", scan.DefaultLimits(), bomb(t), "unpacks to more than 250 times its size"},
		{"depth", scan.DefaultLimits(), deep, "nested deeper than 12"},
		{"members", with(func(l *scan.Limits) { l.Members = 1999 }), many, "more than 1999 members"},
		{"buffer", with(func(l *scan.Limits) { l.Buffer = 2048 }), gzipOf("", zipOf("e", noise(4096))), "larger than 0 MiB"},
		{"encrypted_zip", scan.DefaultLimits(), encrypted(zipOf("e", eicar())), "encrypted (e)"},
		{"encrypted_rar", scan.DefaultLimits(), encryptedRar(), "encrypted"},
		{"damaged_zip", scan.DefaultLimits(), zipOf("e", zeros)[:100], "damaged or unsupported zip"},
		{"damaged_gzip", scan.DefaultLimits(), gzipOf("", zeros)[:500], "damaged or unsupported gzip"},
		{"unknown_method", scan.DefaultLimits(), method(zipOf("e", zeros), 9), "unsupported compression in zip (e)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := scanBytes(t, engine(c.limits), c.text, scan.Options{})
			if v.Outcome != finding.NotFullyScanned || !strings.Contains(v.Reason, c.reason) {
				t.Errorf("%+v", v)
			}
			if sum := sha256.Sum256(c.text); v.SHA256 != hex.EncodeToString(sum[:]) {
				t.Error("the file itself was read whole and has a hash")
			}
		})
	}
}

// TestBombs: what is made to exhaust whoever unpacks it is told from what is
// only large, and from what cannot be read.
func TestBombs(t *testing.T) {
	deep := []byte("inside")
	for range 13 {
		deep = zipOf("z", deep)
	}
	limits := scan.DefaultLimits()
	limits.Bytes, limits.Members = 1<<20, 100
	names := func(n int, content []byte) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for i := range n {
			w.WriteHeader(&tar.Header{Name: fmt.Sprint(i), Mode: 0o644, Size: int64(len(content))})
			w.Write(content)
		}
		w.Close()
		return b.Bytes()
	}
	for _, c := range []struct {
		name   string
		limits scan.Limits
		text   []byte
		want   finding.Bomb
	}{
		{"ratio", scan.DefaultLimits(), bomb(t), finding.BombRatio},
		{"within an archive", scan.DefaultLimits(), tarOf("bomb", bomb(t)), finding.BombRatio},
		{"depth", scan.DefaultLimits(), deep, finding.BombDepth},
		{"size", limits, gzipOf("", make([]byte, 2<<20)), finding.BombSize},
		{"count", limits, gzipOf("", names(101, nil)), finding.BombCount},
		{"large", limits, gzipOf("", noise(2<<20)), ""},
		{"many", limits, names(101, noise(1024)), ""},
		{"encrypted", scan.DefaultLimits(), encrypted(zipOf("e", eicar())), ""},
		{"damaged", scan.DefaultLimits(), gzipOf("", make([]byte, 1<<20))[:500], ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := scanBytes(t, engine(c.limits), c.text, scan.Options{})
			if v.Outcome != finding.NotFullyScanned || v.Bomb != c.want || v.Reason == "" {
				t.Errorf("%+v", v)
			}
		})
	}
}

// TestThreatBeforeLimit: what was found before a limit counts, and a limit of
// one member does not hide another.
func TestThreatBeforeLimit(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, m := range []struct {
		name    string
		content []byte
	}{{"locked.zip", encrypted(zipOf("e", eicar()))}, {"broken.gz", []byte("\x1f\x8b\x08broken")}, {"e", eicar()}, {"bomb", bomb(t)}} {
		w.WriteHeader(&tar.Header{Name: m.name, Mode: 0o644, Size: int64(len(m.content))})
		w.Write(m.content)
	}
	w.Close()
	if v := scanBytes(t, engine(scan.DefaultLimits()), b.Bytes(), scan.Options{}); v.Outcome != finding.Malicious || v.Inside != "e" {
		t.Errorf("%+v", v)
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{2}).Read(b)
	return b
}

// bomb is a gzip of 96 MiB of zeros.
func bomb(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if _, err := io.Copy(w, io.LimitReader(zeroReader{}, 96<<20)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return b.Bytes()
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// encrypted sets the bit that says so in both headers of the first member.
func encrypted(z []byte) []byte {
	z = bytes.Clone(z)
	z[6] |= 1
	z[bytes.Index(z, []byte("PK\x01\x02"))+8] |= 1
	return z
}

// method changes the compression method of the first member.
func method(z []byte, m byte) []byte {
	z = bytes.Clone(z)
	z[8] = m
	z[bytes.Index(z, []byte("PK\x01\x02"))+10] = m
	return z
}

func TestBudget(t *testing.T) {
	v := engine(scan.DefaultLimits()).Scan(t.Context(), endless{}, 1<<40, scan.Options{Budget: 20 * time.Millisecond})
	if v.Outcome != finding.NotFullyScanned || !strings.Contains(v.Reason, "time limit") || v.SHA256 != "" {
		t.Errorf("%+v", v)
	}
}

// endless is a file that never ends.
type endless struct{}

func (endless) ReadAt(p []byte, _ int64) (int, error) { clear(p); return len(p), nil }

func TestReadFailure(t *testing.T) {
	v := engine(scan.DefaultLimits()).Scan(t.Context(), failingAt{bytes.NewReader(make([]byte, 1<<20)), 700 << 10}, 1<<20, scan.Options{})
	if v.Outcome != finding.ScanFailed || !strings.Contains(v.Reason, "bad sector") {
		t.Errorf("%+v", v)
	}
	tgz := gzipOf("", tarOf("a", make([]byte, 1<<20)))
	v = engine(scan.DefaultLimits()).Scan(t.Context(), failingAt{bytes.NewReader(tgz), int64(len(tgz)) - 10}, int64(len(tgz)), scan.Options{})
	if v.Outcome != finding.ScanFailed || !strings.Contains(v.Reason, "bad sector") {
		t.Errorf("within an archive: %+v", v)
	}
}

type failingAt struct {
	r  io.ReaderAt
	at int64
}

func (f failingAt) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.at {
		if off >= f.at {
			return 0, errors.New("bad sector")
		}
		p = p[:f.at-off]
	}
	return f.r.ReadAt(p, off)
}

// TestPanic: a bug of an unpacker costs one verdict.
func TestPanic(t *testing.T) {
	e := engine(scan.DefaultLimits())
	v := e.Scan(t.Context(), panicking{}, 10, scan.Options{})
	if v.Outcome != finding.ScanFailed || !strings.Contains(v.Reason, "broken invariant") || e.Panics() != 1 {
		t.Errorf("%+v, %d panics", v, e.Panics())
	}
	if v := scanBytes(t, e, eicar(), scan.Options{}); v.Outcome != finding.Malicious {
		t.Errorf("after a panic: %+v", v)
	}
}

type panicking struct{}

func (panicking) ReadAt([]byte, int64) (int, error) { panic("broken invariant") }

func TestMediaType(t *testing.T) {
	e := engine(scan.DefaultLimits())
	for want, text := range map[string]string{
		"application/x-elf": "\x7fELF\x02", "text/x-script": "#!/bin/sh\n", "text/plain": strings.Repeat("日本語 ", 200),
		"application/octet-stream": "\x00\x01\x02", "application/x-empty": "", "application/zip": string(zipOf("a", nil)),
		"application/x-tar": string(tarOf("a", nil)), "application/gzip": string(gzipOf("a", nil)),
	} {
		if v := scanBytes(t, e, []byte(text), scan.Options{}); v.MediaType != want || v.Outcome != finding.Clean {
			t.Errorf("%q: %+v", want, v)
		}
	}
}

func FuzzArchives(f *testing.F) {
	for _, s := range [][]byte{
		zipOf("a", zipOf("b", eicar())), tarOf("t", eicar()), gzipOf("g", tarOf("t", nil)), zstdOf("", eicar()),
		rarOf("r", eicar()), sevenZipOf("s", eicar()), encrypted(zipOf("e", nil)), {0xfd, '7', 'z', 'X', 'Z', 0, 0, 4},
		[]byte("BZh91AY&SY"), append([]byte("x"), zipOf("a", nil)...),
	} {
		f.Add(s)
	}
	limits := scan.Limits{Time: 2 * time.Second, Bytes: 1 << 20, Ratio: 100, Depth: 4, Members: 50, Buffer: 1 << 20}
	e := engine(limits)
	f.Fuzz(func(t *testing.T, text []byte) {
		v := scanBytes(t, e, text, scan.Options{})
		if v.Outcome == finding.Clean && v.SHA256 == "" {
			t.Error("clean without having read it all")
		}
		if (v.Outcome == finding.Malicious) != (v.Threat != "") || (v.Outcome == finding.NotFullyScanned || v.Outcome == finding.ScanFailed) != (v.Reason != "") {
			t.Errorf("%+v", v)
		}
	})
}
