package plan

import (
	"cmp"
	"context"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/fault"
	"komainu/policy"
)

// Kinds of environments.
const (
	OnPremises = "onprem"
	Azure      = "azure"
	AWS        = "aws"
	GCP        = "gcp"
)

// externals say how the scopes of clouds are named.
var externals = map[string]struct {
	form *regexp.Regexp
	want string
}{
	Azure: {regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`), "an Azure subscription has an id like 01234567-89ab-cdef-0123-456789abcdef"},
	AWS:   {regexp.MustCompile(`^[0-9]{12}$`), "an AWS account has a number of 12 digits"},
	GCP:   {regexp.MustCompile(`^[a-z][a-z0-9-]{4,28}[a-z0-9]$`), "a GCP project has an id of 6 to 30 lower-case letters, digits and hyphens; it is not the project's name or number"},
}

// Creation is what somebody says of a new environment.
type Creation struct {
	Name     string `json:"name" minLength:"1" maxLength:"100"`
	Kind     string `json:"kind,omitempty" enum:"onprem,azure,aws,gcp" doc:"onprem when left out"`
	External string `json:"externalId,omitempty" maxLength:"200" doc:"id of the subscription, account or project"`
}

// check brings a creation into its form and says what is wrong with it.
func (c *Creation) check() (err error) {
	if c.Name, err = named(c.Name); err != nil {
		return err
	}
	c.Kind, c.External = cmp.Or(c.Kind, OnPremises), strings.ToLower(strings.TrimSpace(c.External))
	if c.Kind == OnPremises {
		if c.External != "" {
			return fault.New(fault.Invalid, "a site has no id elsewhere; leave it out")
		}
		return nil
	}
	scope, ok := externals[c.Kind]
	if !ok {
		return fault.New(fault.Invalid, "kind %q: want onprem, azure, aws or gcp", c.Kind)
	}
	if !scope.form.MatchString(c.External) {
		return fault.New(fault.Invalid, "%s, not %q", scope.want, c.External)
	}
	return nil
}

func named(name string) (string, error) {
	name = strings.TrimSpace(name)
	if name == "" || utf8.RuneCountInString(name) > 100 {
		return "", fault.New(fault.Invalid, "an environment's name has 1 to 100 characters")
	}
	return name, nil
}

// unique refuses an environment whose name or scope another one has: a
// machine has one plan.
func unique(ctx context.Context, tx bun.Tx, e *row) error {
	for _, is := range []struct{ column, value, message string }{
		{"name", e.Name, "there is an environment %q already"},
		{"external_id", e.ExternalID, "there is an environment for %s already"},
	} {
		if is.value == "" {
			continue
		}
		n, err := tx.NewSelect().Model((*row)(nil)).Where("organization_id = ? AND id <> ? AND ? = ?", e.OrganizationID, e.ID, bun.Ident(is.column), is.value).Count(ctx)
		if err != nil {
			return err
		}
		if n > 0 {
			return fault.New(fault.Conflict, is.message, is.value)
		}
	}
	return nil
}

// Rename gives an environment another name.
func (p *Plans) Rename(ctx context.Context, organization, id, name string) (Environment, error) {
	name, err := named(name)
	if err != nil {
		return Environment{}, err
	}
	var e row
	err = p.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		if e, err = p.row(ctx, tx, organization, id); err != nil {
			return err
		}
		was := e.Name
		e.Name = name
		if err := unique(ctx, tx, &e); err != nil {
			return err
		}
		if _, err := tx.NewUpdate().Model(&e).Column("name").WherePK().Exec(ctx); err != nil {
			return err
		}
		return p.cfg.Record(ctx, tx, access.Change{Action: "environment.rename", Target: e.ID, Name: e.Name, Detail: map[string]string{"was": was}})
	})
	if err != nil {
		return Environment{}, err
	}
	p.committed(&e)
	return e.view(), nil
}

// Delete forgets an environment whose plan is off. That nothing is in it is
// the caller's to check.
func (p *Plans) Delete(ctx context.Context, organization, id string) error {
	var e row
	err := p.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) (err error) {
		if e, err = p.row(ctx, tx, organization, id); err != nil {
			return err
		}
		if e.plan() != policy.Off {
			return fault.New(fault.Conflict, "the plan of %q is on; switch it off first", e.Name)
		}
		if _, err := tx.NewDelete().Model(&e).WherePK().Exec(ctx); err != nil {
			return err
		}
		return p.cfg.Record(ctx, tx, access.Change{Action: "environment.delete", Target: e.ID, Name: e.Name})
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	delete(p.tiers, id)
	p.mu.Unlock()
	p.cfg.Changed(organization, id)
	return nil
}
