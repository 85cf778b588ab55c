package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"

	"komainu/control/access"
	"komainu/control/backup"
	"komainu/control/enrol"
	"komainu/control/rest"
	"komainu/fault"
)

// hostCommands is what the host socket answers.
func (w *whole) hostCommands(level *slog.LevelVar, record access.Recorder) http.Handler {
	mux := http.NewServeMux()
	answer := func(pattern string, f func(context.Context, url.Values) (any, error)) {
		mux.HandleFunc(pattern, func(rw http.ResponseWriter, r *http.Request) {
			body, err := f(r.Context(), r.URL.Query())
			if err != nil {
				rest.Write(rw, w.log, err)
				return
			}
			rw.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(rw).Encode(body) // who asked is gone
		})
	}
	changed := func(ctx context.Context, action, target string) error {
		return record(asHost(ctx), w.state, access.Change{Action: action, Target: target})
	}
	mux.HandleFunc("GET /backup", func(rw http.ResponseWriter, r *http.Request) {
		// It holds every key: who took one, and when, is worth knowing.
		if err := changed(r.Context(), "backup.make", ""); err != nil {
			rest.Write(rw, w.log, err)
			return
		}
		w.serveBackup(rw, r)
	})
	w.contentCommands(mux, answer)
	answer("GET /alive", func(context.Context, url.Values) (any, error) { return struct{}{}, nil })
	answer("GET /ca", func(ctx context.Context, _ url.Values) (any, error) { return w.ids.Rotation(ctx) })
	answer("POST /ca/rotate", func(ctx context.Context, _ url.Values) (any, error) {
		r, err := w.ids.Rotate(ctx)
		if err != nil {
			return nil, err
		}
		return r, changed(ctx, "ca.rotate", r.Next)
	})
	answer("POST /ca/finish", func(ctx context.Context, _ url.Values) (any, error) {
		r, err := w.ids.Settle(ctx, true)
		if err != nil {
			return nil, err
		}
		return r, changed(ctx, "ca.finish", r.CA)
	})
	answer("PUT /log", func(_ context.Context, q url.Values) (any, error) {
		l, err := LogConfig{Level: q.Get("level")}.level()
		if err != nil {
			return nil, fault.New(fault.Invalid, "the level %q: want debug, info, warn or error", q.Get("level"))
		}
		level.Set(l)
		w.log.Info("the level of the log was changed", "level", l)
		return map[string]string{"level": l.String()}, nil
	})
	return mux
}

// asHost says that somebody on the host does it.
func asHost(ctx context.Context) context.Context {
	return access.WithActor(ctx, access.Actor{Kind: access.System, Name: "host"})
}

// askAlive asks a control plane whether it answers. The way leads through the
// state folder, where no flood of connections can keep it from answering.
func askAlive(ctx context.Context, dir string) error {
	body, err := askHost(ctx, dir, http.MethodGet, "/alive", nil, nil)
	if err != nil {
		return err
	}
	return body.Close()
}

// rotateCA replaces the CA, of the control plane that runs or of one that
// does not.
func rotateCA(ctx context.Context, cfg Config, env Env, command string) error {
	method, path := http.MethodPost, "/ca/"+command
	if command == "status" {
		method, path = http.MethodGet, "/ca"
	}
	var r enrol.Rotation
	body, err := askHost(ctx, cfg.State, method, path, nil, nil)
	switch {
	case err == nil:
		defer body.Close()
		err = json.NewDecoder(body).Decode(&r)
	case errors.Is(err, errNotRunning):
		err = withStopped(ctx, cfg, env, func(w *whole) error {
			var err error
			switch command {
			case "rotate":
				r, err = w.ids.Rotate(ctx)
			case "finish":
				r, err = w.ids.Settle(ctx, true)
			default:
				r, err = w.ids.Rotation(ctx)
			}
			return err
		})
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(env.Stdout, "CA in use  %s, until %s\n", r.CA, r.NotAfter.UTC().Format("2006-01-02"))
	switch {
	case r.Next == "":
		fmt.Fprintln(env.Stdout, "no other CA is to replace it")
	case r.Waiting == 0:
		fmt.Fprintf(env.Stdout, "next CA    %s\nno device depends on the old CA; it is dropped within a minute\n", r.Next)
	default:
		fmt.Fprintf(env.Stdout, "next CA    %s\n%d devices have not renewed their certificates yet\n", r.Next, r.Waiting)
	}
	return nil
}

// setLogLevel changes how loud the control plane is that runs.
func setLogLevel(ctx context.Context, cfg Config, env Env, level string) error {
	body, err := askHost(ctx, cfg.State, http.MethodPut, "/log", url.Values{"level": {level}}, nil)
	if err != nil {
		return err
	}
	body.Close()
	fmt.Fprintf(env.Stdout, "the level of the log is %s until the next start\n", level)
	return nil
}

// secretFile reads a passphrase: the first line of a file, or of the standard
// input for "-".
func secretFile(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	in := io.Reader(os.Stdin)
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", fault.Wrap(fault.Invalid, err, "read the passphrase")
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, 64<<10))
	if err != nil {
		return "", fault.Wrap(fault.Invalid, err, "read the passphrase")
	}
	line, _, _ := strings.Cut(string(text), "\n")
	if line = strings.TrimSuffix(line, "\r"); line == "" {
		return "", fault.New(fault.Invalid, "the passphrase in %s is empty", name)
	}
	return line, nil
}

// backupKey is what --passphrase-file and --identity say.
func backupKey(passphrase, identity string) (backup.Key, error) {
	var k backup.Key
	var err error
	if k.Passphrase, err = secretFile(passphrase); err != nil || identity == "" {
		return k, err
	}
	text, err := os.ReadFile(identity)
	if err != nil {
		return k, fault.Wrap(fault.Invalid, err, "read the secret key")
	}
	k.Identities = string(text)
	return k, nil
}
