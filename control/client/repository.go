package client

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
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
	Offline bool      `json:"offline"`
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

// WantedPackage is the package that a host is to have, nil when the repository
// has none that fits, and what keeps the host from a newer one.
type WantedPackage struct {
	Package *Package `json:"package"`
	Why     string   `json:"why"`
}

// WantedPackage returns what a host is to have that has a version of the agent
// and is a device; both are empty for one that has no agent or enrols anew.
func (c *Client) WantedPackage(ctx context.Context, format, arch, has, device string) (WantedPackage, error) {
	q := Query{"format": format, "arch": arch}
	if has != "" && device != "" {
		q["has"], q["device"] = has, device
	}
	return call[WantedPackage](ctx, c, "GET", "/repository/wanted", q.values(), nil)
}

// AddPackage adds the file of a package, which it reads twice. It returns
// whether the repository did not have it yet.
func (c *Client) AddPackage(ctx context.Context, name string, file io.ReadSeeker) (bool, error) {
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return false, err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return false, err
	}
	u := *c.base
	u.Path, u.RawQuery = "/api/v1/repository/packages", url.Values{"name": {name}, "sha256": {hex.EncodeToString(sum.Sum(nil))}}.Encode()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), struct{ io.Reader }{file})
	if err != nil {
		return false, err
	}
	r.Header.Set("Content-Type", "application/octet-stream")
	slow := *c.http
	slow.Timeout = uploadTimeout
	text, err := c.send(&slow, r)
	if err != nil {
		return false, err
	}
	var answer struct{ Added int }
	return answer.Added > 0, json.Unmarshal(text, &answer)
}

// uploadTimeout is how long a package may take on its way.
const uploadTimeout = 15 * time.Minute

// RemovePackages takes a version out of the repository and returns how many
// packages that were.
func (c *Client) RemovePackages(ctx context.Context, version string) (int, error) {
	answer, err := call[struct{ Removed int }](ctx, c, "DELETE", "/repository/packages/"+version, nil, nil)
	return answer.Removed, err
}

// RotateRepository replaces the keys that sign the repository.
func (c *Client) RotateRepository(ctx context.Context) (Repository, error) {
	return call[Repository](ctx, c, "POST", "/repository/rotate", nil, nil)
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
