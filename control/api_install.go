package control

import (
	"errors"
	"fmt"
	"net/http"
	"path"
	"strings"
	"time"

	"komainu/control/content"
	"komainu/control/rest"
	"komainu/deploy"
	"komainu/event"
	"komainu/fault"
)

// installRoutes are what a server uses before it has an identity. They tell
// what the signed repository tells anybody, and change nothing.
func (a *api) installRoutes() []rest.Route {
	return []rest.Route{
		rest.Plain("GET /install", rest.Public, "The script that installs the agent on a server and enrols it with a join token", "text/x-shellscript", a.installer),
		rest.Plain("POST /install/plan", rest.Public, "What the installer has to do on a host that it has looked at", "text/plain", a.installPlan),
	}
}

func (a *api) installer(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/x-shellscript; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write([]byte(deploy.Installer())) // the host is gone: it asks again
}

// maxFacts is more than a host says of itself.
const maxFacts = 64 << 10

// installPlan answers in lines, which a shell reads: "fail REASON DETAIL", or
// what is to be installed and whether the host has to enrol.
func (a *api) installPlan(w http.ResponseWriter, r *http.Request) {
	f, err := deploy.ReadFacts(http.MaxBytesReader(w, r.Body, maxFacts))
	if failure, ok := errors.AsType[*deploy.Failure](err); ok {
		answerPlan(w, planFailed(failure))
		return
	}
	if err != nil {
		a.refuse(w, fault.Wrap(fault.Invalid, err, "the host is not understood"))
		return
	}
	q := r.URL.Query()
	answerPlan(w, a.planInstall(f, q.Get("image") == "yes", q.Get("force") == "yes", q.Get("despiteConflict") == "yes"))
}

func answerPlan(w http.ResponseWriter, lines []string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = fmt.Fprintln(w, strings.Join(lines, "\n")) // the host is gone: it asks again
}

func planFailed(f *deploy.Failure) []string {
	return []string{"fail " + string(f.Reason.ID) + " " + f.Reason.Detail}
}

// planInstall says what a host has to do. It decides as the engine does for
// machines that connectors reach.
func (a *api) planInstall(f deploy.Facts, image, force, despite bool) []string {
	if image {
		f.Image = false // it may be prepared anew
	}
	if problem := f.Check(deploy.Requirements{Now: time.Now(), Despite: despite}); problem != nil {
		return planFailed(problem)
	}
	var p content.Package
	ok := false
	if a.known.repository != nil {
		p, ok = a.known.repository.Newest(f.Manager, f.Architecture())
	}
	if !ok && f.Agent == "" {
		return planFailed(deploy.Failf(deploy.NoPackage, "%s for %s", f.Manager, f.Architecture()))
	}
	enrol, lines := "yes", []string{}
	if f.Device != "" && !image {
		// Who asks about a device knows its id, which nobody guesses.
		known, ours := a.devices.State(event.DeviceID(f.Device))
		switch {
		case force || ours && known.Offboarded:
			enrol = "force"
		case ours:
			enrol = "no"
		default:
			return planFailed(deploy.Fail(deploy.EnrolledElsewhere, "its device id there is "+f.Device))
		}
		lines = append(lines, "device "+f.Device)
	}
	if image {
		enrol = "boot"
	}
	if !f.Verified() {
		lines = append(lines, "note Releases are not tried on "+f.OSName+"; it should work.")
	}
	if !ok || f.Agent == p.Version && (f.Service == "active" || image) {
		return append(lines, "enrol "+enrol, "version "+f.Agent)
	}
	return append(lines, "enrol "+enrol, "version "+p.Version,
		fmt.Sprintf("package format=%s sha256=%s size=%d path=%s", p.Format, p.SHA256, p.Size, "/repository/"+path.Join("targets", path.Dir(p.Target), p.SHA256+"."+path.Base(p.Target))))
}
