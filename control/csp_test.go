package control

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"komainu/control/portal"
	"komainu/control/rest"
)

var (
	scripts  = regexp.MustCompile(`(?is)<script\b([^>]*)>(.*?)</script>`)
	handlers = regexp.MustCompile(`(?i)<[^>]+\son[a-z]+\s*=`)
)

// TestNoInlineScript holds the policy against what is served: browsers are
// told to run no script that stands in a page, and no page has one.
func TestNoInlineScript(t *testing.T) {
	w := httptest.NewRecorder()
	rest.Guard(slog.New(slog.DiscardHandler), portal.Handler(), nil).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	page, err := io.ReadAll(w.Result().Body)
	if err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d, %v", w.Code, err)
	}
	policy := map[string][]string{}
	for directive := range strings.SplitSeq(w.Header().Get("Content-Security-Policy"), ";") {
		words := strings.Fields(directive)
		policy[words[0]] = words[1:]
	}
	for _, name := range []string{"script-src", "script-src-elem", "script-src-attr", "worker-src", "default-src"} {
		sources, set := policy[name]
		if set && !slices.Equal(sources, []string{"'self'"}) {
			t.Errorf("%s is %q", name, sources)
		}
	}
	for name, want := range map[string]string{"default-src": "'self'", "object-src": "'none'", "base-uri": "'self'", "form-action": "'self'", "frame-ancestors": "'none'"} {
		if !slices.Equal(policy[name], []string{want}) {
			t.Errorf("%s is %q, want %s", name, policy[name], want)
		}
	}
	source, err := os.ReadFile("../portal/index.html")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"the page that is embedded": string(page), "portal/index.html": string(source)} {
		for _, s := range scripts.FindAllStringSubmatch(text, -1) {
			if !strings.Contains(s[1], "src=") || strings.TrimSpace(s[2]) != "" {
				t.Errorf("%s holds the script %s", name, s[0])
			}
		}
		if h := handlers.FindString(text); h != "" || strings.Contains(text, "javascript:") {
			t.Errorf("%s holds a handler: %s", name, h)
		}
	}
}
