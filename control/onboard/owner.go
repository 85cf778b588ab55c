package onboard

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"komainu/control/machine"
	"komainu/deploy"
	"komainu/event"
	"komainu/fault"
)

// owns reports whether a device is that of the machine, although the host is
// the one who says so. That of another machine is, when that is known to be the
// same server; else somebody has to decide.
func (a *attempt) owns(ctx context.Context, m machine.Machine, d *Device) (bool, error) {
	other, ok := a.cfg.Machines.Of(d.ID)
	if !ok || other.ID == m.ID {
		return true, a.replaced(ctx, m, d.ID)
	}
	same, err := a.sameServer(ctx, m, other, d)
	switch {
	case err != nil:
		return false, err
	case same:
		// Before nobody knows any more what the machine was.
		if err := a.replaced(ctx, m, d.ID); err != nil {
			return false, err
		}
		return true, a.cfg.Machines.Merge(ctx, m.ID, other.ID)
	case m.Extension.Take:
		return false, nil
	}
	return false, deploy.Fail(deploy.EnrolledTwice, "that is "+other.Name+", device "+string(d.ID))
}

// replaced ends the identity that the machine had until its host became another
// device: it would be a second one of one server that never comes back.
func (a *attempt) replaced(ctx context.Context, m machine.Machine, by event.DeviceID) error {
	if m.Device == "" || m.Device == by {
		return nil
	}
	if d := a.cfg.Device(m.Organization, m.Device); d != nil && d.Connected && !d.Offboarded {
		return fmt.Errorf("the agent of the machine, device %s, has connected again meanwhile; what was reached is another server, device %s", m.Device, by)
	}
	return a.cfg.Replaced(ctx, m.Device, by)
}

// disowns returns nil when the agent that a host has may be taken off the
// machine, which is offboarded: its own, also one that is offboarded already.
// That of another machine is its own when it proves that both are the same
// server, and nobody can have meant another agent: the machine never had one,
// and this one was there when somebody offboarded it. The device goes with the
// machine then. An address is not enough for that: networks may have the same.
func (a *attempt) disowns(ctx context.Context, m machine.Machine, id event.DeviceID) error {
	d := a.cfg.Device(m.Organization, id)
	switch {
	case d != nil && d.Offboarded, d == nil && id == m.Device:
		return nil
	case id == m.Device: // the control plane was ended between the merge and what follows
		return a.cfg.Revoke(ctx, m.Organization, id)
	}
	other, ok := a.cfg.Machines.Of(id)
	same := d != nil && ok && mergeable(m, other) && m.Device == "" && other.FirstSeen.Before(m.OffboardedAt)
	var err error
	if same {
		same, err = a.proves(ctx, id)
	}
	switch {
	case err != nil:
		return err
	case !same:
		return deploy.Fail(deploy.EnrolledTwice, "it is device "+string(id)+" and was left alone")
	}
	if err := a.cfg.Machines.Merge(ctx, m.ID, other.ID); err != nil {
		return err
	}
	return a.cfg.Revoke(ctx, m.Organization, id)
}

// mergeable reports whether another machine can be the same server as one of an
// inventory: it came to be when an agent enrolled by itself.
func mergeable(m, other machine.Machine) bool {
	return other.Connector == "" && other.Environment == m.Environment
}

// sameServer reports whether another machine, which has a device, is the server
// that was reached: at an address that the agent itself calls its own, or the
// agent proves it. Who has said that this is a copy knows more than a proof: a
// copy has the key, too.
func (a *attempt) sameServer(ctx context.Context, m, other machine.Machine, d *Device) (bool, error) {
	switch {
	case !mergeable(m, other):
		return false, nil
	case reachedAt(a.host, m, d.Addresses):
		return true, nil
	case m.Extension.Take:
		return false, nil
	}
	return a.proves(ctx, d.ID)
}

// proves reports whether the agent on the host shows that it has the key of a
// device. The nonce is for this question alone, and known to nobody before it.
func (a *attempt) proves(ctx context.Context, id event.DeviceID) (bool, error) {
	n := deploy.NewNonce()
	proof, err := deploy.ProofFrom(ctx, a.host, n)
	if err != nil || proof == "" {
		return false, err
	}
	err = a.cfg.Proves(ctx, id, n, proof)
	if fault.Is(err, fault.Unauthentic) {
		a.cfg.Log.Warn("a host says that it is a device and cannot prove it", "machine", a.id, "device", id, "error", err)
		return false, nil
	}
	return err == nil, err
}

// reachedAt reports whether a host was reached at one of the addresses.
func reachedAt(h deploy.Host, m machine.Machine, addresses []string) bool {
	at := deploy.AddressOf(h)
	if at == "" {
		at = m.Address
		if host, _, err := net.SplitHostPort(at); err == nil {
			at = host
		}
	}
	ip, err := netip.ParseAddr(at)
	return err == nil && !ip.IsLoopback() && slices.ContainsFunc(addresses, func(other string) bool {
		known, err := netip.ParseAddr(other)
		return err == nil && known.Unmap() == ip.Unmap()
	})
}
