package policies

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"komainu/event"
	"komainu/fault"
	"komainu/policy"
)

// document is what is known of the document of a device. What the map of
// documents points to is never changed.
type document struct {
	bun.BaseModel `bun:"table:policy_documents"`

	DeviceID         event.DeviceID `bun:",pk"`
	Version          uint64
	Digest           string
	ComposedAt       time.Time
	Settings         map[string]string `bun:"type:json"`
	ConfirmedVersion uint64
	ConfirmedAt      *time.Time
	Confirmed        map[string]confirmation `bun:"type:json"`
	FailedVersion    uint64
	Error            string
}

// confirmation is a value that an agent applies.
type confirmation struct {
	Digest string    `json:"digest"`
	Since  time.Time `json:"since"`
}

// documents of all devices.
type documents struct {
	// writing is held from reading a document until its successor is stored,
	// so that one that was composed later is never overwritten by one that was
	// composed earlier.
	writing sync.Mutex
	mu      sync.Mutex
	of      map[event.DeviceID]*document
}

func (d *documents) load(ctx context.Context, state *bun.DB) error {
	var rows []*document
	if err := state.NewSelect().Model(&rows).Scan(ctx); err != nil {
		return fmt.Errorf("read policy documents: %w", err)
	}
	d.of = make(map[event.DeviceID]*document, len(rows))
	for _, r := range rows {
		d.of[r.DeviceID] = r
	}
	return nil
}

// get returns the document of a device, an empty one when it has none.
func (d *documents) get(id event.DeviceID) *document {
	d.mu.Lock()
	defer d.mu.Unlock()
	if doc := d.of[id]; doc != nil {
		return doc
	}
	return &document{DeviceID: id}
}

// store writes documents, then shows them. The caller holds writing.
func (d *documents) store(ctx context.Context, state *bun.DB, list []*document) error {
	if len(list) == 0 {
		return nil
	}
	if _, err := state.NewInsert().Model(&list).On("CONFLICT (device_id) DO UPDATE").Exec(ctx); err != nil {
		return fmt.Errorf("keep policy documents: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, doc := range list {
		d.of[doc.DeviceID] = doc
	}
	return nil
}

// Forget deletes the document of a device that is no longer there.
func (p *Policies) Forget(ctx context.Context, id event.DeviceID) error {
	d := &p.documents
	d.writing.Lock()
	defer d.writing.Unlock()
	if _, err := p.db.NewDelete().Model((*document)(nil)).Where("device_id = ?", id).Exec(ctx); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.of, id)
	return nil
}

// maxVersion is the largest version that an agent may claim to hold. It
// leaves room above it for as many changes as there will ever be.
const maxVersion = 1 << 62

// chunk is how many documents are composed and stored in one step; between
// two steps others come to write.
const chunk = 200

// Recompose brings the documents of devices up to date and returns the
// devices whose document has changed. A device whose document cannot be
// composed keeps the one that it has; the error says so.
func (p *Policies) Recompose(ctx context.Context, devices []Device) ([]event.DeviceID, error) {
	var changed []event.DeviceID
	var failed error
	for len(devices) > 0 && ctx.Err() == nil {
		n := min(chunk, len(devices))
		ids, err := p.recompose(ctx, devices[:n])
		if err != nil {
			failed = err
		}
		changed = append(changed, ids...)
		devices = devices[n:]
	}
	return changed, failed
}

func (p *Policies) recompose(ctx context.Context, devices []Device) ([]event.DeviceID, error) {
	p.documents.writing.Lock()
	defer p.documents.writing.Unlock()
	v, now := p.view.Load(), p.now()
	var list []*document
	var ids []event.DeviceID
	var failed error
	for i := range devices {
		c, err := p.compose(ctx, v, &devices[i])
		if err != nil {
			failed = fmt.Errorf("compose the policy of device %s: %w", devices[i].ID, err)
			continue
		}
		if doc := p.documents.get(devices[i].ID); doc.Digest != c.digest {
			list = append(list, doc.next(c, now))
			ids = append(ids, doc.DeviceID)
		}
	}
	if err := p.documents.store(ctx, p.db, list); err != nil {
		return nil, err
	}
	return ids, failed
}

// next returns the document with new content.
func (d *document) next(c *composed, now time.Time) *document {
	n := *d
	n.Version = d.Version + 1
	n.Digest, n.Settings, n.ComposedAt = c.digest, c.hashes, now
	if n.Confirmed == nil {
		n.Confirmed = map[string]confirmation{}
	}
	return &n
}

// Reported takes the version that an agent says it has applied, before it is
// sent its policy. One that this control plane has not heard of comes from
// before a backup was restored: the document rises above it.
func (p *Policies) Reported(ctx context.Context, id event.DeviceID, version uint64) error {
	if version == 0 {
		return nil
	}
	if version > maxVersion {
		return fault.New(fault.Invalid, "the agent says that it holds version %d of its policy, which cannot be; enrol it again", version)
	}
	p.documents.writing.Lock()
	defer p.documents.writing.Unlock()
	doc := p.documents.get(id)
	if version < doc.Version || version == doc.Version && version == doc.ConfirmedVersion {
		return nil
	}
	n := *doc
	n.Version = version
	// Without a digest the next composition counts as a change.
	n.Digest, n.ComposedAt = "", p.now()
	if n.Settings == nil {
		n.Settings = map[string]string{}
	}
	if n.Confirmed == nil {
		n.Confirmed = map[string]confirmation{}
	}
	return p.documents.store(ctx, p.db, []*document{&n})
}

// Signed composes and signs the document of a device as it is now. sources is
// false for an agent that would refuse a document which names them.
func (p *Policies) Signed(ctx context.Context, id event.DeviceID, sources bool) (policy.Signed, error) {
	d, err := p.cfg.Device(id)
	if err != nil {
		return policy.Signed{}, err
	}
	doc, c, err := p.current(ctx, d)
	if err != nil {
		return policy.Signed{}, err
	}
	full := c.document
	full.Version, full.Device, full.IssuedAt = doc.Version, string(id), doc.ComposedAt
	if !sources {
		full.Sources = nil
	}
	if err := full.Validate(); err != nil {
		return policy.Signed{}, err
	}
	return p.cfg.Sign(&full)
}

// current returns the document of a device, brought up to date, and what is
// in it.
func (p *Policies) current(ctx context.Context, d Device) (*document, *composed, error) {
	p.documents.writing.Lock()
	defer p.documents.writing.Unlock()
	c, err := p.compose(ctx, p.view.Load(), &d)
	if err != nil {
		return nil, nil, err
	}
	doc := p.documents.get(d.ID)
	if doc.Digest != c.digest {
		doc = doc.next(c, p.now())
		err = p.documents.store(ctx, p.db, []*document{doc})
	}
	return doc, c, err
}

// Confirmed notes what became of a document on a device: problem is why the
// agent refuses it, empty when it has applied it. It returns false for a
// version that is not the newest: what it held is not known any more.
func (p *Policies) Confirmed(ctx context.Context, id event.DeviceID, version uint64, problem string) (bool, error) {
	p.documents.writing.Lock()
	defer p.documents.writing.Unlock()
	doc := p.documents.get(id)
	if version == 0 || version != doc.Version {
		return false, nil
	}
	n := *doc
	if problem != "" {
		n.FailedVersion, n.Error = version, problem
		return true, p.documents.store(ctx, p.db, []*document{&n})
	}
	now := p.now()
	n.ConfirmedVersion, n.ConfirmedAt, n.FailedVersion, n.Error = version, &now, 0, ""
	n.Confirmed = make(map[string]confirmation, len(n.Settings))
	for name, digest := range n.Settings {
		was := doc.Confirmed[name]
		if was.Digest != digest {
			was = confirmation{digest, now}
		}
		n.Confirmed[name] = was
	}
	if version == doc.ConfirmedVersion && maps.Equal(n.Confirmed, doc.Confirmed) && doc.Error == "" {
		return true, nil // said once more
	}
	return true, p.documents.store(ctx, p.db, []*document{&n})
}

// state is how far a document is.
func (d *document) state() (pending, failed bool) {
	failed = d.Error != "" && d.FailedVersion == d.Version
	return !failed && (d.Version == 0 || d.ConfirmedVersion != d.Version), failed
}
