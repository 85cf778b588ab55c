package access

import (
	"context"
	"strings"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/db"
	"komainu/control/rest"
	"komainu/fault"
)

// UserInfo is a user as the API shows it.
type UserInfo struct {
	ID                 string     `json:"id"`
	Name               string     `json:"name"`
	Role               Role       `json:"role" enum:"reader,operator,admin"`
	MustChangePassword bool       `json:"mustChangePassword"`
	CreatedAt          time.Time  `json:"createdAt"`
	LastSignIn         *time.Time `json:"lastSignIn,omitempty"`
	OneTimePassword    string     `json:"oneTimePassword,omitempty" doc:"only in the answer to a creation or a reset"`
}

func (u *user) info() UserInfo {
	return UserInfo{ID: u.ID, Name: u.Name, Role: u.Role, MustChangePassword: u.MustChange, CreatedAt: u.CreatedAt, LastSignIn: u.LastSignIn}
}

// ListUsers answers GET /users.
func (a *Access) ListUsers(ctx context.Context, in *rest.Paging) (rest.List[UserInfo], error) {
	offset, err := in.Offset()
	if err != nil {
		return rest.List[UserInfo]{}, err
	}
	var rows []user
	total, err := db.Page(ctx, a.db.NewSelect().Model(&rows).Where("organization_id = ?", ActorOf(ctx).Organization).Order("name"), in.Limit, offset)
	if err != nil {
		return rest.List[UserInfo]{}, err
	}
	var items []UserInfo
	for _, u := range rows {
		items = append(items, u.info())
	}
	return rest.NewList(items, total, in.Next(offset, len(items), total)), nil
}

// CreateUserInput is the body of a new user.
type CreateUserInput struct {
	Body struct {
		Name string `json:"name" minLength:"2" maxLength:"64" pattern:"^[A-Za-z0-9][A-Za-z0-9._@+-]*$" doc:"letters, digits and . _ @ + -"`
		Role Role   `json:"role" enum:"reader,operator,admin"`
	}
}

// CreateUser answers POST /users. The answer holds the one-time password.
func (a *Access) CreateUser(ctx context.Context, in *CreateUserInput) (UserInfo, error) {
	password := oneTimePassword()
	hash, err := a.hasher.hash(ctx, password)
	if err != nil {
		return UserInfo{}, err
	}
	u := &user{ID: rest.NewID(), OrganizationID: ActorOf(ctx).Organization, Name: in.Body.Name, Role: in.Body.Role, PasswordHash: hash, MustChange: true, CreatedAt: a.now()}
	err = a.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		n, err := tx.NewSelect().Model((*user)(nil)).Where("name = ?", u.Name).Count(ctx)
		if err != nil {
			return err
		}
		if n > 0 {
			return fault.New(fault.Conflict, "there is already a user named %s", u.Name)
		}
		if _, err := tx.NewInsert().Model(u).Exec(ctx); err != nil {
			return err
		}
		return a.cfg.Record(ctx, tx, Change{Action: "user.create", Target: u.ID, Name: u.Name, Detail: map[string]any{"role": u.Role}})
	})
	if err != nil {
		return UserInfo{}, err
	}
	info := u.info()
	info.OneTimePassword = password
	return info, nil
}

// ChangeUserInput says what changes of a user.
type ChangeUserInput struct {
	ID   string `path:"id"`
	Body struct {
		Role          *Role `json:"role,omitempty" enum:"reader,operator,admin"`
		ResetPassword bool  `json:"resetPassword,omitempty" doc:"makes a one-time password and ends all sessions"`
	}
}

// ChangeUser answers PATCH /users/{id}.
func (a *Access) ChangeUser(ctx context.Context, in *ChangeUserInput) (UserInfo, error) {
	var password, hash string
	if in.Body.ResetPassword {
		password = oneTimePassword()
		var err error
		if hash, err = a.hasher.hash(ctx, password); err != nil {
			return UserInfo{}, err
		}
	}
	u := new(user)
	err := a.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if err := tx.NewSelect().Model(u).Where("id = ? AND organization_id = ?", in.ID, ActorOf(ctx).Organization).Scan(ctx); err != nil {
			return db.NotFound(err, "user", in.ID)
		}
		detail := map[string]any{}
		if in.Body.Role != nil && *in.Body.Role != u.Role {
			detail["role"] = []Role{u.Role, *in.Body.Role}
			u.Role = *in.Body.Role
		}
		if hash != "" {
			u.PasswordHash, u.MustChange = hash, true
			detail["password"] = "reset"
			if err := endSessions(ctx, tx, u.ID, ""); err != nil {
				return err
			}
		}
		if len(detail) == 0 {
			return nil
		}
		if _, err := tx.NewUpdate().Model(u).WherePK().Exec(ctx); err != nil {
			return err
		}
		if err := keepAnAdmin(ctx, tx, u.OrganizationID); err != nil {
			return err
		}
		return a.cfg.Record(ctx, tx, Change{Action: "user.change", Target: u.ID, Name: u.Name, Detail: detail})
	})
	if err != nil {
		return UserInfo{}, err
	}
	if password != "" {
		a.limits.forgive(u.Name)
	}
	info := u.info()
	info.OneTimePassword = password
	return info, nil
}

// ByID names one thing in a path.
type ByID struct {
	ID string `path:"id"`
}

// DeleteUser answers DELETE /users/{id}.
func (a *Access) DeleteUser(ctx context.Context, in *ByID) error {
	return a.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		u := new(user)
		if err := tx.NewSelect().Model(u).Where("id = ? AND organization_id = ?", in.ID, ActorOf(ctx).Organization).Scan(ctx); err != nil {
			return db.NotFound(err, "user", in.ID)
		}
		if _, err := tx.NewDelete().Model(u).WherePK().Exec(ctx); err != nil {
			return err
		}
		if err := keepAnAdmin(ctx, tx, u.OrganizationID); err != nil {
			return err
		}
		return a.cfg.Record(ctx, tx, Change{Action: "user.delete", Target: u.ID, Name: u.Name})
	})
}

// TokenInfo is an API token as the API shows it.
type TokenInfo struct {
	ID        string     `json:"id"`
	Label     string     `json:"label"`
	Role      Role       `json:"role" enum:"reader,operator,admin"`
	CreatedAt time.Time  `json:"createdAt"`
	CreatedBy string     `json:"createdBy"`
	ExpiresAt time.Time  `json:"expiresAt"`
	LastUsed  *time.Time `json:"lastUsed,omitempty"`
	Token     string     `json:"token,omitempty" doc:"the secret, only in the answer to its creation"`
}

func (t *token) info() TokenInfo {
	return TokenInfo{ID: t.ID, Label: t.Label, Role: t.Role, CreatedAt: t.CreatedAt, CreatedBy: t.CreatedBy, ExpiresAt: t.ExpiresAt, LastUsed: t.LastUsed}
}

// ListTokens answers GET /tokens.
func (a *Access) ListTokens(ctx context.Context, in *rest.Paging) (rest.List[TokenInfo], error) {
	offset, err := in.Offset()
	if err != nil {
		return rest.List[TokenInfo]{}, err
	}
	var rows []token
	total, err := db.Page(ctx, a.db.NewSelect().Model(&rows).Where("organization_id = ?", ActorOf(ctx).Organization).Order("created_at DESC", "id"), in.Limit, offset)
	if err != nil {
		return rest.List[TokenInfo]{}, err
	}
	var items []TokenInfo
	for _, t := range rows {
		items = append(items, t.info())
	}
	return rest.NewList(items, total, in.Next(offset, len(items), total)), nil
}

// CreateTokenInput is the body of a new API token.
type CreateTokenInput struct {
	Body struct {
		Label            string `json:"label" minLength:"1" maxLength:"128"`
		Role             Role   `json:"role" enum:"reader,operator,admin"`
		ExpiresInSeconds int64  `json:"expiresInSeconds,omitempty" minimum:"60" maximum:"31622400" doc:"90 days when left out"`
	}
}

// CreateToken answers POST /tokens. The answer holds the secret.
func (a *Access) CreateToken(ctx context.Context, in *CreateTokenInput) (TokenInfo, error) {
	life := time.Duration(in.Body.ExpiresInSeconds) * time.Second
	if life == 0 {
		life = 90 * 24 * time.Hour
	}
	secret, now := TokenPrefix+rest.Secret(32), a.now()
	t := &token{
		ID: rest.NewID(), OrganizationID: ActorOf(ctx).Organization, Label: strings.TrimSpace(in.Body.Label), Role: in.Body.Role, Hash: digest(secret),
		CreatedAt: now, CreatedBy: ActorOf(ctx).Name, ExpiresAt: now.Add(min(life, maxTokenLife)),
	}
	err := a.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if _, err := tx.NewInsert().Model(t).Exec(ctx); err != nil {
			return err
		}
		return a.cfg.Record(ctx, tx, Change{Action: "token.create", Target: t.ID, Name: t.Label, Detail: map[string]any{"role": t.Role, "expiresAt": t.ExpiresAt}})
	})
	if err != nil {
		return TokenInfo{}, err
	}
	info := t.info()
	info.Token = secret
	return info, nil
}

// DeleteToken answers DELETE /tokens/{id}.
func (a *Access) DeleteToken(ctx context.Context, in *ByID) error {
	return a.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		t := new(token)
		if err := tx.NewSelect().Model(t).Where("id = ? AND organization_id = ?", in.ID, ActorOf(ctx).Organization).Scan(ctx); err != nil {
			return db.NotFound(err, "API token", in.ID)
		}
		if _, err := tx.NewDelete().Model(t).WherePK().Exec(ctx); err != nil {
			return err
		}
		return a.cfg.Record(ctx, tx, Change{Action: "token.delete", Target: t.ID, Name: t.Label})
	})
}
