package access

import (
	"context"
	"net/http"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/db"
	"komainu/control/rest"
	"komainu/fault"
)

// Session is what the portal knows of who is signed in.
type Session struct {
	User               SessionUser         `json:"user"`
	MustChangePassword bool                `json:"mustChangePassword" doc:"nothing else works until POST /session/password"`
	Organization       SessionOrganization `json:"organization"`
	Version            string              `json:"version" doc:"of the control plane"`
	Role               Role                `json:"role" enum:"reader,operator,admin"`
	Permissions        []rest.Permission   `json:"permissions"`
}

// SessionUser is a user, or an API token.
type SessionUser struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Role Role   `json:"role"`
}

// SessionOrganization names the organization.
type SessionOrganization struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// SignInInput is the body of a sign-in.
type SignInInput struct {
	Body struct {
		Name     string `json:"name" maxLength:"64"`
		Password string `json:"password" maxLength:"1024"`
	}
}

// SessionOutput sets or clears the cookie.
type SessionOutput struct {
	SetCookie http.Cookie `header:"Set-Cookie"`
	Body      Session
}

// SignIn answers POST /session.
func (a *Access) SignIn(ctx context.Context, in *SignInInput) (*SessionOutput, error) {
	u, secret, err := a.signIn(ctx, in.Body.Name, in.Body.Password, ActorOf(ctx).Address)
	if err != nil {
		return nil, err
	}
	s, err := a.session(ctx, Actor{Kind: User, ID: u.ID, Name: u.Name, Role: u.Role, Organization: u.OrganizationID, locked: u.MustChange})
	if err != nil {
		return nil, err
	}
	return &SessionOutput{SetCookie: cookie(secret, absoluteLimit), Body: s}, nil
}

func cookie(secret string, life time.Duration) http.Cookie {
	return http.Cookie{
		Name: Cookie, Value: secret, Path: "/", MaxAge: int(life / time.Second),
		HttpOnly: true, Secure: true, SameSite: http.SameSiteStrictMode,
	}
}

// Session answers GET /session.
func (a *Access) Session(ctx context.Context, _ *struct{}) (Session, error) {
	return a.session(ctx, ActorOf(ctx))
}

func (a *Access) session(ctx context.Context, actor Actor) (Session, error) {
	org, err := a.organizationOf(ctx, actor)
	if err != nil {
		return Session{}, err
	}
	return Session{
		User:               SessionUser{actor.ID, actor.Name, actor.Role},
		MustChangePassword: actor.locked,
		Organization:       SessionOrganization{org.ID, org.Name},
		Version:            a.cfg.Version,
		Role:               actor.Role,
		Permissions:        actor.Role.Permissions(),
	}, nil
}

// SignOutOutput clears the cookie.
type SignOutOutput struct {
	Status    int
	SetCookie http.Cookie `header:"Set-Cookie"`
}

// SignOut answers DELETE /session.
func (a *Access) SignOut(ctx context.Context, _ *struct{}) (*SignOutOutput, error) {
	actor := ActorOf(ctx)
	if actor.Kind != User {
		return nil, fault.New(fault.Invalid, "an API token has no session; delete the token instead")
	}
	_, err := a.db.NewDelete().Model((*session)(nil)).Where("hash = ?", actor.session).Exec(ctx)
	return &SignOutOutput{Status: http.StatusNoContent, SetCookie: cookie("", -time.Second)}, err
}

// PasswordInput is the body of a change of password.
type PasswordInput struct {
	Body struct {
		Current string `json:"current" maxLength:"1024"`
		New     string `json:"new" maxLength:"1024" doc:"12 to 256 characters"`
	}
}

// ChangePassword answers POST /session/password: it ends every other session
// of the user.
func (a *Access) ChangePassword(ctx context.Context, in *PasswordInput) (Session, error) {
	actor := ActorOf(ctx)
	if actor.Kind != User {
		return Session{}, fault.New(fault.Invalid, "an API token has no password")
	}
	if err := a.limits.check(actor.Name, actor.Address); err != nil {
		return Session{}, err
	}
	u := new(user)
	if err := a.db.NewSelect().Model(u).Where("id = ?", actor.ID).Scan(ctx); err != nil {
		return Session{}, err
	}
	ok, err := a.hasher.matches(ctx, in.Body.Current, u.PasswordHash)
	if err != nil {
		return Session{}, err
	}
	if !ok {
		a.limits.failed(actor.Name, actor.Address)
		return Session{}, fault.New(fault.Invalid, "the current password is wrong")
	}
	if in.Body.New == in.Body.Current {
		return Session{}, fault.New(fault.Invalid, "the new password is the current one")
	}
	if err := checkPassword(in.Body.New, u.Name); err != nil {
		return Session{}, err
	}
	hash, err := a.hasher.hash(ctx, in.Body.New)
	if err != nil {
		return Session{}, err
	}
	err = a.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		u.PasswordHash, u.MustChange = hash, false
		if _, err := tx.NewUpdate().Model(u).Column("password_hash", "must_change_password").WherePK().Exec(ctx); err != nil {
			return err
		}
		if err := endSessions(ctx, tx, u.ID, actor.session); err != nil {
			return err
		}
		return a.cfg.Record(ctx, tx, Change{Action: "user.change_password", Target: u.ID, Name: u.Name})
	})
	if err != nil {
		return Session{}, err
	}
	actor.locked = false
	return a.session(ctx, actor)
}

// GetOrganization answers GET /organization.
func (a *Access) GetOrganization(ctx context.Context, _ *struct{}) (Organization, error) {
	return a.organizationOf(ctx, ActorOf(ctx))
}

// organizationOf returns the organization that an actor belongs to.
func (a *Access) organizationOf(ctx context.Context, actor Actor) (Organization, error) {
	var org Organization
	err := a.db.NewSelect().Model(&org).Where("id = ?", actor.Organization).Scan(ctx)
	return org, db.NotFound(err, "organization", actor.Organization)
}
