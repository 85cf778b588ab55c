package control

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"komainu/control/access"
	"komainu/control/content"
	"komainu/control/rest"
	"komainu/event"
	"komainu/fault"
)

// repositoryRoutes are the routes of the signed repository. It is that of the
// installation, and of the organization that has it.
func (a *api) repositoryRoutes() []rest.Route {
	return []rest.Route{
		rest.JSON("GET /api/v1/repository", access.ReadPlans, "The signed repository: its packages, and how long its signatures last", a.repository),
		rest.JSON("GET /api/v1/repository/wanted", access.ReadPlans, "The package that a host is to have, as its upgrades are rolled out", a.wantedPackage),
		rest.Plain("POST /api/v1/repository/packages", access.ManagePlans, "Add a package of the agent; its file is the body, its parameters are name (of the file) and sha256", "application/json", a.addPackage),
		rest.JSON("DELETE /api/v1/repository/packages/{id}", access.ManagePlans, "Take a version of the agent out of the repository", a.removePackages),
		rest.JSON("POST /api/v1/repository/rotate", access.ManagePlans, "Replace the keys that sign the repository; agents follow by themselves", a.rotateRepository),
		rest.Plain("GET /repository/", rest.Public, "The signed repository of packages (The Update Framework)", "application/octet-stream", a.serveRepository),
	}
}

func (a *api) repository(context.Context, *struct{}) (content.Status, error) {
	return a.known.repository.Status(), nil
}

type wantedPackageInput struct {
	Format string         `query:"format" default:"deb" maxLength:"16" doc:"deb or rpm"`
	Arch   string         `query:"arch" default:"amd64" maxLength:"16" doc:"amd64 or arm64"`
	Has    string         `query:"has" maxLength:"64" doc:"version of the agent that is on the host"`
	Device event.DeviceID `query:"device" maxLength:"64" doc:"that the host is and stays; none for one that enrols"`
}

// WantedPackage is the answer about a host.
type WantedPackage struct {
	Package *content.Package `json:"package" doc:"null when the repository has none that fits"`
	Why     string           `json:"why" doc:"what keeps the host from a newer version, or empty"`
}

// wantedPackage tells whoever installs on hosts what the engine would install.
func (a *api) wantedPackage(ctx context.Context, in *wantedPackageInput) (WantedPackage, error) {
	organization := access.ActorOf(ctx).Organization
	if in.Device != "" {
		if d, ok := a.devices.State(in.Device); !ok || d.Organization != organization {
			return WantedPackage{}, fault.New(fault.NotFound, "there is no device %s", in.Device)
		}
	}
	p, ok, why := a.known.given(organization, in.Device, in.Has, in.Format, in.Arch)
	if !ok {
		return WantedPackage{Why: why}, nil
	}
	return WantedPackage{&p, why}, nil
}

// owner refuses an organization that the installation is not of.
func (a *api) owner(ctx context.Context) error {
	own, err := a.access.Organization(ctx)
	if err == nil && own.ID != access.ActorOf(ctx).Organization {
		return fault.New(fault.NotFound, "the repository belongs to another organization")
	}
	return err
}

// uploadLimit is how long a package may take to arrive: 256 MB at 300 kB/s.
const uploadLimit = 15 * time.Minute

// addPackage streams a package to the disk.
func (a *api) addPackage(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	if err := a.owner(r.Context()); err != nil {
		a.refuse(w, err)
		return
	}
	if q.Get("name") == "" || len(q.Get("sha256")) != 64 {
		a.refuse(w, fault.New(fault.Invalid, "name the file and its hash: ?name=%s_1.2.3_amd64.deb&sha256=…", content.Agent))
		return
	}
	// Neither end may hold the other up for ever. A recorder of tests has no
	// connection.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(uploadLimit))
	added, err := a.known.depot.add(r.Context(), q.Get("name"), rest.LargeBody(w, r, content.MaxPackage+1), q.Get("sha256"))
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		err = fault.New(fault.Exhausted, "the package is larger than %d MB", tooLarge.Limit>>20)
	}
	if err != nil {
		a.refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(Added{len(added)}) // who asked is gone
}

// Added says how many packages are new.
type Added struct {
	Added int `json:"added"`
}

type removePackagesInput struct {
	ID string `path:"id" doc:"a version"`
}

// Removed says how many packages were removed.
type Removed struct {
	Removed int `json:"removed"`
}

func (a *api) removePackages(ctx context.Context, in *removePackagesInput) (Removed, error) {
	if err := a.owner(ctx); err != nil {
		return Removed{}, err
	}
	n, err := a.known.depot.remove(ctx, in.ID)
	return Removed{n}, err
}

func (a *api) rotateRepository(ctx context.Context, _ *struct{}) (content.Status, error) {
	if err := a.owner(ctx); err != nil {
		return content.Status{}, err
	}
	// Who keeps the root key away from here does not want it back by a click.
	if a.known.repository.Status().Root.Offline {
		return content.Status{}, fault.New(fault.Managed, "the root key is not on the control plane; replace the keys on its host: komainu-control content rotate --root-key FILE")
	}
	if err := a.known.depot.rotate(ctx, content.RootKeys{}); err != nil {
		return content.Status{}, err
	}
	return a.known.repository.Status(), nil
}

func (a *api) serveRepository(w http.ResponseWriter, r *http.Request) {
	missing := func(w http.ResponseWriter, r *http.Request) {
		a.refuse(w, fault.New(fault.NotFound, "the repository has no file %s", r.URL.Path))
	}
	a.known.repository.Handler("/repository/", missing).ServeHTTP(w, r)
}
