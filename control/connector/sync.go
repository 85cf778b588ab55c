package connector

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/connector/cloud"
	"komainu/control/db"
	"komainu/control/machine"
	"komainu/deploy"
	"komainu/fault"
)

// Times of the inventories of clouds. Those of servers change when somebody
// saves them, and are taken over then, or soon after when that was cut off.
const (
	syncEvery  = 5 * time.Minute
	syncLatest = 40 * time.Minute // between tries of one that fails
	lookEvery  = 15 * time.Second
	listLimit  = 4 * time.Minute
	askedLimit = 40 * time.Second // while somebody waits for it
	// soon is the least time between two inventories that machines ask for
	// which the last one did not name.
	soon = 20 * time.Second
	// syncsAtOnce bounds how many connectors are asked at the same time.
	syncsAtOnce = 4
	// syncTries bounds how often an inventory is asked for anew because the
	// connector was changed meanwhile.
	syncTries = 3
)

// visit is when an inventory was asked for, and when it is again.
type visit struct {
	last, next time.Time
	failures   int
}

// Sync takes over the inventory of a connector. What could be learned counts,
// also when a part of it could not: the error of the connector says so then.
func (c *Connectors) Sync(ctx context.Context, organization, id string) (machine.Synced, error) {
	r, err := c.row(ctx, organization, id)
	if err != nil {
		return machine.Synced{}, err
	}
	counts, failed, err := c.sync(ctx, r, askedLimit)
	if err == nil && failed != nil && counts == (machine.Synced{}) {
		err = fault.New(fault.Conflict, "%s", failed.Error())
	}
	return counts, err
}

// errChanged is an inventory for what a connector was before.
var errChanged = fault.New(fault.Conflict, "the connector was changed while its inventory was asked for; ask for it again")

// sync takes an inventory over. One that came too late, because somebody has
// changed the connector meanwhile, is dropped and asked for again.
func (c *Connectors) sync(ctx context.Context, r *row, limit time.Duration) (counts machine.Synced, failed *deploy.Failure, err error) {
	for try := 1; ; try++ {
		counts, failed, err = c.syncOnce(ctx, r, limit)
		if !errors.Is(err, errChanged) || try == syncTries {
			return counts, failed, err
		}
		if r, err = c.row(ctx, r.OrganizationID, r.ID); err != nil {
			return counts, failed, err
		}
	}
}

func (c *Connectors) syncOnce(ctx context.Context, r *row, limit time.Duration) (counts machine.Synced, failed *deploy.Failure, err error) {
	k, ok := c.kinds[r.Kind]
	if !ok {
		return counts, nil, fault.New(fault.Unsupported, "connectors of the kind %q are not in this version", r.Kind)
	}
	secret, err := c.secret(r)
	if err != nil {
		return counts, nil, err
	}
	asked, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	found, failed := k.inventory(asked, r, secret)
	found.Current = r.current
	if failed == nil || failed.Reason.ID == deploy.InventoryPartial {
		if counts, err = c.cfg.Synced(ctx, r.OrganizationID, r.EnvironmentID, r.ID, r.Kind, found); err != nil {
			return counts, failed, err
		}
	}
	c.visited(r.ID, failed)
	return counts, failed, c.noted(ctx, r, failed)
}

// current returns nil while a connector is as it was when it was read. Errors:
// fault.NotFound when it is deleted, errChanged.
func (r *row) current(ctx context.Context, tx bun.IDB) error {
	var version uint64
	err := tx.NewSelect().Model((*row)(nil)).Column("version").Where("id = ?", r.ID).Scan(ctx, &version)
	if err == nil && version != r.Version {
		return errChanged
	}
	return db.NotFound(err, "connector", r.ID)
}

// noted writes down how an inventory went. Whoever has changed the connector
// meanwhile is not overwritten.
func (c *Connectors) noted(ctx context.Context, r *row, failed *deploy.Failure) error {
	var reason *deploy.Reason
	if failed != nil {
		reason = &failed.Reason
	}
	q := c.cfg.DB.NewUpdate().Model(&row{Error: reason, SyncedAt: new(c.now())}).Column("error").Where("id = ? AND version = ?", r.ID, r.Version)
	if failed == nil || failed.Reason.ID == deploy.InventoryPartial {
		q = q.Column("synced_at")
	}
	_, err := q.Exec(ctx)
	c.cfg.Changed(r.OrganizationID, r.ID)
	return err
}

// visited decides when an inventory is asked for again: later and later while
// it fails, and never for all connectors in the same moment.
func (c *Connectors) visited(id string, failed *deploy.Failure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.visits[id]
	v.last, v.failures = c.now(), v.failures+1
	if failed == nil {
		v.failures = 0
	}
	wait := min(syncLatest, syncEvery<<min(max(0, v.failures-1), 10))
	v.next = v.last.Add(wait - rand.N(wait/5))
	c.visits[id] = v
}

// Run keeps the inventories of clouds up to date, and sees to it that those of
// servers are taken over, until ctx ends.
func (c *Connectors) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := c.syncDue(ctx); err != nil && ctx.Err() == nil {
			c.cfg.Log.Warn("the connectors cannot be looked at; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-c.wake:
		}
	}
}

func (c *Connectors) syncDue(ctx context.Context) error {
	var rows []*row
	err := c.cfg.DB.NewSelect().Model(&rows).
		Where("kind IN (?) OR synced_at IS NULL OR synced_at < updated_at", bun.List([]string{cloud.AWS, cloud.Azure, cloud.GCP})).Scan(ctx)
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	defer all.Wait()
	slots := make(chan struct{}, syncsAtOnce)
	for _, r := range rows {
		c.mu.Lock()
		due := !c.now().Before(c.visits[r.ID].next)
		c.mu.Unlock()
		if !due {
			continue
		}
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			_, failed, err := c.sync(ctx, r, listLimit)
			switch {
			case ctx.Err() != nil, fault.Is(err, fault.NotFound): // it is deleted
			case err != nil:
				c.visited(r.ID, deploy.Fail(deploy.ConnectorFailed, err.Error()))
				c.cfg.Log.Warn("an inventory cannot be taken over", "connector", r.ID, "error", err)
			case failed != nil:
				c.cfg.Log.Warn("a connector does not give its inventory", "connector", r.ID, "error", failed)
			}
		})
	}
	return nil
}

// expect has the inventory of a connector asked for soon: a machine has shown
// up that the last one did not name.
func (c *Connectors) expect(id string) {
	c.mu.Lock()
	v := c.visits[id]
	if v.failures == 0 && v.next.After(v.last.Add(soon)) {
		v.next = v.last.Add(soon)
		c.visits[id] = v
	}
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Recognized is the machine that evidence is about.
type Recognized struct{ Organization, Environment, Connector, Key string }

// Recognize finds the connector whose machine shows evidence of who it is.
// known reports whether a machine is in its inventory. Errors:
// fault.Unauthentic for evidence that no connector vouches for,
// fault.Unavailable for a machine that will be known in a moment.
func (c *Connectors) Recognize(ctx context.Context, organization string, e cloud.Evidence, known func(connector, key string) bool) (Recognized, error) {
	if len(e.Document) > cloud.MaxEvidence || len(e.Signature) > cloud.MaxEvidence {
		return Recognized{}, fault.New(fault.Invalid, "an identity document is larger than any cloud makes it")
	}
	k, ok := c.kinds[e.Cloud].(recognizer)
	if !ok {
		return Recognized{}, fault.New(fault.Invalid, "cloud %q is not known here", e.Cloud)
	}
	var rows []*row
	if err := c.cfg.DB.NewSelect().Model(&rows).Where("kind = ? AND organization_id = ?", e.Cloud, organization).Order("created_at").Scan(ctx); err != nil {
		return Recognized{}, err
	}
	refused := fault.New(fault.Unauthentic, "there is no connector for %s here; enrol with a join token", e.Cloud)
	expected := false
	for _, r := range rows {
		key, err := k.recognize(ctx, r, e)
		if err != nil {
			refused = fault.New(fault.Unauthentic, "the identity document is refused: %w; enrol with a join token if this machine belongs here", err)
			continue
		}
		if known(r.ID, key) {
			return Recognized{r.OrganizationID, r.EnvironmentID, r.ID, key}, nil
		}
		expected = true
		c.expect(r.ID)
	}
	if expected {
		return Recognized{}, fault.New(fault.Unavailable, "this machine is not in the inventory of its cloud's connector yet; it is asked for now, try again in a minute")
	}
	return Recognized{}, refused
}
