package access

import (
	"context"
	"time"

	"github.com/uptrace/bun"

	"komainu/fault"
)

// Organization is the tenant that owns everything.
type Organization struct {
	bun.BaseModel `bun:"table:organizations" json:"-"`
	ID            string    `bun:",pk" json:"id"`
	Name          string    `json:"name"`
	CreatedAt     time.Time `json:"createdAt"`
}

type user struct {
	bun.BaseModel  `bun:"table:users,alias:u"`
	ID             string `bun:",pk"`
	OrganizationID string
	Name           string
	Role           Role
	PasswordHash   string
	MustChange     bool `bun:"must_change_password"`
	CreatedAt      time.Time
	LastSignIn     *time.Time
}

type session struct {
	bun.BaseModel `bun:"table:sessions,alias:s"`
	Hash          string `bun:",pk"`
	UserID        string
	User          *user `bun:"rel:belongs-to,join:user_id=id"`
	CreatedAt     time.Time
	LastSeen      time.Time
	ExpiresAt     time.Time
	Address       string
}

type token struct {
	bun.BaseModel  `bun:"table:tokens,alias:t"`
	ID             string `bun:",pk"`
	OrganizationID string
	Label          string
	Role           Role
	Hash           string
	CreatedAt      time.Time
	CreatedBy      string
	ExpiresAt      time.Time
	LastUsed       *time.Time
}

// endSessions ends the sessions of a user, except one.
func endSessions(ctx context.Context, tx bun.IDB, userID, except string) error {
	_, err := tx.NewDelete().Model((*session)(nil)).Where("user_id = ? AND hash <> ?", userID, except).Exec(ctx)
	return err
}

// keepAnAdmin refuses a change after which nobody could administer an
// organization.
func keepAnAdmin(ctx context.Context, tx bun.IDB, organization string) error {
	n, err := tx.NewSelect().Model((*user)(nil)).Where("role = ? AND organization_id = ?", Admin, organization).Count(ctx)
	if err == nil && n == 0 {
		return fault.New(fault.Conflict, "this is the last administrator; give another user the role admin first")
	}
	return err
}
