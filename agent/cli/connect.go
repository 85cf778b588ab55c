package cli

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"komainu/agent/localapi"
	"komainu/fault"
)

func (a *app) connectivity() *cobra.Command {
	test := a.leaf("test", msgConnectivityTest, func(ctx context.Context, c *localapi.Client) error {
		failed, steps := 0, []localapi.ConnectivityStep{}
		err := c.TestConnectivity(ctx, func(s localapi.ConnectivityStep) error {
			if !s.OK && !s.Skipped {
				failed++
			}
			if a.output == "json" {
				steps = append(steps, s)
				return nil
			}
			a.step(s)
			return nil
		})
		if err == nil && a.output == "json" {
			err = a.json(struct {
				OK    bool                        `json:"ok"`
				Items []localapi.ConnectivityStep `json:"items"`
			}{failed == 0, steps})
		}
		if err == nil && failed > 0 {
			return errShown
		}
		return err
	})
	return a.group("connectivity", msgConnectivity, test)
}

// step prints a step of the connectivity test. The first line is what scripts
// look at; what was seen stands below it, but for runbooks of the other name,
// which know only failures with a reason.
func (a *app) step(s localapi.ConnectivityStep) {
	verdict := "[OK]"
	switch {
	case s.Skipped:
		verdict = "[SKIPPED]"
	case !s.OK:
		verdict = "[FAILED]"
	}
	a.print("%s ... %s", clean(a.say(msgTesting, s.Target)), verdict)
	name, known := stepNames[s.Name]
	if !known {
		name = text{s.Name, s.Name}
	}
	switch {
	case s.Skipped && a.name != alias:
		a.print("\t%s: %s", a.say(name), a.say(msgStepSkipped))
	case s.Detail != "" && (!s.OK || a.name != alias):
		a.print("\t%s: %s", a.say(name), clean(s.Detail))
	}
}

// stepNames are the steps in words.
var stepNames = map[string]text{
	"resolve":     {"name", "名前解決"},
	"tcp":         {"connection", "接続"},
	"proxy":       {"proxy", "プロキシ"},
	"tls":         {"encryption", "暗号化"},
	"protocol":    {"protocol", "プロトコル"},
	"clock":       {"clock", "時計"},
	"latency":     {"latency", "応答時間"},
	"certificate": {"certificate of this device", "このデバイスの証明書"},
}

// maxToken bounds what is read as a join token.
const maxToken = 16 << 10

func (a *app) enrol() *cobra.Command {
	var file string
	var req localapi.EnrolRequest
	cmd := &cobra.Command{
		Use: "enrol TOKEN | --token-file FILE | --cloud NAME --server URL --pin HEX [--force]", Aliases: []string{"enroll"}, Short: a.say(msgEnrol), Long: a.say(msgEnrolLong),
		Args: cobra.MaximumNArgs(1), DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if ways := len(args) + given(file) + given(req.Cloud); ways != 1 || given(req.Cloud) != given(req.Server) || given(req.Cloud) != given(req.Pin) {
				return fault.New(fault.Invalid, "%s", a.say(msgOneToken))
			}
			req.Token = strings.Join(args, "")
			if file != "" {
				var err error
				if req.Token, err = a.readToken(file); err != nil {
					return err
				}
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *localapi.Client) error {
				r, err := c.Enrol(ctx, req)
				switch {
				case err != nil:
					return err
				case a.output == "json":
					return a.json(r)
				}
				return a.changed(msgEnrolled, "organization", r.Organization, "environment", r.Environment, "device", r.Device, "server", r.Server)
			})
		},
	}
	cmd.Flags().StringVar(&file, "token-file", "", a.say(flagTokenFile))
	cmd.Flags().StringVar(&req.Cloud, "cloud", "", a.say(flagCloud))
	cmd.Flags().StringVar(&req.Server, "server", "", a.say(flagServer))
	cmd.Flags().StringVar(&req.Pin, "pin", "", a.say(flagPin))
	cmd.Flags().BoolVar(&req.Force, "force", false, a.say(flagForce))
	return cmd
}

// given counts a flag that was given.
func given(value string) int {
	if value == "" {
		return 0
	}
	return 1
}

// readToken reads a token from a file or, as "-", from standard input.
func (a *app) readToken(name string) (string, error) {
	in := a.env.Stdin
	if name != "-" {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrPermission) {
			return "", fault.Wrap(fault.NeedsRoot, err, "read the token")
		}
		if err != nil {
			return "", fault.Wrap(fault.Invalid, err, "read the token")
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxToken+1))
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" || len(b) > maxToken {
		return "", fault.New(fault.Invalid, "%s holds no join token", name)
	}
	return token, nil
}

func (a *app) diagnostic() *cobra.Command {
	var dir string
	create := &cobra.Command{
		Use: "create [--path DIR]", Short: a.say(msgDiagnosticCreate), Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := a.ask(cmd.Context(), func(ctx context.Context, c *localapi.Client) error {
				return a.archive(dir, func(w io.Writer) error { return c.Diagnostics(ctx, w) })
			})
			if fault.Is(err, fault.Unavailable) {
				// What can be known without the agent is better than nothing;
				// the exit code still says that it was not reached.
				return errors.Join(err, a.archive(dir, func(w io.Writer) error { return a.withoutAgent(w, err) }))
			}
			return err
		},
	}
	create.Flags().StringVar(&dir, "path", ".", a.say(flagDiagnosticPath))
	return a.group("diagnostic", msgDiagnostic, create, a.scanStatistics(),
		a.missing("ebpf-statistics"), a.missing("hot-event-sources"))
}

// scanStatistics shows for which programs real-time protection scans.
func (a *app) scanStatistics() *cobra.Command {
	var top int
	cmd := &cobra.Command{
		Use: "real-time-protection-statistics [--sort] [--top N]", Short: a.say(msgScanStatistics), Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if top < 1 {
				return fault.New(fault.Invalid, "%s", a.say(msgTopTooSmall))
			}
			return a.ask(cmd.Context(), func(ctx context.Context, c *localapi.Client) error {
				list, err := c.ScanCounters(ctx)
				if err != nil {
					return err
				}
				list = list[:min(top, len(list))]
				if a.output == "json" {
					return a.json(struct {
						Counters []localapi.ScanCounter `json:"counters"`
					}{list})
				}
				rows := make([][]string, len(list))
				for i, n := range list {
					rows[i] = []string{strconv.FormatUint(n.Files, 10), clean(n.Name), clean(n.Path)}
				}
				a.table([]string{a.say(colFilesScanned), a.say(colName), a.say(colPath)}, rows)
				return nil
			})
		},
	}
	cmd.Flags().IntVar(&top, "top", 1025, a.say(flagTop))
	cmd.Flags().Bool("sort", true, a.say(flagSort))
	return cmd
}

// archive creates the diagnostic file in a folder and says where it is. One
// that could not be written to its end is removed.
func (a *app) archive(dir string, write func(io.Writer) error) error {
	name := filepath.Join(dir, "komainu-diagnostic-"+time.Now().UTC().Format("20060102T150405Z")+".zip")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fault.Wrap(fault.Invalid, err, "create the diagnostic file")
	}
	if err := errors.Join(write(f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	if a.output == "json" {
		return a.json(map[string]string{"path": name})
	}
	a.print("%s", clean(a.say(msgDiagnosticCreated, name)))
	return nil
}

// withoutAgent writes the archive of a host whose agent was not reached: a
// manifest alone, which says so and what is missing.
func (a *app) withoutAgent(w io.Writer, reason error) error {
	z := zip.NewWriter(w)
	m, err := z.Create("MANIFEST.txt")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(m, "Written by the command komainu %s (%s) at %s.\nNo keys, tokens or contents of scanned files are in it.\n\n"+
		"The agent did not answer: %s\nMissing is what only the agent knows: its health, settings, host facts and counters.\n"+
		"Look at: journalctl -u komainu-agent\n",
		a.env.Version, runtime.GOOS+"/"+runtime.GOARCH, time.Now().UTC().Format(time.RFC3339), clean(reason.Error()))
	return errors.Join(err, z.Close())
}

func (a *app) version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: a.say(msgVersion), Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := struct {
				Command string `json:"command"`
				Agent   string `json:"agent"` // "" when it cannot be reached
				API     int    `json:"api"`
				System  string `json:"system"`
			}{a.env.Version, "", localapi.API, runtime.GOOS + "/" + runtime.GOARCH}
			err := a.ask(cmd.Context(), func(_ context.Context, c *localapi.Client) error {
				v.Agent = c.Version().Agent
				return nil
			})
			if a.output == "json" {
				return a.json(v)
			}
			a.print("komainu %s (%s)", v.Command, v.System)
			switch {
			case err != nil:
				a.print("%s", a.say(msgAgentUnreachable))
			case v.Agent != v.Command:
				a.print("agent %s", clean(v.Agent))
				a.print("%s", a.say(msgVersionsDiffer))
			default:
				a.print("agent %s", clean(v.Agent))
			}
			return nil
		},
	}
}
