package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"komainu/control/rest"
	"komainu/fault"
)

// hostSocket is where a running control plane listens for commands of its own
// binary on the same host. Who may write to the state folder may use it.
const hostSocket = "control.sock"

// socketPath returns a path to the socket that fits into an address, which
// has some hundred bytes; the folder may have a longer name.
func socketPath(dir string) (path string, done func(), err error) {
	path = filepath.Join(dir, hostSocket)
	if len(path) < 100 {
		return path, func() {}, nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), hostSocket), func() { d.Close() }, nil
}

// host answers the commands.
type host struct {
	server   *http.Server
	listener net.Listener
	release  func()
}

// listenHost opens the socket. The caller holds the lock of the state, so a
// socket that is there already is what a crash has left.
func listenHost(ctx context.Context, dir string, handler http.Handler, log *slog.Logger) (*host, error) {
	path, release, err := socketPath(dir)
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		release()
		return nil, err
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		release()
		return nil, fault.Wrap(fault.Unavailable, err, "listen for commands of this host")
	}
	if err := os.Chmod(path, 0o600); err != nil {
		release()
		return nil, errors.Join(err, l.Close())
	}
	server := &http.Server{Handler: handler, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), ReadHeaderTimeout: 10 * time.Second}
	return &host{server, l, release}, nil
}

// run serves until close.
func (h *host) run() error {
	if err := h.server.Serve(h.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// close cuts off what is being answered: a backup that is being made is then
// incomplete, and whoever makes it knows.
func (h *host) close() error {
	return h.server.Close()
}

// errNotRunning says that nobody listens.
var errNotRunning = fault.New(fault.Unavailable, "no control plane runs on this state folder")

// askHost sends a command, with what it needs in content, to the control plane
// that runs on a state folder and returns the answer's body. Errors: errNotRunning, and what it answers.
func askHost(ctx context.Context, dir, method, path string, query url.Values, content io.Reader) (io.ReadCloser, error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		path, release, err := socketPath(dir)
		if err != nil {
			return nil, err
		}
		defer release()
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}}
	if content != nil {
		content = struct{ io.Reader }{content} // is not closed when nobody listens
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://control"+path+"?"+query.Encode(), content)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, errNotRunning
	case errors.Is(err, fs.ErrPermission):
		return nil, fault.New(fault.NeedsRoot, "this user may not use the state folder %s; run the command as root or as the user of the service", dir)
	case err != nil:
		return nil, fault.Wrap(fault.Unavailable, err, "ask the control plane")
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	var problem rest.Problem
	if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&problem); err != nil {
		return nil, fault.New(fault.Internal, "the control plane answers %s", res.Status)
	}
	return nil, fault.New(fault.ParseKind(problem.Kind), "%s", problem.Message)
}
