package access

import (
	"context"
	"net"
	"net/http"
	"strings"

	"komainu/control/rest"
	"komainu/fault"
)

// Cookie is the name of the session's cookie. The prefix makes browsers insist
// on TLS, the whole site and no domain.
const Cookie = "__Host-komainu"

// TokenPrefix begins every API token, so that scanners of secrets find them.
const TokenPrefix = "kmt_"

var crossOrigin http.CrossOriginProtection

// Gate is the rest.Gate of the control plane: it finds out who sends the
// request and refuses who may not use the route.
func (a *Access) Gate(r *http.Request, need rest.Permission) (context.Context, error) {
	ctx := r.Context()
	bearer, isToken := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !isToken {
		// A browser sends the cookie by itself, so a request that changes
		// something has to come from our own pages.
		if err := crossOrigin.Check(r); err != nil {
			return nil, fault.New(fault.Denied, "the request comes from another site")
		}
	}
	if need == rest.Public {
		return WithActor(ctx, Actor{Kind: System, Name: "nobody", Address: address(r)}), nil
	}
	actor, err := a.identify(r, bearer, isToken)
	if err != nil {
		return nil, err
	}
	actor.Address = address(r)
	switch {
	case need == rest.SignedIn:
	case actor.locked:
		return nil, fault.New(fault.Denied, "change the one-time password first: POST /api/v1/session/password")
	case !actor.Role.May(need):
		return nil, fault.New(fault.Denied, "the role %s may not do this; it needs the permission %s", actor.Role, need)
	}
	return WithActor(ctx, actor), nil
}

func (a *Access) identify(r *http.Request, bearer string, isToken bool) (Actor, error) {
	if isToken {
		if !strings.HasPrefix(bearer, TokenPrefix) {
			return Actor{}, fault.New(fault.Unauthentic, "the Authorization header holds no API token; those begin with %s", TokenPrefix)
		}
		return a.byToken(r.Context(), bearer)
	}
	cookie, err := r.Cookie(Cookie)
	if err != nil {
		return Actor{}, fault.New(fault.Unauthentic, "sign in first, or send an API token")
	}
	return a.bySession(r.Context(), cookie.Value)
}

// Still reports whether the credentials of a long request are still good.
func (a *Access) Still(ctx context.Context) bool {
	switch actor := ActorOf(ctx); actor.Kind {
	case User:
		n, err := a.db.NewSelect().Model((*session)(nil)).Where("hash = ? AND expires_at > ?", actor.session, a.now()).Count(ctx)
		return err == nil && n == 1
	case Token:
		n, err := a.db.NewSelect().Model((*token)(nil)).Where("id = ? AND expires_at > ?", actor.ID, a.now()).Count(ctx)
		return err == nil && n == 1
	default:
		return false
	}
}

func address(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
