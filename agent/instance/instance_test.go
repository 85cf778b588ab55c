package instance

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"komainu/fault"
)

// TestAnswersThatAreNoDocuments has the service of the cloud answer as
// something else would that listens there.
func TestAnswersThatAreNoDocuments(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"refuses":   func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) },
		"is empty":  func(http.ResponseWriter, *http.Request) {},
		"too large": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("x", maxAnswer+1)) },
		"elsewhere": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/other", http.StatusFound) },
		"breaks off": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "x")
		},
	} {
		s := httptest.NewServer(h)
		if _, _, err := At(s.URL).Document(t.Context(), "aws", "1", "2"); !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s: %v", name, err)
		}
		s.Close()
	}
	if _, _, err := At("http://127.0.0.1:1").Document(t.Context(), "aws", "1", "2"); !fault.Is(err, fault.Unavailable) {
		t.Errorf("nothing there: %v", err)
	}
	if _, _, err := At("http://127.0.0.1:1").Document(t.Context(), "other", "1", "2"); !fault.Is(err, fault.Invalid) {
		t.Errorf("another cloud: %v", err)
	}
}
