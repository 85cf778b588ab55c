package enrol

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"komainu/event"
	"komainu/fault"
	"komainu/internal/atomicfile"
)

// A CA is replaced in three steps, so that no device is ever without a control
// plane that it trusts:
//
//  1. Rotate makes the next CA beside the one in use. The server goes on
//     showing a certificate of the old one.
//  2. Devices renew. They get certificates of the next CA, and with them, over
//     the connection that the old CA vouches for, both CAs to trust.
//  3. When every certificate that could still be used is of the next CA,
//     Settle drops the old one: the server shows a certificate of the new CA.

// Files of the next CA in Config.Dir.
const (
	caCert   = "ca.pem"
	caKey    = "ca.key"
	nextCert = "next-ca.pem"
	nextKey  = "next-ca.key"
)

// Rotation says how far the replacement of the CA is.
type Rotation struct {
	CA       string    `json:"ca"` // pin of the CA that the server's certificate is of
	NotAfter time.Time `json:"notAfter"`
	Next     string    `json:"next,omitempty"` // pin of the one that replaces it; "" when none does
	// Waiting is how many devices could still renew a certificate of the old
	// CA. They have not heard of the next one.
	Waiting int `json:"waiting"`
}

// openRing reads the CAs and completes a step that was interrupted.
func openRing(dir string, now time.Time) (ca, next *authority, err error) {
	cert, key := filepath.Join(dir, nextCert), filepath.Join(dir, nextKey)
	_, certErr := os.Stat(cert)
	_, keyErr := os.Stat(key)
	switch {
	case certErr == nil && errors.Is(keyErr, fs.ErrNotExist):
		// Adopt had moved the key, not the certificate.
		if err := os.Rename(cert, filepath.Join(dir, caCert)); err != nil {
			return nil, nil, err
		}
		atomicfile.SyncDir(dir)
	case certErr == nil:
		if next, err = readCA(cert, key); err != nil {
			return nil, nil, err
		}
	}
	ca, err = openCA(dir, now)
	return ca, next, err
}

// Rotation returns how far the replacement of the CA is.
func (a *Authority) Rotation(ctx context.Context) (Rotation, error) {
	a.mu.Lock()
	ca, next := a.ca, a.next
	a.mu.Unlock()
	r := Rotation{CA: ca.pin(), NotAfter: ca.cert.NotAfter}
	if next == nil {
		return r, nil
	}
	r.Next = next.pin()
	waiting, err := a.waiting(ctx, r.Next, 0)
	r.Waiting = len(waiting)
	return r, err
}

// waiting returns devices without a certificate of the CA with a pin, limit
// of them at most when it is not 0.
func (a *Authority) waiting(ctx context.Context, pin string, limit int) ([]event.DeviceID, error) {
	var devices []event.DeviceID
	q := a.cfg.DB.NewSelect().Model((*certRow)(nil)).ColumnExpr("DISTINCT device_id").
		Where("revoked_at IS NULL AND not_after > ?", a.cfg.Now().UTC().Add(-renewGrace)).
		Where("device_id NOT IN (SELECT device_id FROM certificates WHERE issuer = ?)", pin).Order("device_id")
	if limit > 0 {
		q = q.Limit(int64(limit))
	}
	return devices, q.Scan(ctx, &devices)
}

// Rotate makes the next CA. Errors: fault.Conflict while there is one already.
func (a *Authority) Rotate(ctx context.Context) (Rotation, error) {
	if err := a.addNext(); err != nil {
		return Rotation{}, err
	}
	select {
	case a.rotated <- struct{}{}:
	default:
	}
	return a.Rotation(ctx)
}

func (a *Authority) addNext() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next != nil {
		return fault.New(fault.Conflict, "the CA is being replaced already; it ends by itself when every device has renewed its certificate, or with ca rotate --finish")
	}
	next, err := createCA(filepath.Join(a.cfg.Dir, nextCert), filepath.Join(a.cfg.Dir, nextKey), a.cfg.Now())
	if err != nil {
		return fmt.Errorf("make the next CA: %w", err)
	}
	a.next = next
	a.cfg.Log.Info("the CA is being replaced; devices get certificates of the next one as they renew", "ca", a.ca.pin(), "next", next.pin())
	return nil
}

// Settle drops the old CA when no device depends on it any more, or, with
// finish, in any case: devices that it leaves behind have to enrol again.
func (a *Authority) Settle(ctx context.Context, finish bool) (Rotation, error) {
	r, err := a.Rotation(ctx)
	if err != nil {
		return r, err
	}
	switch {
	case r.Next == "" && finish:
		return r, fault.New(fault.Conflict, "the CA is not being replaced; ca rotate begins it")
	case r.Next == "" || r.Waiting > 0 && !finish:
		return r, nil
	}
	if err := a.adopt(); err != nil {
		return r, err
	}
	a.cfg.Log.Info("the old CA is dropped", "ca", r.Next, "devices_left_behind", r.Waiting)
	return a.Rotation(ctx)
}

// adopt puts the next CA in the place of the old one: the key first, so that
// openRing sees what is left to do.
func (a *Authority) adopt() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	dir := a.cfg.Dir
	for _, move := range [][2]string{{nextKey, caKey}, {nextCert, caCert}} {
		if err := os.Rename(filepath.Join(dir, move[0]), filepath.Join(dir, move[1])); err != nil {
			return fmt.Errorf("drop the old CA: %w", err)
		}
		atomicfile.SyncDir(dir)
	}
	a.ca, a.next = a.next, nil
	clear(a.server)
	return nil
}

// Times and amounts of a rotation.
const (
	rotateTick = 20 * time.Second
	// rotateAtOnce bounds the devices that are asked to renew in one tick.
	rotateAtOnce = 50
)

// Run moves a rotation on until ctx ends: it asks connected devices to renew,
// a few at a time, and drops the old CA when it is not needed any more. renew
// asks one device; an error means that it is not connected or does not answer,
// and it is asked again later.
func (a *Authority) Run(ctx context.Context, connected func() []event.DeviceID, renew func(context.Context, event.DeviceID) error) error {
	tick := time.NewTicker(rotateTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-a.rotated:
		}
		if err := a.step(ctx, connected(), renew); err != nil && ctx.Err() == nil {
			a.cfg.Log.Warn("the replacement of the CA does not go on; it is tried again", "error", err)
		}
	}
}

func (a *Authority) step(ctx context.Context, connected []event.DeviceID, renew func(context.Context, event.DeviceID) error) error {
	a.mu.Lock()
	next := a.next
	a.mu.Unlock()
	if next == nil {
		return nil
	}
	waiting, err := a.waiting(ctx, next.pin(), 0)
	if err != nil {
		return err
	}
	asked := 0
	for _, id := range waiting {
		if asked == rotateAtOnce || ctx.Err() != nil {
			break
		}
		if !slices.Contains(connected, id) {
			continue
		}
		asked++
		ask, cancel := context.WithTimeout(ctx, rotateTick)
		err := renew(ask, id)
		cancel()
		if err != nil {
			a.cfg.Log.Info("a device did not renew its certificate; it is asked again", "device", id, "error", err)
		}
	}
	_, err = a.Settle(ctx, false)
	return err
}

// issuer is the CA that issues certificates for devices.
func (a *Authority) issuer() *authority {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next != nil {
		return a.next
	}
	return a.ca
}

// roots are the CAs whose certificates count.
func (a *Authority) roots() *x509.CertPool {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.ca.pool()
	if a.next != nil {
		p.AddCert(a.next.cert)
	}
	return p
}

// Keys gives every file of keys to save, while none of them changes.
func (a *Authority) Keys(save func(name string, content []byte) error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	root, err := os.OpenRoot(a.cfg.Dir)
	if err != nil {
		return fmt.Errorf("save the keys: %w", err)
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := root.ReadFile(name)
		if err != nil {
			return fmt.Errorf("save the keys: %w", err)
		}
		return save(name, content)
	})
}

type restoreRow struct {
	bun.BaseModel `bun:"table:restores"`

	MadeAt     time.Time
	RestoredAt time.Time
}

// Restored notes in a database that a backup has brought back what it holds.
func Restored(ctx context.Context, db bun.IDB, made, restored time.Time) error {
	_, err := db.NewInsert().Model(&restoreRow{MadeAt: made.UTC(), RestoredAt: restored.UTC()}).Exec(ctx)
	return err
}

// adoptable reports whether a certificate that is not in the database was
// issued between a backup and its restore: to a device that is known and not
// offboarded. It is then kept like any other.
func (a *Authority) adoptable(ctx context.Context, id event.DeviceID, c *x509.Certificate) (bool, error) {
	issued := c.NotBefore.Add(backdate).UTC()
	var ok bool
	err := a.cfg.DB.NewSelect().ColumnExpr(`
		EXISTS (SELECT 1 FROM restores WHERE made_at <= ? AND restored_at >= ?) AND
		EXISTS (SELECT 1 FROM certificates WHERE device_id = ?) AND
		NOT EXISTS (SELECT 1 FROM certificates WHERE device_id = ? AND revoked_at IS NOT NULL)`,
		issued.Add(time.Minute), issued.Add(-time.Minute), id, id).Scan(ctx, &ok)
	if err != nil || !ok {
		return false, err
	}
	row := certRow{Serial: c.SerialNumber.Text(16), DeviceID: id, IssuedAt: issued, NotAfter: c.NotAfter.UTC(), Issuer: a.issuerOf(c)}
	if _, err := a.cfg.DB.NewInsert().Model(&row).On("CONFLICT DO NOTHING").Exec(ctx); err != nil {
		return false, err
	}
	a.cfg.Log.Info("a certificate from after the backup is known again", "device", id, "issued", issued)
	return true, nil
}

// issuerOf returns the pin of the CA that signed a certificate of ours.
func (a *Authority) issuerOf(c *x509.Certificate) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.next != nil && c.CheckSignatureFrom(a.next.cert) == nil {
		return a.next.pin()
	}
	return a.ca.pin()
}
