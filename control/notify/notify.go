// Package notify tells people of alerts and incidents: by signed webhooks, by
// mail and by syslog.
//
// What is to be told goes into an outbox within the transaction that makes it
// true, so a crash loses nothing. Run delivers what the outbox holds: in the
// order of each target, one at a time, again and again with growing pauses
// until the target takes it or too much was tried. A message has the same id
// in every attempt. A target that is slow or down holds up no other.
//
// Secrets are sealed in the database with a key that is beside the other keys
// of the control plane; no answer, log line or error holds one.
package notify

import (
	"context"
	"embed"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/access"
	"komainu/control/rest"
	"komainu/control/seal"
	"komainu/fault"
	"komainu/finding"
)

// Migrations are the tables of this slice.
//
//go:embed migrations/*.sql
var Migrations embed.FS

// Bounds.
const (
	maxTargets  = 50    // notifications of an organization
	maxPending  = 10000 // messages that wait for one target; more are dropped and counted
	maxDead     = 1000  // undeliverable messages that are kept of one target
	maxAttempts = 50    // with the pauses, most of a day
	maxRefused  = 5     // attempts that the receiver refused for good
	maxAge      = 24 * time.Hour
	firstPause  = 5 * time.Second
	longPause   = 30 * time.Minute
	lookEvery   = time.Minute
)

// Config is what a notifier needs.
type Config struct {
	DB      *bun.DB
	Dir     string // the folder of keys
	Log     *slog.Logger
	Version string
	Host    string // as syslog names this host; the host's name when empty
	Now     func() time.Time
	Record  access.Recorder
	// Changed is told what notification was changed or has delivered. It must
	// not block. May be nil.
	Changed func(organization, id string)
	// Pause replaces the pauses between attempts, for tests.
	Pause func(failures int) time.Duration
}

// Notifier is the slice. It is safe for concurrent use.
type Notifier struct {
	db   *bun.DB
	cfg  Config
	seal *seal.Sealer
	wake chan struct{} // capacity 1

	mu   sync.Mutex
	busy map[string]bool
	wait map[string]waiting
}

// waiting is a target that did not take the last message. It is kept by the
// monotonic clock and not stored: a restart tries at once.
type waiting struct {
	failures int
	until    time.Time
}

type row struct {
	bun.BaseModel `bun:"table:notifications"`

	ID             string `bun:",pk"`
	OrganizationID string
	Name           string
	Kind           Kind
	Enabled        bool
	MinSeverity    finding.Severity `bun:"type:integer"`
	IncludeTests   bool
	Triggers       []Trigger `bun:"type:json"`
	Target         Target    `bun:"type:json"`
	Secret         []byte    // sealed
	Version        int
	Dropped        int
	LastAt         *time.Time
	LastOk         bool
	LastDetail     string
	CreatedAt      time.Time
}

type outboxRow struct {
	bun.BaseModel `bun:"table:notification_outbox"`

	Seq            int64 `bun:",pk,autoincrement"`
	ID             string
	NotificationID string
	Message        json.RawMessage `bun:"type:text"`
	CreatedAt      time.Time
	Attempts       int
	Dead           bool
	Detail         string
}

// Open returns the notifier over a migrated database.
func Open(cfg Config) (*Notifier, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Changed == nil {
		cfg.Changed = func(string, string) {}
	}
	if cfg.Pause == nil {
		cfg.Pause = pause
	}
	if cfg.Host == "" {
		cfg.Host, _ = os.Hostname() // syslog writes "-" for none
	}
	s, err := seal.Open(cfg.Dir, "notify")
	if err != nil {
		return nil, err
	}
	return &Notifier{db: cfg.DB, cfg: cfg, seal: s, wake: make(chan struct{}, 1), busy: map[string]bool{}, wait: map[string]waiting{}}, nil
}

func (n *Notifier) now() time.Time { return n.cfg.Now().UTC().Truncate(time.Millisecond) }

// pause grows with every failure.
func pause(failures int) time.Duration {
	return min(firstPause<<min(failures-1, 16), longPause)
}

// Enqueue puts a message into the outbox of every notification that wants it,
// within the transaction that makes it true. Call Wake when it is committed.
func (n *Notifier) Enqueue(ctx context.Context, tx bun.IDB, organization string, m Message) error {
	var rows []row
	if err := tx.NewSelect().Model(&rows).Where("organization_id = ? AND enabled", organization).Scan(ctx); err != nil {
		return err
	}
	for i := range rows {
		if !rows[i].wants(&m) {
			continue
		}
		pending, err := tx.NewSelect().Model((*outboxRow)(nil)).Where("notification_id = ? AND NOT dead", rows[i].ID).Count(ctx)
		if err != nil {
			return err
		}
		if pending >= maxPending {
			if _, err := tx.NewUpdate().Model(&rows[i]).Set("dropped = dropped + 1").WherePK().Exec(ctx); err != nil {
				return err
			}
			continue
		}
		// An id for each target: what one has taken says nothing of another.
		m.ID, m.Version, m.Time = rest.NewID(), messageVersion, n.now()
		body, err := json.Marshal(m)
		if err != nil {
			return err
		}
		if _, err := tx.NewInsert().Model(&outboxRow{ID: m.ID, NotificationID: rows[i].ID, Message: body, CreatedAt: m.Time}).Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Wake says that the outbox may hold something new.
func (n *Notifier) Wake() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Run delivers until ctx ends. What is under way then ends or is tried again
// at the next start.
func (n *Notifier) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	defer workers.Wait()
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.wake:
		case <-tick.C:
		}
		due, err := n.due(ctx)
		if err != nil && ctx.Err() == nil {
			// A state that cannot be read for a while must not end the control
			// plane; the next look may find it well.
			n.cfg.Log.Error("the outbox of notifications cannot be read", "error", err)
		}
		for _, id := range due {
			workers.Go(func() { n.drain(ctx, id) })
		}
		tick.Reset(n.next())
	}
}

// due returns the notifications that have something to deliver now, and marks
// them busy.
func (n *Notifier) due(ctx context.Context) ([]string, error) {
	var ids []string
	err := n.db.NewRaw("SELECT id FROM notifications WHERE enabled AND id IN (SELECT notification_id FROM notification_outbox WHERE NOT dead) ORDER BY id").Scan(ctx, &ids)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	var due []string
	for _, id := range ids {
		if !n.busy[id] && !now.Before(n.wait[id].until) {
			n.busy[id] = true
			due = append(due, id)
		}
	}
	return due, nil
}

// next is how long until a target is to be tried again.
func (n *Notifier) next() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	least := lookEvery
	for id, w := range n.wait {
		if !n.busy[id] && !w.until.IsZero() {
			least = min(least, max(time.Until(w.until), 0))
		}
	}
	return max(least, time.Millisecond)
}

// drain delivers to one target, in order, until its outbox is empty or it
// does not take a message.
func (n *Notifier) drain(ctx context.Context, id string) {
	failed, err := n.deliverAll(ctx, id)
	if err != nil && ctx.Err() == nil {
		n.cfg.Log.Error("a notification could not be worked on", "notification", id, "error", err)
		failed = true
	}
	n.mu.Lock()
	n.busy[id] = false
	if failed {
		f := n.wait[id].failures + 1
		n.wait[id] = waiting{f, time.Now().Add(n.cfg.Pause(f))}
	} else {
		delete(n.wait, id)
	}
	n.mu.Unlock()
	if ctx.Err() == nil {
		// The loop takes the new pause, and what came in between.
		n.Wake()
	}
}

func (n *Notifier) deliverAll(ctx context.Context, id string) (failed bool, err error) {
	for {
		r := &row{ID: id}
		if err := n.db.NewSelect().Model(r).WherePK().Scan(ctx); err != nil {
			return false, gone(err)
		}
		if !r.Enabled {
			return false, nil
		}
		o := new(outboxRow)
		if err := n.db.NewSelect().Model(o).Where("notification_id = ? AND NOT dead", id).Order("seq").Limit(1).Scan(ctx); err != nil {
			return false, gone(err)
		}
		detail, sendErr := n.send(ctx, r, o.Message)
		if sendErr != nil && ctx.Err() != nil {
			return false, nil // not the target's fault
		}
		if err := n.settle(context.WithoutCancel(ctx), r, o, detail, sendErr); err != nil {
			return true, err
		}
		n.cfg.Changed(r.OrganizationID, id)
		if sendErr != nil {
			return true, nil
		}
	}
}

// settle writes down what became of an attempt. The target may have been
// deleted in between.
func (n *Notifier) settle(ctx context.Context, r *row, o *outboxRow, detail string, failure error) error {
	ok := failure == nil
	if !ok {
		detail = failure.Error()
		_, refused := errors.AsType[refusal](failure)
		o.Attempts++
		o.Detail = detail
		o.Dead = o.Attempts >= maxAttempts || refused && o.Attempts >= maxRefused || n.now().Sub(o.CreatedAt) > maxAge
		n.cfg.Log.Warn("a notification was not delivered", "notification", r.Name, "to", r.Target.where(), "delivery", o.ID, "attempt", o.Attempts, "given_up", o.Dead, "error", detail)
	}
	return n.db.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		var err error
		if ok {
			_, err = tx.NewDelete().Model(o).WherePK().Exec(ctx)
		} else {
			_, err = tx.NewUpdate().Model(o).Column("attempts", "dead", "detail").WherePK().Exec(ctx)
		}
		if err != nil {
			return err
		}
		if o.Dead {
			if _, err := tx.NewRaw(`DELETE FROM notification_outbox WHERE notification_id = ? AND dead AND seq NOT IN
				(SELECT seq FROM notification_outbox WHERE notification_id = ? AND dead ORDER BY seq DESC LIMIT ?)`, r.ID, r.ID, maxDead).Exec(ctx); err != nil {
				return err
			}
		}
		return n.last(ctx, tx, r.ID, ok, detail)
	})
}

// last writes down how the last delivery went.
func (n *Notifier) last(ctx context.Context, b bun.IDB, id string, ok bool, detail string) error {
	_, err := b.NewUpdate().Model((*row)(nil)).Set("last_at = ?, last_ok = ?, last_detail = ?", n.now(), ok, detail).Where("id = ?", id).Exec(ctx)
	return err
}

// send makes one attempt. Its error does not hold the secret.
func (n *Notifier) send(ctx context.Context, r *row, body []byte) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	var m Message
	if err := json.Unmarshal(body, &m); err != nil {
		return "", refusal{fmt.Errorf("the stored message cannot be read: %w", err)}
	}
	secret, err := n.seal.Open(r.ID, r.Secret)
	if err != nil {
		return "", err
	}
	var detail string
	switch r.Kind {
	case Webhook:
		detail, err = n.post(ctx, &r.Target, secret, &m, body)
	case SMTP:
		detail, err = n.mail(ctx, &r.Target, secret, &m)
	case Syslog:
		detail, err = n.syslog(ctx, &r.Target, &m)
	default:
		err = refusal{fault.New(fault.Unsupported, "this version does not know notifications by %s", r.Kind)}
	}
	if errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err) {
		err = fmt.Errorf("no answer within %d seconds: %w", int(attempt.Seconds()), err)
	}
	if err != nil {
		err = hide(err, secret)
	}
	return detail, err
}

// hidden is an error whose text does not hold a secret.
type hidden struct {
	text string
	err  error
}

func (h hidden) Error() string { return h.text }
func (h hidden) Unwrap() error { return h.err }

// hide takes a secret out of the text of an error, also where a server has
// repeated it in the form in which it was sent.
func hide(err error, secret string) error {
	if secret == "" {
		return hidden{bounded(err.Error()), err}
	}
	text := err.Error()
	for _, s := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret)), strings.TrimRight(base64.RawStdEncoding.EncodeToString([]byte(secret)), "=")} {
		text = strings.ReplaceAll(text, s, "…")
	}
	return hidden{bounded(text), err}
}

// bounded keeps what a stranger answers from filling the state.
func bounded(s string) string {
	if s = oneLine(s); len(s) > 500 {
		return strings.ToValidUTF8(s[:500], "") + "…"
	}
	return s
}
