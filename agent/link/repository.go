package link

import (
	"context"
	"io"
	"io/fs"
	"net/http"
	"net/url"

	"komainu/fault"
)

// Open opens a file of the control plane's signed repository. The link carries
// the bytes and vouches for none of them. An error wraps fs.ErrNotExist for a
// file that is not there, and only then.
func (l *Link) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	id, err := Load(l.cfg.Dir)
	if err != nil {
		return nil, err
	}
	config, err := id.tlsConfig(l.cfg.Now)
	if err != nil {
		return nil, err
	}
	to, err := url.JoinPath(id.Server, "agent/v1/repository", name)
	if err != nil {
		return nil, fault.New(fault.Invalid, "the address %q cannot be used: %w", id.Server, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to, nil)
	if err != nil {
		return nil, err
	}
	c := newClient(l.proxy(), config)
	c.transport.ResponseHeaderTimeout = requestLimit
	res, err := c.transport.RoundTrip(req)
	if err != nil {
		c.close()
		return nil, explain(req.URL.Host, err)
	}
	body := whole{res.Body, c}
	switch res.StatusCode {
	case http.StatusOK:
		return body, nil
	case http.StatusNotFound:
		_ = body.Close()
		return nil, &fs.PathError{Op: "get", Path: name, Err: fs.ErrNotExist}
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, fault.Wrap(fault.Unavailable, err, "the answer of %s broke off", req.URL.Host)
	}
	return nil, refused(req.URL.Host, res.Status, text)
}

// whole ends the connection with the body.
type whole struct {
	io.ReadCloser
	c client
}

func (w whole) Close() error {
	err := w.ReadCloser.Close()
	w.c.close()
	return err
}
