// Package access knows who may do what: the organization, its users with
// their roles, sessions of browsers, and API tokens.
//
// Passwords are stored as Argon2id hashes, session ids and tokens as SHA-256
// of 32 random bytes. Sign-in is rate-limited per user and per address.
package access

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/db"
	"komainu/control/rest"
	"komainu/fault"
)

// Migrations are the tables of this package.
//
//go:embed migrations
var Migrations embed.FS

// How long sessions last.
const (
	sessionIdle = 12 * time.Hour
	sessionMax  = 7 * 24 * time.Hour
)

// tokenPrefix makes API tokens easy to find in places where they should not be.
const tokenPrefix = "kmt_"

// Organization is the tenant.
type Organization struct {
	bun.BaseModel `bun:"table:organizations"`

	ID        string    `bun:",pk" json:"id"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"createdAt"`
}

// User is a person with a password.
type User struct {
	bun.BaseModel `bun:"table:users"`

	ID             string    `bun:",pk" json:"id"`
	OrganizationID string    `json:"-"`
	Name           string    `json:"name"`
	Role           Role      `json:"role"`
	Password       string    `json:"-"`
	MustChange     bool      `json:"mustChangePassword"`
	Disabled       bool      `json:"disabled"`
	CreatedAt      time.Time `json:"createdAt"`
}

type session struct {
	bun.BaseModel `bun:"table:sessions"`

	Hash      []byte `bun:",pk"`
	UserID    string
	CreatedAt time.Time
	UsedAt    time.Time
	ExpiresAt time.Time
}

// Token is an API token without its secret.
type Token struct {
	bun.BaseModel `bun:"table:api_tokens"`

	ID             string    `bun:",pk" json:"id"`
	OrganizationID string    `json:"-"`
	Hash           []byte    `json:"-"`
	Name           string    `json:"name"`
	Role           Role      `json:"role"`
	CreatedBy      string    `json:"createdBy"`
	CreatedAt      time.Time `json:"createdAt"`
	ExpiresAt      time.Time `json:"expiresAt"`
}

// Access is the access control of one control plane. It is safe for
// concurrent use.
type Access struct {
	db    *bun.DB
	cost  Cost
	now   func() time.Time
	limit *limiter
	dummy string // hash to verify against when there is no such user
}

// New returns the access control over a migrated database.
func New(d *bun.DB, cost Cost) *Access {
	return &Access{db: d, cost: cost, now: time.Now, limit: newLimiter(), dummy: cost.hash(rest.Secret(16))}
}

// Begin creates the organization and its administrator on the first start,
// and returns the one-time password then, "" later.
func (a *Access) Begin(ctx context.Context, organization string) (Organization, string, error) {
	var org Organization
	oneTime := ""
	err := a.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		err := tx.NewSelect().Model(&org).Limit(1).Scan(ctx)
		if !errors.Is(err, sql.ErrNoRows) {
			return err
		}
		org = Organization{ID: rest.NewID(), Name: organization, CreatedAt: a.now().UTC()}
		if _, err := tx.NewInsert().Model(&org).Exec(ctx); err != nil {
			return err
		}
		oneTime = oneTimePassword()
		u := User{ID: rest.NewID(), OrganizationID: org.ID, Name: "admin", Role: Admin, Password: a.cost.hash(oneTime), MustChange: true, CreatedAt: a.now().UTC()}
		_, err = tx.NewInsert().Model(&u).Exec(ctx)
		return err
	})
	return org, oneTime, err
}

// ResetAdmin gives the user "admin" a new one-time password, ends its
// sessions, and makes it an administrator again.
func (a *Access) ResetAdmin(ctx context.Context) (string, error) {
	oneTime := oneTimePassword()
	err := a.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		var u User
		if err := tx.NewSelect().Model(&u).Where("name = ?", "admin").Scan(ctx); err != nil {
			return db.NotFound(err, "user", "admin")
		}
		if _, err := tx.NewDelete().Model((*session)(nil)).Where("user_id = ?", u.ID).Exec(ctx); err != nil {
			return err
		}
		u.Password, u.MustChange, u.Disabled, u.Role = a.cost.hash(oneTime), true, false, Admin
		_, err := tx.NewUpdate().Model(&u).WherePK().Exec(ctx)
		return err
	})
	return oneTime, err
}

// errSignIn is the same for a wrong name and a wrong password.
var errSignIn = fault.New(fault.Unauthentic, "the name or the password is wrong")

// SignIn checks a password and returns the secret of a new session.
func (a *Access) SignIn(ctx context.Context, name, password, address string) (User, string, error) {
	if wait := a.limit.wait(a.now(), name, address); wait > 0 {
		return User{}, "", fault.New(fault.Exhausted, "too many failed attempts; try again in %s", wait.Round(time.Second))
	}
	var u User
	err := a.db.NewSelect().Model(&u).Where("name = ?", name).Scan(ctx)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return User{}, "", err
	}
	hash := u.Password
	if err != nil || u.Disabled {
		hash = a.dummy // takes as long as a user that exists
	}
	if ok := verify(hash, password); !ok || err != nil || u.Disabled {
		a.limit.failed(a.now(), name, address)
		return User{}, "", errSignIn
	}
	a.limit.succeeded(name)
	secret, err := a.newSession(ctx, a.db, u.ID)
	return u, secret, err
}

func (a *Access) newSession(ctx context.Context, d bun.IDB, user string) (string, error) {
	secret, now := rest.Secret(32), a.now().UTC()
	s := session{Hash: hashOf(secret), UserID: user, CreatedAt: now, UsedAt: now, ExpiresAt: now.Add(sessionMax)}
	if _, err := d.NewDelete().Model((*session)(nil)).Where("expires_at < ? OR used_at < ?", now, now.Add(-sessionIdle)).Exec(ctx); err != nil {
		return "", err
	}
	_, err := d.NewInsert().Model(&s).Exec(ctx)
	return secret, err
}

func hashOf(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

// errSession is what a session that ended answers.
var errSession = fault.New(fault.Unauthentic, "the session has ended; sign in again")

// BySession returns the actor of a session secret.
func (a *Access) BySession(ctx context.Context, secret string) (Actor, error) {
	var s session
	if err := a.db.NewSelect().Model(&s).Where("hash = ?", hashOf(secret)).Scan(ctx); err != nil {
		if errors.Is(err, sql.ErrNoRows) {
			return Actor{}, errSession
		}
		return Actor{}, err
	}
	now := a.now().UTC()
	if now.After(s.ExpiresAt) || now.Sub(s.UsedAt) > sessionIdle {
		return Actor{}, errSession
	}
	var u User
	if err := a.db.NewSelect().Model(&u).Where("id = ?", s.UserID).Scan(ctx); err != nil || u.Disabled {
		return Actor{}, errSession
	}
	if now.Sub(s.UsedAt) > time.Minute { // not a write per request
		if _, err := a.db.NewUpdate().Model(&s).Set("used_at = ?", now).WherePK().Exec(ctx); err != nil {
			return Actor{}, err
		}
	}
	return Actor{ID: u.ID, Name: u.Name, Role: u.Role, Organization: u.OrganizationID, MustChange: u.MustChange}, nil
}

// ByToken returns the actor of an API token.
func (a *Access) ByToken(ctx context.Context, secret string) (Actor, error) {
	var t Token
	err := a.db.NewSelect().Model(&t).Where("hash = ?", hashOf(secret)).Scan(ctx)
	if errors.Is(err, sql.ErrNoRows) || err == nil && a.now().After(t.ExpiresAt) {
		return Actor{}, fault.New(fault.Unauthentic, "the API token is not known, revoked or expired")
	}
	if err != nil {
		return Actor{}, err
	}
	return Actor{ID: t.ID, Name: t.Name, Role: t.Role, Organization: t.OrganizationID, Token: true}, nil
}

// SignOut ends a session.
func (a *Access) SignOut(ctx context.Context, secret string) error {
	_, err := a.db.NewDelete().Model((*session)(nil)).Where("hash = ?", hashOf(secret)).Exec(ctx)
	return err
}

// ChangePassword sets a user's own password, ends all sessions and returns
// the secret of a new one.
func (a *Access) ChangePassword(ctx context.Context, user, current, next string) (User, string, error) {
	var u User
	var secret string
	err := a.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if err := tx.NewSelect().Model(&u).Where("id = ?", user).Scan(ctx); err != nil {
			return db.NotFound(err, "user", user)
		}
		if !verify(u.Password, current) {
			return fault.New(fault.Invalid, "the current password is wrong")
		}
		if err := checkPassword(u.Name, next); err != nil {
			return err
		}
		if current == next {
			return fault.New(fault.Invalid, "the new password is the current one")
		}
		u.Password, u.MustChange = a.cost.hash(next), false
		if _, err := tx.NewUpdate().Model(&u).WherePK().Exec(ctx); err != nil {
			return err
		}
		if _, err := tx.NewDelete().Model((*session)(nil)).Where("user_id = ?", u.ID).Exec(ctx); err != nil {
			return err
		}
		var err error
		secret, err = a.newSession(ctx, tx, u.ID)
		return err
	})
	return u, secret, err
}

// Users lists the users by name.
func (a *Access) Users(ctx context.Context) ([]User, error) {
	var list []User
	err := a.db.NewSelect().Model(&list).Order("name").Scan(ctx)
	return list, err
}

// CreateUser adds a user with a one-time password, which it returns.
func (a *Access) CreateUser(ctx context.Context, organization, name string, role Role) (User, string, error) {
	if name == "" || len(name) > 64 {
		return User{}, "", fault.New(fault.Invalid, "a user's name has 1 to 64 characters")
	}
	if !role.Valid() {
		return User{}, "", fault.New(fault.Invalid, "role %q: want reader, operator or admin", role)
	}
	oneTime := oneTimePassword()
	u := User{ID: rest.NewID(), OrganizationID: organization, Name: name, Role: role, Password: a.cost.hash(oneTime), MustChange: true, CreatedAt: a.now().UTC()}
	if n, err := a.db.NewSelect().Model((*User)(nil)).Where("name = ?", name).Count(ctx); err != nil || n > 0 {
		if err == nil {
			err = fault.New(fault.Conflict, "there is a user %q already", name)
		}
		return User{}, "", err
	}
	_, err := a.db.NewInsert().Model(&u).Exec(ctx)
	return u, oneTime, err
}

// UpdateUser changes role or disables; nil leaves as it is. The last
// administrator stays one.
func (a *Access) UpdateUser(ctx context.Context, id string, role *Role, disabled *bool) (User, error) {
	var u User
	err := a.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if err := tx.NewSelect().Model(&u).Where("id = ?", id).Scan(ctx); err != nil {
			return db.NotFound(err, "user", id)
		}
		if role != nil {
			if !role.Valid() {
				return fault.New(fault.Invalid, "role %q: want reader, operator or admin", *role)
			}
			u.Role = *role
		}
		if disabled != nil {
			u.Disabled = *disabled
		}
		if _, err := tx.NewUpdate().Model(&u).WherePK().Exec(ctx); err != nil {
			return err
		}
		return keepAnAdmin(ctx, tx)
	})
	return u, err
}

// DeleteUser removes a user and its sessions.
func (a *Access) DeleteUser(ctx context.Context, id string) error {
	return a.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		res, err := tx.NewDelete().Model((*User)(nil)).Where("id = ?", id).Exec(ctx)
		if err != nil {
			return err
		}
		if n, _ := res.RowsAffected(); n == 0 {
			return fault.New(fault.NotFound, "there is no user %s", id)
		}
		return keepAnAdmin(ctx, tx)
	})
}

func keepAnAdmin(ctx context.Context, tx bun.Tx) error {
	n, err := tx.NewSelect().Model((*User)(nil)).Where("role = ? AND NOT disabled", Admin).Count(ctx)
	if err == nil && n == 0 {
		err = fault.New(fault.Conflict, "this is the last administrator; make another one first")
	}
	return err
}

// CreateToken makes an API token and returns its secret, which is stored
// nowhere.
func (a *Access) CreateToken(ctx context.Context, organization, name string, role Role, lasts time.Duration, by string) (Token, string, error) {
	if name == "" || len(name) > 64 {
		return Token{}, "", fault.New(fault.Invalid, "a token's name has 1 to 64 characters")
	}
	if !role.Valid() {
		return Token{}, "", fault.New(fault.Invalid, "role %q: want reader, operator or admin", role)
	}
	if lasts < time.Minute || lasts > 366*24*time.Hour {
		return Token{}, "", fault.New(fault.Invalid, "a token lasts from a minute to 366 days")
	}
	secret := tokenPrefix + rest.Secret(32)
	t := Token{ID: rest.NewID(), OrganizationID: organization, Hash: hashOf(secret), Name: name, Role: role, CreatedBy: by,
		CreatedAt: a.now().UTC(), ExpiresAt: a.now().Add(lasts).UTC()}
	if _, err := a.db.NewInsert().Model(&t).Exec(ctx); err != nil {
		return Token{}, "", fmt.Errorf("keep token: %w", err)
	}
	return t, secret, nil
}

// Tokens lists the API tokens, newest first.
func (a *Access) Tokens(ctx context.Context) ([]Token, error) {
	var list []Token
	err := a.db.NewSelect().Model(&list).Order("created_at DESC").Scan(ctx)
	return list, err
}

// DeleteToken revokes an API token.
func (a *Access) DeleteToken(ctx context.Context, id string) error {
	res, err := a.db.NewDelete().Model((*Token)(nil)).Where("id = ?", id).Exec(ctx)
	if err != nil {
		return err
	}
	if n, _ := res.RowsAffected(); n == 0 {
		return fault.New(fault.NotFound, "there is no API token %s", id)
	}
	return nil
}
