package control

import (
	"context"
	"encoding/json"
	"net/http"
	"time"
)

// healthz answers as long as the process does. Restarting it helps against
// nothing that readyz tells.
func (a *api) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"status":"ok"}` + "\n"))
}

// readiness is the answer of readyz.
type readiness struct {
	Status  string      `json:"status"` // ready, not_ready
	Message string      `json:"message,omitempty"`
	Parts   []readyPart `json:"parts"`
}

// readyPart is one thing that has to work.
type readyPart struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"` // what is wrong, and what to do
}

// parts tries everything that a control plane cannot do without.
func (a *api) parts(ctx context.Context) []readyPart {
	var list []readyPart
	try := func(name string, err error) {
		part := readyPart{Name: name, OK: err == nil}
		if err != nil {
			part.Detail = err.Error()
		}
		list = append(list, part)
	}
	try("the state", a.state.PingContext(ctx))
	try("the queue", a.queued(ctx))
	if a.room != nil {
		try("the disk", a.room())
	}
	return list
}

// readyz answers 200 when everything works that a control plane cannot do
// without, and 503 with the name of what does not.
func (a *api) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
	defer cancel()
	answer, status := readiness{Status: "ready", Parts: a.parts(ctx)}, http.StatusOK
	for _, p := range answer.Parts {
		if !p.OK && status == http.StatusOK {
			status, answer.Status, answer.Message = http.StatusServiceUnavailable, "not_ready", p.Name+": "+p.Detail
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // who asked is gone
}

func (a *api) ca(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/x-pem-file")
	w.Header().Set("Content-Disposition", `attachment; filename="komainu-ca.pem"`)
	_, _ = w.Write(a.ids.CAPEM())
}
