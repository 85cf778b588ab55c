package rest

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path"
	"reflect"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"komainu/fault"
)

// Permission is what a caller needs for a route.
type Permission string

// Public needs no credentials. SignedIn needs any, also those of a user who
// has to change the password first.
const (
	Public   Permission = "public"
	SignedIn Permission = "signed_in"
)

// Gate decides whether a request may use a route, and returns the context
// that names the caller to the handler.
type Gate func(r *http.Request, need Permission) (context.Context, error)

// Route is one row of the table of routes: what it answers, who may use it,
// and the handler.
type Route struct {
	Method     string
	Path       string
	Permission Permission
	Summary    string
	mount      func(a *API, r Route)
}

// JSON is a route whose handler returns the body of the answer. The pattern is
// "METHOD /path"; I is a huma input struct.
func JSON[I, O any](pattern string, need Permission, summary string, h func(context.Context, *I) (O, error)) Route {
	type output struct{ Body O }
	return route(pattern, need, summary, func(a *API, r Route) {
		huma.Register(a.huma, r.operation(a, http.StatusOK), func(ctx context.Context, in *I) (*output, error) {
			out, err := h(ctx, in)
			if err != nil {
				return nil, a.fault(ctx, err)
			}
			return &output{Body: out}, nil
		})
	})
}

// Empty is a route that answers 204 without a body.
func Empty[I any](pattern string, need Permission, summary string, h func(context.Context, *I) error) Route {
	return route(pattern, need, summary, func(a *API, r Route) {
		huma.Register(a.huma, r.operation(a, http.StatusNoContent), func(ctx context.Context, in *I) (*struct{}, error) {
			if err := h(ctx, in); err != nil {
				return nil, a.fault(ctx, err)
			}
			return nil, nil
		})
	})
}

// Full is a route whose output is a huma output struct, for those that set
// headers.
func Full[I, O any](pattern string, need Permission, summary string, h func(context.Context, *I) (*O, error)) Route {
	return route(pattern, need, summary, func(a *API, r Route) {
		huma.Register(a.huma, r.operation(a, 0), func(ctx context.Context, in *I) (*O, error) {
			out, err := h(ctx, in)
			if err != nil {
				return nil, a.fault(ctx, err)
			}
			return out, nil
		})
	})
}

// Plain is a route that writes its answer itself; media names what it writes.
func Plain(pattern string, need Permission, summary, media string, h http.HandlerFunc) Route {
	return route(pattern, need, summary, func(a *API, r Route) {
		op := r.operation(a, http.StatusOK)
		op.Responses = map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{media: {}}}}
		a.huma.OpenAPI().AddOperation(&op)
		a.mux.HandleFunc(pattern, func(w http.ResponseWriter, req *http.Request) {
			ctx, err := a.gate(req, r.Permission)
			if err != nil {
				a.fault(req.Context(), err).write(w)
				return
			}
			h(w, req.WithContext(ctx))
		})
	})
}

func route(pattern string, need Permission, summary string, mount func(*API, Route)) Route {
	method, path, _ := strings.Cut(pattern, " ")
	return Route{Method: method, Path: path, Permission: need, Summary: summary, mount: mount}
}

// operation describes the route to huma, gate included.
func (r Route) operation(a *API, status int) huma.Operation {
	id := strings.ToLower(r.Method) + strings.NewReplacer("/api/v1", "", "/", "-", "{", "", "}", "", ".", "-").Replace(r.Path)
	op := huma.Operation{
		OperationID: id, Method: r.Method, Path: r.Path, Summary: r.Summary, DefaultStatus: status,
		Description:                  "Permission: " + string(r.Permission),
		MaxBodyBytes:                 MaxBody,
		RejectUnknownQueryParameters: true,
	}
	if r.Permission != Public {
		op.Security = []map[string][]string{{"session": {}}, {"token": {}}}
	}
	op.Middlewares = huma.Middlewares{func(hc huma.Context, next func(huma.Context)) {
		req, w := humago.Unwrap(hc)
		ctx, err := a.gate(req, r.Permission)
		if err != nil {
			a.fault(req.Context(), err).write(w)
			return
		}
		next(huma.WithContext(hc, ctx))
	}}
	return op
}

// API serves the routes of a table and the description of them.
type API struct {
	mux     *http.ServeMux
	huma    huma.API
	log     *slog.Logger
	gate    Gate
	explain func(error) error
}

// NewAPI returns an API without routes. explain may give errors that come from
// below a kind and a message; it may be nil.
func NewAPI(log *slog.Logger, version string, gate Gate, explain func(error) error) *API {
	useProblems()
	a := &API{mux: http.NewServeMux(), log: log, gate: gate, explain: explain}
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "Komainu", Version: version, Description: "Server workload protection. Times are RFC 3339 in UTC; every error is a Problem."},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", schemaNamer()),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"session": {Type: "apiKey", In: "cookie", Name: "__Host-komainu", Description: "what POST /session sets"},
					"token":   {Type: "http", Scheme: "bearer", Description: "an API token, kmt_…"},
				},
			},
		},
		OpenAPIPath:   "/api/openapi",
		Formats:       map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat: "application/json",
	}
	a.huma = humago.New(a.mux, config)
	a.mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		a.fault(r.Context(), fault.New(fault.NotFound, "there is no %s %s in this API; /api/openapi.json lists what there is", r.Method, r.URL.Path)).write(w)
	})
	return a
}

// Mount adds routes.
func (a *API) Mount(routes ...Route) {
	for _, r := range routes {
		r.mount(a, r)
	}
}

// Handle adds a handler that is not part of the API.
func (a *API) Handle(pattern string, h http.Handler) { a.mux.Handle(pattern, h) }

// ServeHTTP answers a request.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

func (a *API) fault(ctx context.Context, err error) *Problem {
	if a.explain != nil {
		err = a.explain(err)
	}
	if r := requestOf(ctx); r.id != "" && fault.Is(err, fault.Internal) {
		if p, ok := err.(*Problem); ok {
			return p
		}
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			// Whoever asked has left: nothing failed here, and nobody reads this.
			return Fault(a.log, fault.Wrap(fault.Unavailable, err, "the request was taken back"))
		}
		return internal(a.log, r, err)
	}
	return Fault(a.log, err)
}

// schemaNamer names the schemas of types. Two packages may use one name: the
// second gets that of its package before it.
func schemaNamer() func(reflect.Type, string) string {
	var mu sync.Mutex
	taken := map[string]reflect.Type{}
	return func(t reflect.Type, hint string) string {
		for t.Kind() == reflect.Pointer {
			t = t.Elem()
		}
		mu.Lock()
		defer mu.Unlock()
		name := huma.DefaultSchemaNamer(t, hint)
		if other, ok := taken[name]; ok && other != t && t.Name() != "" {
			of := path.Base(t.PkgPath())
			name = strings.ToUpper(of[:1]) + of[1:] + name
		}
		taken[name] = t
		return name
	}
}
