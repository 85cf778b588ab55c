// Package portal serves the web portal, which is built from portal/ by npm
// and embedded here. A control plane that was compiled before the portal was
// built serves a page that says how to build it.
package portal

import (
	"embed"
	"io/fs"
	"net/http"
)

// The all: prefix takes the committed placeholder and, once npm has made it,
// dist. A clean clone has only the placeholder.
//
//go:embed all:assets
var embedded embed.FS

// built returns the built assets, or false when only the placeholder is there.
func built(assets fs.FS) (fs.FS, bool) {
	if _, err := fs.Stat(assets, "assets/dist/index.html"); err != nil {
		return nil, false
	}
	dist, err := fs.Sub(assets, "assets/dist")
	return dist, err == nil
}

// Built reports whether the portal was built before this program was.
func Built() bool {
	_, ok := built(embedded)
	return ok
}

// Handler serves the portal. Every path that is no file of it gets the page,
// because the portal's own router knows the rooms.
func Handler() http.Handler {
	return newHandler(embedded)
}
