package link

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Claim notes which machine the identity was given to.
func (id Identity) Claim(dir, machine string) error {
	if machine == "" {
		return nil
	}
	next := id
	next.Machine = machine
	return id.replace(dir, next)
}

// awayFile is an identity that was given to another machine. It is kept until
// this one has its own: somebody may have copied a state folder on purpose, and
// the policy that came along is signed with its key.
const awayFile = "identity.copied.json"

// Away reads the identity that was put away here. Errors: as Load.
func Away(dir string) (Identity, error) { return load(dir, awayFile) }

// PutAway takes the identity out of use, so that the device is not enrolled.
func PutAway(dir string) error {
	identityLock.Lock()
	defer identityLock.Unlock()
	err := os.Rename(filepath.Join(dir, identityFile), filepath.Join(dir, awayFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return diskFault(err, "put the identity of another machine away")
}
