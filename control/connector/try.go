package connector

import (
	"context"
	"errors"
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

// Test looks at the machines of a connector as it would be after a change: it
// logs in and looks, and changes nothing. id is "" for one that is not there
// yet; of one that is, secrets that the change leaves out are used.
func (c *Connectors) Test(ctx context.Context, organization, id string, change *Change) (Report, error) {
	r := &row{ID: rest.NewID()}
	if id != "" {
		var err error
		if r, err = c.row(ctx, organization, id); err != nil {
			return Report{}, err
		}
	}
	if change != nil {
		if err := c.apply(r, *change); err != nil {
			return Report{}, err
		}
	}
	secret, err := c.secret(r)
	if err != nil {
		return Report{}, err
	}
	report, err := c.kinds[r.Kind].try(ctx, r, secret, id != "")
	for _, t := range report.Hosts {
		if t.OK {
			report.Passed++
		}
	}
	return report, err
}

// try logs in to the hosts of the list and looks.
func (k servers) try(ctx context.Context, r *row, secret sealed, saved bool) (Report, error) {
	s, err := k.settings(r)
	switch {
	case err != nil:
		return Report{}, err
	case s.Credential == Certificate && !saved:
		return Report{}, fault.New(fault.Conflict, "the CA for certificates is made when the connector is saved; save it, give its public key to the hosts, and test it then")
	case s.Credential == Push:
		return Report{}, fault.New(fault.Conflict, "this connector holds no credential: test and deploy from your workstation with komainuctl deploy")
	}
	keys := func() remote.HostKeys { return unpinned{} }
	if saved {
		keys = func() remote.HostKeys { return &pins{c: k.c, connector: r.ID, policy: s} }
	}
	list, err := remote.ParseInventory(s.Hosts, s.Port)
	if err != nil {
		return Report{}, err
	}
	report := Report{Total: len(list), Hosts: make([]Tried, min(len(list), maxTried))}
	var all sync.WaitGroup
	slots := make(chan struct{}, atOnce)
	for i := range report.Hosts {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			e := list[i]
			t := Tried{Name: e.Name, Address: e.Address(s.Port)}
			facts, err := k.look(ctx, s, secret, t.Address, e.User, keys())
			if err == nil {
				t.Facts = &facts
			}
			if failure, ok := errors.AsType[*deploy.Failure](err); ok {
				t.Reason = &failure.Reason
			} else if err != nil {
				t.Reason = new(deploy.ReasonOf(deploy.ConnectorFailed, err.Error()))
			}
			if err == nil {
				if f := facts.Check(deploy.Requirements{Now: k.c.cfg.Now()}); f != nil {
					t.Reason = &f.Reason
				}
			}
			t.OK = t.Reason == nil
			report.Hosts[i] = t
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
