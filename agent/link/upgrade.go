package link

import (
	"komainu/deploy"
	"komainu/fault"
	"komainu/wire"
)

// Upgraded tells that the status of an upgrade has changed. It never waits.
func (l *Link) Upgraded() { poke(l.upgrade) }

// beginUpgrade starts an upgrade that the control plane asks for.
func (l *Link) beginUpgrade(u deploy.Upgrade) error {
	if l.cfg.Upgrade == nil {
		return fault.New(fault.Unsupported, "this agent cannot upgrade itself")
	}
	return l.cfg.Upgrade(u)
}

// upgrades sends the status of the last upgrade: when the session begins,
// since nothing says whether it arrived before, and when it changes.
func (s *session) upgrades() {
	if s.l.State().Protocol < wire.UpgradeProtocol || s.l.cfg.UpgradeStatus == nil {
		return
	}
	for {
		if status, ok := s.l.cfg.UpgradeStatus(); ok {
			if err := s.send(&wire.UpgradeStatus{Status: status}); err != nil {
				s.fail(err)
				return
			}
		}
		select {
		case <-s.done:
			return
		case <-s.l.upgrade:
		}
	}
}
