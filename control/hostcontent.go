package control

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"text/tabwriter"
	"time"

	"komainu/control/content"
	"komainu/control/rest"
	"komainu/fault"
	"komainu/internal/atomicfile"
)

// keyPair carries root keys over the host socket, as the texts of their files.
type keyPair struct {
	Have string `json:"have,omitempty"`
	Next string `json:"next,omitempty"`
}

func (k keyPair) keys() (keys content.RootKeys, err error) {
	for text, to := range map[string]*ed25519.PrivateKey{k.Have: &keys.Have, k.Next: &keys.Next} {
		if text != "" {
			if *to, err = content.ParseRootKey([]byte(text)); err != nil {
				return keys, err
			}
		}
	}
	return keys, nil
}

// contentCommands are those of the host socket about the repository.
func (w *whole) contentCommands(mux *http.ServeMux, answer func(string, func(context.Context, url.Values) (any, error))) {
	answer("GET /content", func(context.Context, url.Values) (any, error) { return w.depot.content.Status(), nil })
	answer("POST /content/remove", func(ctx context.Context, q url.Values) (any, error) {
		n, err := w.depot.remove(asHost(ctx), q.Get("version"))
		return Removed{n}, err
	})
	answer("POST /content/copy", func(ctx context.Context, q url.Values) (any, error) {
		days, err := strconv.Atoi(q.Get("days"))
		if err != nil {
			return nil, fault.New(fault.Invalid, "days %q: want a number", q.Get("days"))
		}
		return w.depot.signCopy(asHost(ctx), days)
	})
	posted := func(pattern string, f func(*http.Request) (any, error)) {
		mux.HandleFunc(pattern, func(rw http.ResponseWriter, r *http.Request) {
			body, err := f(r)
			if err != nil {
				rest.Write(rw, w.log, err)
				return
			}
			rw.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(rw).Encode(body) // who asked is gone
		})
	}
	posted("POST /content/add", func(r *http.Request) (any, error) {
		q := r.URL.Query()
		added, err := w.depot.add(asHost(r.Context()), q.Get("name"), r.Body, q.Get("sha256"))
		return Added{len(added)}, err
	})
	posted("POST /content/rotate", func(r *http.Request) (any, error) {
		var pair keyPair
		if err := json.NewDecoder(io.LimitReader(r.Body, rest.MaxBody)).Decode(&pair); err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "read the keys")
		}
		keys, err := pair.keys()
		if err == nil {
			err = w.depot.rotate(asHost(r.Context()), keys)
		}
		return w.depot.content.Status(), err
	})
}

// ask sends a command about the repository to the control plane that runs on
// the state folder, or carries it out when none does.
func ask[T any](ctx context.Context, cfg Config, env Env, method, path string, query url.Values, body io.Reader, stopped func(context.Context, *depot) (T, error)) (out T, err error) {
	answer, err := askHost(ctx, cfg.State, method, path, query, body)
	if errors.Is(err, errNotRunning) {
		if _, err := os.Stat(filepath.Join(cfg.State, repositoryFolder)); err != nil {
			return out, fault.Wrap(fault.NotFound, err, "there is no repository in %s; name the folder with --state", cfg.State)
		}
		err = withStopped(ctx, cfg, env, func(w *whole) error {
			var err error
			out, err = stopped(asHost(ctx), w.depot)
			return err
		})
		return out, err
	}
	if err != nil {
		return out, err
	}
	defer answer.Close()
	return out, json.NewDecoder(answer).Decode(&out)
}

func contentStatus(ctx context.Context, cfg Config, env Env) (content.Status, error) {
	return ask(ctx, cfg, env, http.MethodGet, "/content", nil, nil, func(_ context.Context, d *depot) (content.Status, error) { return d.content.Status(), nil })
}

// listContent is the command content list.
func listContent(ctx context.Context, cfg Config, env Env) error {
	s, err := contentStatus(ctx, cfg, env)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(env.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "VERSION\tFORM\tARCH\tMB\tADDED\tSHA-256")
	for _, p := range s.Packages {
		fmt.Fprintf(w, "%s\t%s\t%s\t%.1f\t%s\t%s\n", p.Version, p.Format, p.Arch, float64(p.Size)/1e6, p.AddedAt.Format(time.DateTime), p.SHA256)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	where := "on the control plane"
	if s.Root.Offline {
		where = "not on the control plane"
	}
	fmt.Fprintf(env.Stdout, "\nroot       %d, until %s, its key is %s\n", s.Root.Version, s.Root.Expires.Format(time.DateOnly), where)
	fmt.Fprintf(env.Stdout, "timestamp  %d, until %s\n", s.Timestamp.Version, s.Timestamp.Expires.Format(time.DateTime))
	if s.Problem != "" {
		fmt.Fprintf(env.Stdout, "problem    %s\n", s.Problem)
	}
	return nil
}

// addContent is the command content add.
func addContent(ctx context.Context, cfg Config, env Env, files []string) error {
	if len(files) == 0 {
		return fault.New(fault.Invalid, "name the files of packages")
	}
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return fault.Wrap(fault.NotFound, err, "read the package")
		}
		err = addStream(ctx, cfg, env, filepath.Base(file), f, "")
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func addStream(ctx context.Context, cfg Config, env Env, name string, in io.Reader, sum string) error {
	added, err := ask(ctx, cfg, env, http.MethodPost, "/content/add", url.Values{"name": {name}, "sha256": {sum}}, in, func(ctx context.Context, d *depot) (Added, error) {
		list, err := d.add(ctx, name, in, sum)
		return Added{len(list)}, err
	})
	if err != nil {
		return fault.Wrap(fault.KindOf(err), err, "%s was not added", name)
	}
	word := "added"
	if added.Added == 0 {
		word = "is there already"
	}
	fmt.Fprintf(env.Stdout, "%s %s\n", name, word)
	return nil
}

// removeContent is the command content remove.
func removeContent(ctx context.Context, cfg Config, env Env, versions []string) error {
	if len(versions) != 1 {
		return fault.New(fault.Invalid, "name one version")
	}
	removed, err := ask(ctx, cfg, env, http.MethodPost, "/content/remove", url.Values{"version": versions}, nil, func(ctx context.Context, d *depot) (Removed, error) {
		n, err := d.remove(ctx, versions[0])
		return Removed{n}, err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Stdout, "version %s is not offered any more (%d packages)\n", versions[0], removed.Removed)
	return nil
}

// usualCopy is how many days a copy is good for when nobody says otherwise.
const usualCopy = 2

// exportContent is the command content export. The repository is signed anew
// first, so that the copy is good for as long as it can be; where that cannot
// be done, what there is serves as long as it has not expired. The folder is
// read here: the medium may belong to somebody else than the control plane
// runs as.
func exportContent(ctx context.Context, cfg Config, env Env, args []string, days int) error {
	if len(args) != 1 {
		return fault.New(fault.Invalid, "name the folder to write to")
	}
	if longest := int(content.MaxCopy / (24 * time.Hour)); days < usualCopy || days > longest {
		return fault.New(fault.Invalid, "--days %d: a copy is good for %d to %d days", days, usualCopy, longest)
	}
	timestamp, err := ask(ctx, cfg, env, http.MethodPost, "/content/copy", url.Values{"days": {strconv.Itoa(days)}}, nil, func(ctx context.Context, d *depot) ([]byte, error) {
		return d.signCopy(ctx, days)
	})
	switch {
	case err == nil:
	case fault.Is(err, fault.NotFound) || days > usualCopy:
		return err
	default:
		fmt.Fprintf(env.Stderr, "komainu-control: the repository was not signed anew, it is copied as it is: %v\n", err)
	}
	c, err := content.Export(filepath.Join(cfg.State, repositoryFolder), args[0], timestamp, time.Now())
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Stdout, "the repository with %d packages is in %s; the copy is good until %s UTC, renew it by another export\n", len(c.Packages), args[0], c.Expires.UTC().Format(time.DateTime))
	return nil
}

// importsFolder is below the state folder: what is known of repositories that
// packages were imported from.
const importsFolder = "imports"

// importContent is the command content import.
func importContent(ctx context.Context, cfg Config, env Env, args []string, rootFile string) error {
	if len(args) != 1 {
		return fault.New(fault.Invalid, "name the folder to import from")
	}
	var root []byte
	if rootFile != "" {
		var err error
		if root, err = os.ReadFile(rootFile); err != nil {
			return fault.Wrap(fault.NotFound, err, "read the root")
		}
	}
	if _, err := os.Stat(filepath.Join(cfg.State, repositoryFolder)); err != nil {
		return fault.Wrap(fault.NotFound, err, "there is no repository in %s; name the folder with --state", cfg.State)
	}
	source, err := content.OpenSource(args[0], root, filepath.Join(cfg.State, importsFolder), time.Now())
	if err != nil {
		return err
	}
	defer source.Close()
	for _, p := range source.Packages() {
		in, err := source.Open(p)
		if err != nil {
			return err
		}
		err = addStream(ctx, cfg, env, path.Base(p.Target), in, p.SHA256)
		in.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// rotateContent is the command content rotate.
func rotateContent(ctx context.Context, cfg Config, env Env, have, next string) error {
	var pair keyPair
	if have != "" {
		text, err := os.ReadFile(have)
		if err != nil {
			return fault.Wrap(fault.NotFound, err, "read the root key")
		}
		pair.Have = string(text)
	}
	if next != "" {
		// The key is on disk before anything depends on it.
		if _, err := os.Lstat(next); err == nil {
			return fault.New(fault.Conflict, "%s is there already; a key is not written over", next)
		}
		_, text, err := content.NewRootKey()
		if err != nil {
			return err
		}
		if err := atomicfile.Write(next, text, 0o600); err != nil {
			return fault.Wrap(fault.Unavailable, err, "write the root key")
		}
		pair.Next = string(text)
	}
	keys, err := pair.keys()
	if err != nil {
		return err
	}
	text, err := json.Marshal(pair)
	if err != nil {
		return err
	}
	s, err := ask(ctx, cfg, env, http.MethodPost, "/content/rotate", nil, bytes.NewReader(text), func(ctx context.Context, d *depot) (content.Status, error) {
		err := d.rotate(ctx, keys)
		return d.content.Status(), err
	})
	if err != nil && next != "" {
		return fault.Wrap(fault.KindOf(err), err, "%s", aboutNewKey(cfg, next, keys.Next))
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Stdout, "the keys of the repository were replaced; its root is version %d\n", s.Root.Version)
	if next != "" {
		fmt.Fprintf(env.Stdout, "the root key is in %s and nowhere else; keep it away from this host. Without it the root cannot be renewed\n", next)
	}
	fmt.Fprintln(env.Stdout, "make a backup now: an older one has the old keys, which agents refuse")
	return nil
}

// aboutNewKey says what a root key is good for that was written to a file
// before a rotation failed.
func aboutNewKey(cfg Config, file string, key ed25519.PrivateKey) string {
	switch used, err := content.RootKey(filepath.Join(cfg.State, repositoryFolder), key); {
	case err != nil:
		return fmt.Sprintf("keep %s, its key may be the root key already (%v)", file, err)
	case used:
		return fmt.Sprintf("keep %s, its key is the root key already; komainu-control content rotate --root-key %s goes on", file, file)
	}
	return fmt.Sprintf("the key in %s is not the root key", file)
}
