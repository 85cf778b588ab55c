package portal

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
)

// script is long enough that compressing it is a gain.
var script = strings.Repeat("console.log('a script of the portal');\n", 100)

func builtPortal() fstest.MapFS {
	return fstest.MapFS{
		"assets/placeholder.html":       {Data: []byte("<h1>The portal is not built</h1>")},
		"assets/dist/index.html":        {Data: []byte("<!doctype html><div id=root></div>")},
		"assets/dist/mark.svg":          {Data: []byte("<svg/>")},
		"assets/dist/hashed/main-a1.js": {Data: []byte(script)},
	}
}

func get(t *testing.T, h http.Handler, path string, header ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPaths(t *testing.T) {
	h := newHandler(builtPortal())
	const page = "<!doctype html><div id=root></div>"
	tests := []struct {
		path      string
		status    int
		mediaType string
		cache     string
		body      string
	}{
		{"/", 200, "text/html; charset=utf-8", "no-cache", page},
		{"/index.html", 200, "text/html; charset=utf-8", "no-cache", page},
		{"/devices/0190-abc", 200, "text/html; charset=utf-8", "no-cache", page},
		{"/devices/web01.example.net", 200, "text/html; charset=utf-8", "no-cache", page},
		{"/mark.svg", 200, "image/svg+xml", "no-cache", "<svg/>"},
		{"/hashed/main-a1.js", 200, "text/javascript; charset=utf-8", "public, max-age=31536000, immutable", script},
		{"/hashed/main-of-an-older-build.js", 404, "text/plain; charset=utf-8", "no-store", "404 page not found\n"},
		{"/hashed/no-extension", 404, "text/plain; charset=utf-8", "no-store", "404 page not found\n"},
		{"/favicon.ico", 404, "text/plain; charset=utf-8", "no-store", "404 page not found\n"},
		{"/../placeholder.html", 404, "text/plain; charset=utf-8", "no-store", "404 page not found\n"},
	}
	for _, test := range tests {
		r := get(t, h, test.path)
		if r.StatusCode != test.status || r.Header.Get("Content-Type") != test.mediaType || r.Header.Get("Cache-Control") != test.cache {
			t.Errorf("%s: %d %q %q, want %d %q %q", test.path, r.StatusCode, r.Header.Get("Content-Type"), r.Header.Get("Cache-Control"), test.status, test.mediaType, test.cache)
		}
		if got := body(t, r); got != test.body {
			t.Errorf("%s: body %.60q, want %.60q", test.path, got, test.body)
		}
	}
}

func TestCompression(t *testing.T) {
	h := newHandler(builtPortal())
	for _, accept := range []string{"gzip", "br, gzip", "gzip;q=0.5", "deflate, *"} {
		r := get(t, h, "/hashed/main-a1.js", "Accept-Encoding", accept)
		if r.Header.Get("Content-Encoding") != "gzip" {
			t.Errorf("%s: sent plain", accept)
			continue
		}
		packed := body(t, r)
		z, err := gzip.NewReader(bytes.NewReader([]byte(packed)))
		if err != nil {
			t.Fatal(err)
		}
		plain, err := io.ReadAll(z)
		if err != nil || string(plain) != script {
			t.Errorf("%s: %d bytes unpacked, %v", accept, len(plain), err)
		}
		if len(packed) >= len(script) {
			t.Errorf("%s: no gain: %d bytes of %d", accept, len(packed), len(script))
		}
	}
	for _, accept := range []string{"", "identity", "br", "gzip;q=0"} {
		if r := get(t, h, "/hashed/main-a1.js", "Accept-Encoding", accept); r.Header.Get("Content-Encoding") != "" || body(t, r) != script {
			t.Errorf("%q: not sent plain", accept)
		}
	}
	if r := get(t, h, "/mark.svg", "Accept-Encoding", "gzip"); r.Header.Get("Content-Encoding") != "" {
		t.Error("a small file was packed into a larger one")
	}
}

func TestRevalidation(t *testing.T) {
	h := newHandler(builtPortal())
	plain := get(t, h, "/hashed/main-a1.js").Header.Get("ETag")
	packed := get(t, h, "/hashed/main-a1.js", "Accept-Encoding", "gzip").Header.Get("ETag")
	if plain == "" || plain == packed {
		t.Fatalf("tags %s and %s: want one for each encoding", plain, packed)
	}
	for _, known := range []string{packed, `"x", ` + packed, "W/" + packed, "*"} {
		r := get(t, h, "/hashed/main-a1.js", "Accept-Encoding", "gzip", "If-None-Match", known)
		if r.StatusCode != http.StatusNotModified || body(t, r) != "" || r.Header.Get("Cache-Control") == "" {
			t.Errorf("%s: %d, want not modified", known, r.StatusCode)
		}
	}
	if r := get(t, h, "/hashed/main-a1.js", "Accept-Encoding", "gzip", "If-None-Match", plain); r.StatusCode != http.StatusOK {
		t.Errorf("the tag of the other encoding: %d", r.StatusCode)
	}
}

func TestMethods(t *testing.T) {
	h := newHandler(builtPortal())
	server := httptest.NewServer(h)
	defer server.Close()
	for method, want := range map[string]int{http.MethodHead: 200, http.MethodPost: 405, http.MethodDelete: 405} {
		r, err := http.NewRequestWithContext(t.Context(), method, server.URL+"/devices", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("%s: %d, want %d", method, answer.StatusCode, want)
		}
		if method == http.MethodHead && answer.ContentLength != int64(len("<!doctype html><div id=root></div>")) {
			t.Errorf("HEAD says %d bytes", answer.ContentLength)
		}
	}
}

func TestNotBuilt(t *testing.T) {
	clean := fstest.MapFS{"assets/placeholder.html": builtPortal()["assets/placeholder.html"]}
	if _, ok := built(clean); ok {
		t.Error("a clean clone counts as built")
	}
	h := newHandler(clean)
	for _, path := range []string{"/", "/devices"} {
		if r := get(t, h, path); r.StatusCode != 200 || !strings.Contains(body(t, r), "The portal is not built") {
			t.Errorf("%s: %d, want the placeholder", path, r.StatusCode)
		}
	}
	if r := get(t, h, "/hashed/main-a1.js"); r.StatusCode != 404 {
		t.Errorf("a script without a build: %d", r.StatusCode)
	}
}

// TestEmbedded serves what this test binary was built with: the placeholder
// on a clean clone, the portal otherwise.
func TestEmbedded(t *testing.T) {
	page := body(t, get(t, Handler(), "/"))
	if want := map[bool]string{true: `<div id="root">`, false: "The portal is not built"}[Built()]; !strings.Contains(page, want) {
		t.Errorf("built=%v: the page lacks %q:\n%s", Built(), want, page)
	}
}
