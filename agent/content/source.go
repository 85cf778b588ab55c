package content

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"komainu/fault"
	"komainu/internal/regular"
)

// Source is where the files of a repository come from. It is not trusted.
type Source interface {
	// Open opens a file by its name in the repository, which fs.ValidPath
	// allows. An error wraps fs.ErrNotExist for a file that is not there, and
	// only then.
	Open(ctx context.Context, name string) (io.ReadCloser, error)
}

// SourceFunc is a source that is one func.
type SourceFunc func(ctx context.Context, name string) (io.ReadCloser, error)

// Open calls f.
func (f SourceFunc) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	return f(ctx, name)
}

// Folder is a repository in a folder: a medium that was carried here, or a
// mount. Nothing outside of it is opened, whatever links it holds.
func Folder(dir string) Source {
	return SourceFunc(func(_ context.Context, name string) (io.ReadCloser, error) {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, fault.New(fault.NotFound, "the folder %s cannot be opened: %s", dir, err) // not ErrNotExist: that would mean a file of it
		}
		defer root.Close()
		if _, err := root.Stat("metadata"); err != nil {
			return nil, fault.New(fault.NotFound, "%s holds no repository; copy one there with komainu-control content export", dir)
		}
		f, err := regular.Open(root, name)
		if errors.Is(err, regular.ErrNotRegular) {
			return nil, fault.New(fault.Invalid, "%s in %s is no regular file", name, dir)
		}
		if err != nil {
			return nil, err
		}
		return f, nil
	})
}

// Mirror is a copy of the repository that a web server has.
func Mirror(base string, transport http.RoundTripper) (Source, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fault.New(fault.Invalid, "%q is no address of a mirror; it looks like https://mirror.example/komainu", base)
	}
	client := &http.Client{Transport: transport}
	return SourceFunc(func(ctx context.Context, name string) (io.ReadCloser, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.JoinPath(name).String(), nil)
		if err != nil {
			return nil, err
		}
		res, err := client.Do(req)
		if err != nil {
			return nil, fault.Wrap(fault.Unavailable, err, "the mirror %s cannot be reached", u.Host)
		}
		switch res.StatusCode {
		case http.StatusOK:
			return res.Body, nil
		case http.StatusNotFound, http.StatusGone, http.StatusForbidden: // a store that may not be listed forbids what it does not have
			return nil, errors.Join(fmt.Errorf("the mirror %s answers %s for %s: %w", u.Host, res.Status, name, fs.ErrNotExist), res.Body.Close())
		}
		return nil, errors.Join(fault.New(fault.Unavailable, "the mirror %s answers %s for %s", u.Host, res.Status, name), res.Body.Close())
	}), nil
}

// metadataLimit is how long one file of metadata may take to come.
const metadataLimit = 30 * time.Second

// read reads a file of metadata, not more than most bytes of it.
func read(ctx context.Context, from Source, name string, most int64) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, metadataLimit)
	defer cancel()
	in, err := from.Open(ctx, name)
	if err != nil {
		return nil, missing(name, err)
	}
	defer in.Close()
	text, err := io.ReadAll(io.LimitReader(in, most+1))
	switch {
	case err != nil:
		return nil, fault.Wrap(fault.Unavailable, err, "read %s of the repository", name)
	case int64(len(text)) > most:
		return nil, fault.New(fault.Unauthentic, "%s of the repository does not end after %d bytes; nothing of it is used", name, most)
	}
	return text, nil
}

// missing gives the absence of a file a kind, and leaves what it is.
func missing(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(fault.NotFound, err, "the repository has no %s", name)
	}
	if fault.KindOf(err) == fault.Internal {
		return fault.Wrap(fault.Unavailable, err, "read %s of the repository", name)
	}
	return err
}

// readLimited reads a file of ours.
func readLimited(dir, name string, most int64) ([]byte, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}
