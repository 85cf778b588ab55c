package portal

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"sync"
)

// types are the media types of what the build makes. They are not left to the
// host's mime tables, which differ between distributions.
var types = map[string]string{
	".html":  "text/html; charset=utf-8",
	".js":    "text/javascript; charset=utf-8",
	".css":   "text/css; charset=utf-8",
	".svg":   "image/svg+xml",
	".json":  "application/json",
	".txt":   "text/plain; charset=utf-8",
	".png":   "image/png",
	".ico":   "image/x-icon",
	".woff2": "font/woff2",
}

// Cache rules: the build puts a hash into the name of every file below
// hashed/, so such a file never changes; everything else is asked for again.
const (
	hashedFolder = "/hashed/"
	forever      = "public, max-age=31536000, immutable"
	askAgain     = "no-cache"
)

// asset is one file, ready to be sent.
type asset struct {
	mediaType string
	etag      string
	cache     string
	plain     []byte
	// packed is the gzip form, nil when it would not be smaller. It is made at
	// the first request that wants it: few processes ever send every file.
	packed func() []byte
}

// handler serves assets by their path, and index for every other path.
type handler struct {
	assets map[string]*asset
	index  *asset
}

func newHandler(assets fs.FS) http.Handler {
	h := &handler{assets: map[string]*asset{}}
	dist, ok := built(assets)
	if !ok {
		page, err := fs.ReadFile(assets, "assets/placeholder.html")
		if err != nil {
			// The placeholder is embedded; a build without it does not compile.
			panic(err)
		}
		h.index = newAsset("/index.html", page)
		return h
	}
	err := fs.WalkDir(dist, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := fs.ReadFile(dist, name)
		if err != nil {
			return err
		}
		h.assets["/"+name] = newAsset("/"+name, content)
		return nil
	})
	if err != nil {
		// Reading embedded files cannot fail.
		panic(err)
	}
	h.index = h.assets["/index.html"]
	return h
}

func newAsset(name string, content []byte) *asset {
	sum := sha256.Sum256(content)
	a := &asset{
		mediaType: types[path.Ext(name)],
		etag:      `"` + hex.EncodeToString(sum[:12]) + `"`,
		cache:     askAgain,
		plain:     content,
	}
	if a.mediaType == "" {
		a.mediaType = "application/octet-stream"
	}
	if strings.HasPrefix(name, hashedFolder) {
		a.cache = forever
	}
	a.packed = sync.OnceValue(func() []byte { return pack(a.mediaType, content) })
	return a
}

// pack returns content compressed, or nil if that is no gain.
func pack(mediaType string, content []byte) []byte {
	kind, _, _ := mime.ParseMediaType(mediaType)
	if kind == "image/png" || kind == "font/woff2" || len(content) < 512 {
		return nil
	}
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil
	}
	// Writing to a buffer cannot fail.
	_, _ = w.Write(content)
	_ = w.Close()
	if b.Len() >= len(content) {
		return nil
	}
	return b.Bytes()
}

// ServeHTTP answers GET and HEAD.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "the portal answers GET and HEAD", http.StatusMethodNotAllowed)
		return
	}
	a, ok := h.assets[r.URL.Path]
	if !ok {
		// A file that is gone, such as a script of an older build, must not be
		// answered with the page: the browser would run HTML as a script.
		if isFile(r.URL.Path) {
			w.Header().Set("Cache-Control", "no-store")
			http.NotFound(w, r)
			return
		}
		a = h.index
	}
	a.serve(w, r)
}

// isFile reports whether a path asks for a file of the build, not for a room
// of the portal.
func isFile(p string) bool {
	return strings.HasPrefix(p, hashedFolder) || types[path.Ext(p)] != ""
}

func (a *asset) serve(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Type", a.mediaType)
	header.Set("Cache-Control", a.cache)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Vary", "Accept-Encoding")
	body, etag := a.plain, a.etag
	if acceptsGzip(r.Header.Get("Accept-Encoding")) {
		if packed := a.packed(); packed != nil {
			header.Set("Content-Encoding", "gzip")
			// Two encodings are two representations and need two tags.
			body, etag = packed, strings.TrimSuffix(a.etag, `"`)+`-gz"`
		}
	}
	header.Set("ETag", etag)
	if matches(r.Header.Get("If-None-Match"), etag) {
		header.Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	header.Set("Content-Length", strconv.Itoa(len(body)))
	if r.Method == http.MethodHead {
		return
	}
	// An error here means that the browser went away.
	_, _ = w.Write(body)
}

// acceptsGzip reports whether an Accept-Encoding names gzip without refusing it.
func acceptsGzip(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		coding, parameter, _ := strings.Cut(strings.TrimSpace(part), ";")
		if coding = strings.TrimSpace(coding); coding != "gzip" && coding != "*" {
			continue
		}
		q, weighted := strings.CutPrefix(strings.ReplaceAll(parameter, " ", ""), "q=")
		if !weighted {
			return true
		}
		value, err := strconv.ParseFloat(q, 64)
		return err == nil && value > 0
	}
	return false
}

// matches reports whether an If-None-Match names this tag.
func matches(header, etag string) bool {
	for part := range strings.SplitSeq(header, ",") {
		part = strings.TrimPrefix(strings.TrimSpace(part), "W/")
		if part == etag || part == "*" {
			return true
		}
	}
	return false
}
