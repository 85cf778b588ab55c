package content

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"syscall"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"golang.org/x/mod/semver"

	"komainu/fault"
)

// Package is a package that the repository vouches for.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch"`   // "amd64", "arm64"
	Format  string `json:"format"` // "deb", "rpm", "tar"
	Size    int64  `json:"size"`
	SHA256  string `json:"sha256"`
	Target  string `json:"target"` // its path in the repository's metadata
}

// plain is what a version and a name may look like: they end in file names
// and on command lines.
var plain = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+~-]{0,63}$`)

// packagesOf lists what the metadata says, the newest version first. What is
// described in a way that this version does not understand is passed over.
func packagesOf(t *metadata.Metadata[metadata.TargetsType]) []Package {
	list := []Package{}
	for name, file := range t.Signed.Targets {
		if file.Custom == nil || !fs.ValidPath(name) || len(file.Hashes["sha256"]) != sha256.Size || file.Length <= 0 || file.Length > maxPackage {
			continue
		}
		var p Package
		if json.Unmarshal(*file.Custom, &p) != nil || !plain.MatchString(p.Name) || !plain.MatchString(p.Version) || !semver.IsValid("v"+p.Version) {
			continue
		}
		p.Size, p.SHA256, p.Target = file.Length, hex.EncodeToString(file.Hashes["sha256"]), name
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b Package) int {
		return cmp.Or(semver.Compare("v"+b.Version, "v"+a.Version), cmp.Compare(a.Target, b.Target))
	})
	return list
}

// Find returns a package of a list, the newest when version is "".
func Find(list []Package, name, version, arch, format string) (Package, bool) {
	i := slices.IndexFunc(list, func(p Package) bool {
		return p.Name == name && p.Arch == arch && p.Format == format && (version == "" || p.Version == version)
	})
	if i < 0 {
		return Package{}, false
	}
	return list[i], true
}

// Fetch copies a package into a folder under a name, once it is whole and
// right: until then the name is what it was. A file that is there already and
// right is left alone.
//
// Errors: fault.Unauthentic for a file that is not the one that was signed,
// fault.Exhausted when the disk is full, else as Refresh.
func Fetch(ctx context.Context, from Source, p Package, dir *os.Root, name string) error {
	if Verify(p, dir, name) == nil {
		return nil
	}
	in, err := from.Open(ctx, path.Join("targets", path.Dir(p.Target), p.SHA256+"."+path.Base(p.Target)))
	if err != nil {
		return missing("package "+p.Target, err)
	}
	defer in.Close()
	partial := name + ".partial"
	out, err := dir.OpenFile(partial, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("keep the package: %w", err)
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, sum), io.LimitReader(in, p.Size+1))
	switch {
	case errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT):
		err = fault.Wrap(fault.Exhausted, err, "keep the package: free %d MB on the disk", p.Size>>20+1)
	case err != nil:
		err = fault.Wrap(fault.Unavailable, err, "the package %s broke off after %d of %d bytes", p.Target, n, p.Size)
	case n != p.Size || hex.EncodeToString(sum.Sum(nil)) != p.SHA256:
		err = wrong(p)
	default:
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err == nil {
		err = dir.Rename(partial, name)
	}
	if err != nil {
		return errors.Join(err, dir.Remove(partial))
	}
	if d, err := dir.Open("."); err == nil {
		_ = d.Sync() // as atomicfile.SyncDir
		_ = d.Close()
	}
	return nil
}

func wrong(p Package) error {
	return fault.New(fault.Unauthentic, "the package %s is not the one that was signed; it is not used", p.Target)
}

// Verify checks that a file is a package.
func Verify(p Package, dir *os.Root, name string) error {
	f, err := dir.Open(name)
	if err != nil {
		return fmt.Errorf("read the package: %w", err)
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, io.LimitReader(f, p.Size+1))
	if err != nil {
		return fmt.Errorf("read the package: %w", err)
	}
	if n != p.Size || hex.EncodeToString(sum.Sum(nil)) != p.SHA256 {
		return wrong(p)
	}
	return nil
}
