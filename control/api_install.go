package control

import (
	"errors"
	"fmt"
	"net/http"
	"path"
	"strings"
	"time"

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
	// Who has no identity yet installs what the owner of the repository gives.
	owner, err := a.access.Organization(r.Context())
	if err != nil {
		a.refuse(w, err)
		return
	}
	q := r.URL.Query()
	answerPlan(w, a.planInstall(f, owner.ID, q.Get("image") == "yes", q.Get("force") == "yes", q.Get("despiteConflict") == "yes"))
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
func (a *api) planInstall(f deploy.Facts, owner string, image, force, despite bool) []string {
	if image {
		f.Image = false // it may be prepared anew
	}
	if problem := f.Check(deploy.Requirements{Now: time.Now(), Despite: despite}); problem != nil {
		return planFailed(problem)
	}
	enrol, lines := "yes", []string{}
	var own event.DeviceID // that the host is and stays
	if f.Device != "" && !image {
		// Who asks about a device knows its id, which nobody guesses.
		known, ours := a.devices.State(event.DeviceID(f.Device))
		switch {
		case force || ours && known.Offboarded:
			enrol = "force"
		case ours:
			enrol, own, owner = "no", event.DeviceID(f.Device), known.Organization
		default:
			return planFailed(deploy.Fail(deploy.EnrolledElsewhere, "its device id there is "+f.Device))
		}
		lines = append(lines, "device "+f.Device)
	}
	p, ok, why := a.known.given(owner, own, f.Agent, f.Manager, f.Architecture())
	runs := f.Agent != "" && (f.Service == "active" || image)
	if !ok && !runs {
		p, ok = a.known.wanted(owner, f.Manager, f.Architecture()) // another version is better than none
	}
	if !ok && f.Agent == "" {
		return planFailed(deploy.Failf(deploy.NoPackage, "%s for %s", f.Manager, f.Architecture()))
	}
	if image {
		enrol = "boot"
	}
	if !f.Verified() {
		lines = append(lines, "note Releases are not tried on "+f.OSName+"; it should work.")
	}
	if why != "" {
		lines = append(lines, "note The agent stays at "+f.Agent+": "+why+".")
	}
	if !ok || f.Agent == p.Version && runs {
		return append(lines, "enrol "+enrol, "version "+f.Agent)
	}
	return append(lines, "enrol "+enrol, "version "+p.Version,
		fmt.Sprintf("package format=%s sha256=%s size=%d path=%s", p.Format, p.SHA256, p.Size, "/repository/"+path.Join("targets", path.Dir(p.Target), p.SHA256+"."+path.Base(p.Target))))
}
