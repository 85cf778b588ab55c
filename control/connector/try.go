package connector

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"komainu/control/rest"
	"komainu/deploy"
	"komainu/deploy/remote"
	"komainu/fault"
)

// Bounds of a test.
const (
	maxTried = 200
	atOnce   = 16
	tryLimit = 25 * time.Second
)

// Tried is what a test found of one host.
type Tried struct {
	Name    string         `json:"name"`
	Address string         `json:"address"`
	OK      bool           `json:"ok" doc:"whether it can get the agent"`
	Reason  *deploy.Reason `json:"reason"`
	Facts   *deploy.Facts  `json:"facts"`
}

// Report is the answer to a test.
type Report struct {
	Hosts  []Tried `json:"hosts"`
	Total  int     `json:"total" doc:"hosts in the list; at most 200 of them are tried"`
	Passed int     `json:"passed"`
}

// trial is a connector as it would be after a change.
type trial struct {
	*row
	secret sealed
	// saved are its settings as they are, nil for one that is not there yet.
	saved json.RawMessage
	typed Secret // by who tests
}

// Test looks at the machines of a connector as it would be after a change: it
// logs in and looks, and changes nothing. id is "" for one that is not there
// yet; of one that is, secrets that the change leaves out are used where it
// leads nowhere else. Errors: fault.Invalid when a secret is wanted again.
func (c *Connectors) Test(ctx context.Context, organization, id string, change *Change) (Report, error) {
	t := trial{row: &row{ID: rest.NewID()}}
	var err error
	if id != "" {
		if t.row, err = c.row(ctx, organization, id); err != nil {
			return Report{}, err
		}
		t.saved = t.Settings
	}
	if change != nil {
		if change.Secret != nil {
			t.typed = *change.Secret
		}
		if err := c.apply(t.row, *change); err != nil {
			return Report{}, err
		}
	}
	if t.secret, err = c.secret(t.row); err != nil {
		return Report{}, err
	}
	k := c.kinds[t.Kind]
	if err := k.testable(t); err != nil {
		return Report{}, err
	}
	// It is written down before anybody logs in anywhere.
	if err := c.cfg.Record(ctx, c.cfg.DB, c.tested(t)); err != nil {
		return Report{}, err
	}
	report, err := k.try(ctx, t)
	for _, h := range report.Hosts {
		if h.OK {
			report.Passed++
		}
	}
	return report, err
}

// testable refuses what there is no credential for, and what would take stored
// secrets where nobody has saved that they go: whoever may test could have
// them sent to a host of their own.
func (k servers) testable(t trial) error {
	s, err := k.settings(t.row)
	switch {
	case err != nil:
		return err
	case s.Credential == Certificate && t.saved == nil:
		return fault.New(fault.Conflict, "the CA for certificates is made when the connector is saved; save it, give its public key to the hosts, and test it then")
	case s.Credential == Push:
		return fault.New(fault.Conflict, "this connector holds no credential: from your workstation, komainuctl deploy --connector %q --dry-run tests it; without --dry-run it deploys", t.row.Name)
	case t.saved == nil || !k.elsewhere(t):
		return nil
	}
	var again []string
	if s.Credential == StoredKey && t.typed.PrivateKey == "" {
		again = append(again, "private key")
	}
	if s.Sudo == string(remote.WithPassword) && t.typed.SudoPassword == "" {
		again = append(again, "password for sudo")
	}
	if len(again) == 0 {
		return nil
	}
	return fault.New(fault.Invalid, "stored secrets are used only for the hosts, jump hosts, ports, users and host keys that are saved; give the %s again to test with these, or save first", strings.Join(again, " and the "))
}

// elsewhere reports whether the settings of a trial lead where the saved ones
// do not: to another host, on another way, as another user, or to one that is
// known by another key. A list that has become shorter does not.
func (k servers) elsewhere(t trial) bool {
	var saved SSH
	s, err := k.settings(t.row)
	if err != nil || t.saved == nil || json.Unmarshal(t.saved, &saved) != nil {
		return true
	}
	if s.HostKeys != saved.HostKeys || s.HostKeys == Listed && s.KnownHosts != saved.KnownHosts {
		return true
	}
	now, err := ways(s)
	was, err2 := ways(saved)
	return err != nil || err2 != nil || len(without(now, was)) > 0
}

// ways are the logins at the hosts of a list, with those on the way to each.
func ways(s SSH) ([]string, error) {
	jump, err := hops(s)
	if err != nil {
		return nil, err
	}
	var through strings.Builder
	for _, hop := range jump {
		through.WriteString(hop.User + "@" + hop.Address + ",")
	}
	list, err := remote.ParseInventory(s.Hosts, s.Port)
	all := make([]string, len(list))
	for i, e := range list {
		all[i] = through.String() + cmp.Or(e.User, s.User) + "@" + e.Address(s.Port)
	}
	return all, err
}

// try logs in to the hosts of the list and looks.
func (k servers) try(ctx context.Context, t trial) (Report, error) {
	s, err := k.settings(t.row)
	if err != nil {
		return Report{}, err
	}
	list, err := remote.ParseInventory(s.Hosts, s.Port)
	if err != nil {
		return Report{}, err
	}
	keys := &pins{c: k.c, connector: t.ID, policy: s, look: k.elsewhere(t)}
	report := Report{Total: len(list), Hosts: make([]Tried, min(len(list), maxTried))}
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i := range report.Hosts {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			e := list[i]
			h := Tried{Name: e.Name, Address: e.Address(s.Port)}
			facts, err := k.look(ctx, s, t.secret, h.Address, e.User, keys)
			if err == nil {
				h.Facts = &facts
			}
			if failure, ok := errors.AsType[*deploy.Failure](err); ok {
				h.Reason = &failure.Reason
			} else if err != nil {
				h.Reason = new(deploy.ReasonOf(deploy.ConnectorFailed, err.Error()))
			}
			if err == nil {
				if f := facts.Check(deploy.Requirements{Now: k.c.cfg.Now()}); f != nil {
					h.Reason = &f.Reason
				}
			}
			h.OK = h.Reason == nil
			report.Hosts[i] = h
		})
	}
	all.Wait()
	return report, nil
}

func (k servers) look(ctx context.Context, s SSH, secret sealed, address, login string, keys remote.HostKeys) (deploy.Facts, error) {
	ctx, cancel := context.WithTimeout(ctx, tryLimit)
	defer cancel()
	h, err := k.dial(ctx, s, secret, address, login, keys)
	if err != nil {
		return deploy.Facts{}, err
	}
	defer h.Close()
	return deploy.Inspect(ctx, h, k.c.cfg.Server)
}
