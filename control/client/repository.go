package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"path"
	"time"

	"komainu/fault"
)

// Package is a package of the agent in the signed repository.
type Package struct {
	Name    string    `json:"name"`
	Version string    `json:"version"`
	Arch    string    `json:"arch"`
	Format  string    `json:"format"`
	Size    int64     `json:"size"`
	SHA256  string    `json:"sha256"`
	AddedAt time.Time `json:"addedAt"`
	Target  string    `json:"target"`
}

// RoleStatus is how long what a role of the repository has signed is good for.
type RoleStatus struct {
	Version int64     `json:"version"`
	Expires time.Time `json:"expires"`
}

// Repository is the state of the signed repository; its packages are sorted,
// the newest version first.
type Repository struct {
	Root      RoleStatus `json:"root"`
	Targets   RoleStatus `json:"targets"`
	Snapshot  RoleStatus `json:"snapshot"`
	Timestamp RoleStatus `json:"timestamp"`
	Packages  []Package  `json:"packages"`
	Problem   string     `json:"problem"`
}

// Repository returns what is in the signed repository.
func (c *Client) Repository(ctx context.Context) (Repository, error) {
	return call[Repository](ctx, c, "GET", "/repository", nil, nil)
}

// Download returns the content of a package, which has the hash that the API
// says.
func (c *Client) Download(ctx context.Context, p Package) ([]byte, error) {
	content, err := c.Get(ctx, path.Join("/repository/targets", path.Dir(p.Target), p.SHA256+"."+path.Base(p.Target)))
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != p.SHA256 {
		return nil, fault.New(fault.Unavailable, "the package %s came damaged: its hash is not the one in the repository; try again", p.Target)
	}
	return content, nil
}
