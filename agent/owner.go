package agent

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"syscall"

	"komainu/agent/link"
	"komainu/internal/atomicfile"
)

// owner is whose records wait in the spools. They tell what people did on this
// host, so a device that moves to another environment, or to another control
// plane, does not take them along.
type owner struct {
	Organization string `json:"organization"`
	Environment  string `json:"environment"`
	CA           string `json:"ca"`
}

// claimer sees to it that records go to the environment that they were
// recorded for. The link asks it before a session sends any.
type claimer struct {
	file    string
	discard func() error
	known   *owner // once it was looked up
}

// Claim removes what waits for another environment than that of the identity.
// What was recorded before the device was enrolled for the first time belongs
// to whom it is enrolled with.
func (c *claimer) Claim(id link.Identity) error {
	next := owner{Organization: id.Organization, Environment: id.Environment, CA: id.Authority()}
	if c.known == nil {
		text, err := os.ReadFile(c.file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			c.known = &next
			return c.note()
		case err != nil:
			return err
		}
		c.known = new(owner)
		if json.Unmarshal(text, c.known) != nil {
			c.known = new(owner) // damaged: nobody's
		}
	}
	if *c.known == next {
		return nil
	}
	if err := c.discard(); err != nil {
		return err
	}
	c.known = &next
	return c.note()
}

// note remembers the owner. A disk that is full does not keep the device from
// its control plane: at worst the next start discards once more.
func (c *claimer) note() error {
	text, err := json.Marshal(c.known)
	if err != nil {
		return err
	}
	err = atomicfile.Write(c.file, append(text, '\n'), 0o600)
	if err != nil && !errors.Is(err, syscall.ENOSPC) && !errors.Is(err, syscall.EDQUOT) {
		return err
	}
	return nil
}
