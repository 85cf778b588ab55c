package content

import (
	"net/http"
	"path"
	"strings"
)

// Handler serves the repository below a prefix: files, no folders. missing
// answers for what is not there.
func (r *Repository) Handler(prefix string, missing http.HandlerFunc) http.Handler {
	files := http.FileServerFS(r.dir.FS())
	return http.StripPrefix(prefix, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		name := path.Clean(strings.TrimPrefix(q.URL.Path, "/"))
		folder, _, _ := strings.Cut(name, "/")
		public := (folder == metadataFolder || folder == targetsFolder) && !strings.HasPrefix(path.Base(name), ".")
		info, err := r.dir.Stat(name)
		if !public || err != nil || !info.Mode().IsRegular() {
			missing(w, q)
			return
		}
		// What can change must not be kept on the way.
		w.Header().Set("Cache-Control", "no-store")
		files.ServeHTTP(w, q)
	}))
}
