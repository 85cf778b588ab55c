// Package access knows who may use the control plane: the organization, its
// users with their roles and passwords, sessions of browsers, and API tokens.
//
// Secrets are kept as hashes only: passwords by argon2id, sessions and tokens,
// which are random, by SHA-256. Gate names the Actor behind a request and
// checks the permission that the route asks for; handlers read the actor with
// ActorOf. Everything here is safe for concurrent use.
package access

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"log/slog"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/db"
	"komainu/control/rest"
	"komainu/fault"
)

// Migrations are the tables of this slice.
//
//go:embed migrations/*.sql
var Migrations embed.FS

// FirstUser is the name of the user that the first start creates.
const FirstUser = "admin"

// Lifetimes of sessions and tokens.
const (
	idleLimit     = 2 * time.Hour
	absoluteLimit = 12 * time.Hour
	touchEvery    = time.Minute // last use is written at most this often
	maxTokenLife  = 366 * 24 * time.Hour
)

// Config is what Access needs.
type Config struct {
	Log     *slog.Logger
	Version string  // shown in a session
	Hashing Hashing // the cost of new password hashes
	Now     func() time.Time
	Record  Recorder
}

// Access is the slice.
type Access struct {
	db     *bun.DB
	cfg    Config
	hasher *hasher
	limits *limiter
}

// New returns the slice over a migrated database.
func New(b *bun.DB, cfg Config) *Access {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Hashing == (Hashing{}) {
		cfg.Hashing = DefaultHashing
	}
	return &Access{db: b, cfg: cfg, hasher: newHasher(cfg.Hashing), limits: newLimiter(cfg.Now)}
}

// now is in UTC and without the parts that the database does not keep.
func (a *Access) now() time.Time { return a.cfg.Now().UTC().Truncate(time.Millisecond) }

// Bootstrap makes the organization and the first administrator where there is
// none, and returns the one-time password of an administrator that it made,
// else "".
func (a *Access) Bootstrap(ctx context.Context, organization string) (password string, err error) {
	count, err := a.db.NewSelect().Model((*user)(nil)).Where("role = ?", Admin).Count(ctx)
	if err != nil {
		return "", err
	}
	if count > 0 {
		return "", nil
	}
	password = oneTimePassword()
	hash, err := a.hasher.hash(ctx, password)
	if err != nil {
		return "", err
	}
	err = a.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		org := new(Organization)
		err := tx.NewSelect().Model(org).Limit(1).Scan(ctx)
		if errors.Is(err, sql.ErrNoRows) {
			*org = Organization{ID: rest.NewID(), Name: organization, CreatedAt: a.now()}
			_, err = tx.NewInsert().Model(org).Exec(ctx)
		}
		if err != nil {
			return err
		}
		u := &user{ID: rest.NewID(), OrganizationID: org.ID, Name: FirstUser, Role: Admin, PasswordHash: hash, MustChange: true, CreatedAt: a.now()}
		if _, err := tx.NewInsert().Model(u).Exec(ctx); err != nil {
			return err
		}
		return a.cfg.Record(ctx, tx, Change{Action: "user.create", Target: u.ID, Name: u.Name, Detail: map[string]any{"role": u.Role, "reason": "first start"}})
	})
	return password, err
}

// ResetAdmin gives the first administrator a new one-time password and ends
// its sessions; where that user is gone it is made again. It is for someone
// on the host and works while the server runs.
func (a *Access) ResetAdmin(ctx context.Context) (name, password string, err error) {
	password = oneTimePassword()
	hash, err := a.hasher.hash(ctx, password)
	if err != nil {
		return "", "", err
	}
	err = a.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		u := new(user)
		err := tx.NewSelect().Model(u).Where("name = ?", FirstUser).Scan(ctx)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			org := new(Organization)
			if err := tx.NewSelect().Model(org).Limit(1).Scan(ctx); err != nil {
				return fault.New(fault.Conflict, "this state has never been started; komainu-control run makes the first administrator")
			}
			u = &user{ID: rest.NewID(), OrganizationID: org.ID, Name: FirstUser, Role: Admin, PasswordHash: hash, MustChange: true, CreatedAt: a.now()}
			_, err = tx.NewInsert().Model(u).Exec(ctx)
		case err == nil:
			u.Role, u.PasswordHash, u.MustChange = Admin, hash, true
			_, err = tx.NewUpdate().Model(u).WherePK().Exec(ctx)
		}
		if err != nil {
			return err
		}
		if err := endSessions(ctx, tx, u.ID, ""); err != nil {
			return err
		}
		return a.cfg.Record(ctx, tx, Change{Action: "user.reset_password", Target: u.ID, Name: u.Name, Detail: map[string]string{"by": "komainu-control admin reset"}})
	})
	return FirstUser, password, err
}

// Organization returns the one organization of this installation.
func (a *Access) Organization(ctx context.Context) (Organization, error) {
	var org Organization
	err := a.db.NewSelect().Model(&org).Limit(1).Scan(ctx)
	return org, db.NotFound(err, "organization", "")
}

// signIn checks a name and a password and opens a session.
func (a *Access) signIn(ctx context.Context, name, password, address string) (u *user, secret string, err error) {
	if err := a.limits.check(name, address); err != nil {
		return nil, "", err
	}
	u = new(user)
	err = a.db.NewSelect().Model(u).Where("name = ?", name).Scan(ctx)
	known := err == nil
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, "", err
	}
	hash := u.PasswordHash
	if !known {
		hash = a.hasher.nobody
	}
	ok, err := a.hasher.matches(ctx, password, hash)
	if err != nil {
		return nil, "", err
	}
	if !ok || !known {
		a.limits.failed(name, address)
		a.cfg.Log.Warn("sign-in failed", "name", name, "address", address)
		return nil, "", fault.New(fault.Unauthentic, "the name or the password is wrong")
	}
	a.limits.succeeded(name, address)
	secret, now := rest.Secret(32), a.now()
	err = a.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewDelete().Model((*session)(nil)).Where("expires_at < ? OR last_seen < ?", now, now.Add(-idleLimit)).Exec(ctx); err != nil {
			return err
		}
		s := &session{Hash: digest(secret), UserID: u.ID, CreatedAt: now, LastSeen: now, ExpiresAt: now.Add(absoluteLimit), Address: address}
		if _, err := tx.NewInsert().Model(s).Exec(ctx); err != nil {
			return err
		}
		u.LastSignIn = &now
		if _, err := tx.NewUpdate().Model(u).Column("last_sign_in").WherePK().Exec(ctx); err != nil {
			return err
		}
		ctx = WithActor(ctx, Actor{Kind: User, ID: u.ID, Name: u.Name, Role: u.Role, Organization: u.OrganizationID, Address: address})
		return a.cfg.Record(ctx, tx, Change{Action: "session.create", Target: u.ID, Name: u.Name})
	})
	return u, secret, err
}

// bySession returns the actor of a session.
func (a *Access) bySession(ctx context.Context, secret string) (Actor, error) {
	var s session
	err := a.db.NewSelect().Model(&s).Relation("User").Where("s.hash = ?", digest(secret)).Scan(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		return Actor{}, fault.New(fault.Unauthentic, "the session has ended; sign in again")
	}
	if err != nil {
		return Actor{}, err
	}
	now := a.now()
	if now.After(s.ExpiresAt) || now.Sub(s.LastSeen) > idleLimit {
		return Actor{}, fault.New(fault.Unauthentic, "the session has ended; sign in again")
	}
	if now.Sub(s.LastSeen) > touchEvery {
		if _, err := a.db.NewUpdate().Model(&s).Set("last_seen = ?", now).WherePK().Exec(ctx); err != nil {
			return Actor{}, err
		}
	}
	return Actor{Kind: User, ID: s.User.ID, Name: s.User.Name, Role: s.User.Role, Organization: s.User.OrganizationID, session: s.Hash, locked: s.User.MustChange}, nil
}

// byToken returns the actor of an API token.
func (a *Access) byToken(ctx context.Context, secret string) (Actor, error) {
	var t token
	err := a.db.NewSelect().Model(&t).Where("hash = ?", digest(secret)).Scan(ctx)
	if errors.Is(err, sql.ErrNoRows) {
		return Actor{}, fault.New(fault.Unauthentic, "the API token is not known; it may have been deleted")
	}
	if err != nil {
		return Actor{}, err
	}
	now := a.now()
	if now.After(t.ExpiresAt) {
		return Actor{}, fault.New(fault.Unauthentic, "the API token expired at %s; make a new one", t.ExpiresAt.Format(time.RFC3339))
	}
	if t.LastUsed == nil || now.Sub(*t.LastUsed) > touchEvery {
		if _, err := a.db.NewUpdate().Model(&t).Set("last_used = ?", now).WherePK().Exec(ctx); err != nil {
			return Actor{}, err
		}
	}
	return Actor{Kind: Token, ID: t.ID, Name: t.Label, Role: t.Role, Organization: t.OrganizationID}, nil
}
