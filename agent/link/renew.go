package link

import (
	"context"
	"math/rand/v2"
	"time"

	"komainu/event"
	"komainu/fault"
	"komainu/wire"
)

// renew asks for a certificate for a new key and keeps both.
func renew(ctx context.Context, dir string, id Identity, proxy Proxy, now func() time.Time) (Identity, error) {
	key, csr, err := newKey()
	if err != nil {
		return id, err
	}
	config, err := id.tlsConfig(now)
	if err != nil {
		return id, err
	}
	var answer struct {
		Device      event.DeviceID `json:"device"`
		Certificate string         `json:"certificate"`
		CA          string         `json:"ca"`
		NotAfter    time.Time      `json:"notAfter"`
		ContentRoot []byte         `json:"contentRoot"`
	}
	c := newClient(proxy, config)
	defer c.close()
	if err := c.post(ctx, id.Server+"/agent/v1/renew", map[string]string{"csr": csr}, &answer); err != nil {
		return id, err
	}
	next := id
	next.Key, next.Certificate, next.NotAfter = key, answer.Certificate, answer.NotAfter
	if len(id.ContentRoot) == 0 {
		next.ContentRoot = answer.ContentRoot // a root that is there changes by its own signatures only
	}
	if answer.CA != "" && answer.CA != id.CA {
		// The control plane replaces its CA. The one that this device trusts
		// vouches for it: the answer came over a connection that it verified.
		next.Root, next.CA = id.Authority(), answer.CA
	}
	if _, err := next.tlsConfig(now); err != nil || answer.Device != id.Device {
		return id, fault.New(fault.Internal, "the control plane's answer makes no sense; the certificate stays as it is: %w", err)
	}
	if err := id.replace(dir, next); err != nil {
		return id, err
	}
	return next, nil
}

// renewals renews the certificate when it is time, beside the session: that
// goes on with the old one.
func (s *session) renewals(ctx context.Context) {
	tick := time.NewTicker(renewTick)
	defer tick.Stop()
	id := s.id
	// A fleet that enrolled together does not renew together.
	early := rand.N(max(1, id.NotAfter.Sub(id.renewAt())/4))
	var notBefore time.Time // after a failure
	for {
		command := ""
		select {
		case <-s.done:
			return
		case command = <-s.renews:
		case <-tick.C:
			if !s.l.after(id.renewAt().Add(-early)) || time.Now().Before(notBefore) {
				continue
			}
		}
		next, err := s.l.renew(ctx, id)
		id = next
		result := &wire.CommandResult{ID: command}
		if err != nil {
			notBefore = time.Now().Add(renewPause)
			result.Error = err.Error()
			s.l.cfg.Log.Warn("the certificate could not be renewed; it is tried again", "error", err, "valid_until", id.NotAfter)
		}
		if command != "" {
			if err := s.send(result); err != nil {
				s.fail(err)
			}
		}
	}
}

// renew replaces the certificate of id, and its key.
func (l *Link) renew(ctx context.Context, id Identity) (Identity, error) {
	next, err := renew(ctx, l.cfg.Dir, id, l.proxy(), l.cfg.Now)
	if err == nil {
		l.cfg.Log.Info("the certificate was renewed", "valid_until", next.NotAfter)
	}
	l.set(func(s *State) { s.NotAfter, s.Renewal = next.NotAfter, err })
	return next, err
}
