package control

import (
	"context"
	"net/http"
	"time"

	"komainu/fault"
)

func (a *api) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"status":"ok"}` + "\n"))
}

// readyz answers 200 when the state can be read and the queue takes batches.
func (a *api) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
	defer cancel()
	if err := a.state.PingContext(ctx); err != nil {
		a.refuse(w, fault.Wrap(fault.Unavailable, err, "the state"))
		return
	}
	if err := a.queued(ctx); err != nil {
		a.refuse(w, fault.Wrap(fault.Unavailable, err, "the queue"))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"status":"ready"}` + "\n"))
}

func (a *api) ca(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/x-pem-file")
	w.Header().Set("Content-Disposition", `attachment; filename="komainu-ca.pem"`)
	_, _ = w.Write(a.ids.CAPEM())
}
