package link

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"komainu/event"
	"komainu/fault"
)

// OffboardOptions are what Offboard needs.
type OffboardOptions struct {
	Dir   string // state folder
	Force bool   // also when the control plane cannot be told
	Proxy Proxy
	Now   func() time.Time
}

// Offboard takes this device out: the control plane revokes its identity and
// no longer counts it, then the identity is put away here. untold says, with
// Force, why the control plane does not know of it.
//
// Errors, with which nothing has changed here: fault.NotFound when the device
// is not enrolled; fault.Denied when the control plane does not let hosts do
// this, which Force does not change; fault.Unavailable when it cannot be
// reached; fault.Unauthentic when it does not know the identity.
func Offboard(ctx context.Context, o OffboardOptions) (id Identity, untold, err error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if id, err = Load(o.Dir); err != nil {
		return id, nil, err
	}
	if untold = leave(ctx, id, o.Proxy, o.Now); untold != nil {
		if fault.Is(untold, fault.Denied) || !o.Force {
			return id, nil, untold
		}
	}
	return id, untold, id.end(o.Dir)
}

func leave(ctx context.Context, id Identity, proxy Proxy, now func() time.Time) error {
	config, err := id.tlsConfig(now)
	if err != nil {
		return err
	}
	c := newClient(proxy, config)
	defer c.close()
	var answer struct {
		Device event.DeviceID `json:"device"`
	}
	if err := c.post(ctx, id.Server+"/agent/v1/offboard", struct{}{}, &answer); err != nil {
		return err
	}
	if answer.Device != id.Device {
		return fault.New(fault.Unavailable, "the control plane's answer makes no sense; nothing was changed here")
	}
	return nil
}

// endedFile is the identity of a device that was offboarded here. Nothing
// reads it; it says which device this was.
const endedFile = "identity.offboarded.json"

// end takes the identity out of use, unless the device was enrolled anew
// meanwhile. One that was renewed meanwhile goes too.
func (id Identity) end(dir string) error {
	identityLock.Lock()
	defer identityLock.Unlock()
	now, err := Load(dir)
	switch {
	case errors.Is(err, errNotEnrolled):
		return nil
	case err == nil && now.Device != id.Device:
		return fault.New(fault.Conflict, "the device was enrolled anew while it was offboarded")
	}
	err = os.Rename(filepath.Join(dir, identityFile), filepath.Join(dir, endedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return diskFault(err, "put the identity away")
}
