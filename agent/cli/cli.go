// Package cli is the command line of the agent: `komainu`, which under the
// name `mdatp` takes what runbooks type for that command.
//
// The command tree, the names of fields, the shapes of output and the exit
// codes are a contract with scripts; the transcripts in testdata/script are
// its text. Output for machines comes with -o json; what people read is plain
// when it goes into a pipe. Every string that came from the host or the agent
// is quoted before it reaches a terminal.
//
// A command holds no state and does no work of its own: it asks the agent
// over package localapi.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"komainu/agent/localapi"
	"komainu/fault"
)

// alias is the other name that the command answers to.
const alias = "mdatp"

// Env is what a command line gets from the world.
type Env struct {
	Args     []string // with the name of the command first
	Stdin    io.Reader
	Stdout   io.Writer
	Stderr   io.Writer
	Getenv   func(string) string
	Version  string // of the command
	Terminal bool   // Stdout is a terminal
	// ProgressEvery is the shortest time between two lines of progress in a
	// pipe.
	ProgressEvery time.Duration
}

// Main runs the command line of this process and returns its exit code. An
// interrupt ends what runs.
func Main(version string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Run(ctx, Env{
		Args: os.Args, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Getenv: os.Getenv, Version: version,
		Terminal:      term.IsTerminal(int(os.Stdout.Fd())),
		ProgressEvery: 5 * time.Second,
	})
}

// app is one command line under way.
type app struct {
	env    Env
	name   string // as which it was called
	ja     bool   // prose in Japanese
	output string
	socket string
	ran    bool // arguments are fine, the command itself has begun
}

// Run runs one command line and returns its exit code.
func Run(ctx context.Context, env Env) int {
	a := &app{env: env, name: "komainu"}
	if strings.TrimSuffix(filepath.Base(env.Args[0]), ".exe") == alias {
		a.name = alias
	}
	a.ja = japanese(env.Getenv, a.name)
	root := a.tree()
	root.SetArgs(longOptions(root, env.Args[1:]))
	root.SetIn(env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return fault.ExitOK
	}
	return a.fail(cmd, err)
}

// fail shows why a command ended and returns its exit code.
func (a *app) fail(cmd *cobra.Command, err error) int {
	if errors.Is(err, errShown) {
		return fault.ExitFailed
	}
	if !a.ran && fault.Is(err, fault.Internal) {
		err = fault.New(fault.Invalid, "%w", err) // cobra did not like the arguments
	}
	kind, message := fault.KindOf(err), err.Error()
	if errors.Is(err, context.Canceled) {
		message = a.say(msgInterrupted)
	}
	if a.output == "json" {
		b, _ := json.Marshal(map[string]any{"error": map[string]any{"kind": kind.String(), "message": message, "exit": kind.Exit()}})
		fmt.Fprintln(a.env.Stderr, string(b))
		return kind.Exit()
	}
	fmt.Fprintln(a.env.Stderr, clean(capital(message)))
	switch {
	case kind == fault.NeedsRoot:
		fmt.Fprintln(a.env.Stderr, a.say(msgTrySudo, a.name))
	case !a.ran:
		fmt.Fprintln(a.env.Stderr, a.say(msgSeeHelp, cmd.CommandPath()))
	}
	return kind.Exit()
}

// errShown ends a command with exit code 1 whose output has said it all.
var errShown = errors.New("the output says what failed")

// tree builds the commands.
func (a *app) tree() *cobra.Command {
	root := a.group(a.name, msgRoot)
	root.Long = a.say(msgRootLong)
	if a.name == alias {
		root.Long = a.say(msgAliasLong)
	}
	root.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return a.unknown(cmd, args[0])
		}
		return cmd.Help()
	}
	root.SilenceErrors, root.SilenceUsage = true, true
	flags := root.PersistentFlags()
	flags.StringVarP(&a.output, "output", "o", "text", a.say(flagOutput))
	flags.StringVar(&a.socket, "socket", "", a.say(flagSocket, localapi.DefaultSocket))
	flags.BoolP("help", "h", false, a.say(flagHelp))
	root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
	root.PersistentPreRunE = func(*cobra.Command, []string) error {
		if a.output != "text" && a.output != "json" {
			wrong := a.output
			a.output = "text"
			return fault.New(fault.Invalid, "the output is text or json, not %q", wrong)
		}
		return nil
	}
	root.SetUsageTemplate(usageTemplate(a))
	root.AddCommand(
		a.health(), a.config(), a.scan(), a.threat(), a.exclusion(), a.definitions(),
		a.connectivity(), a.edr(), a.log(), a.diagnostic(), a.test(), a.upgrade(), a.enrol(), a.offboard(), a.identity(), a.version(),
	)
	for _, name := range []string{"network-protection", "performance-profiles", "device-control", "system-extension", "notice", "tips", "event", "user"} {
		root.AddCommand(a.missing(name))
	}
	return root
}

// group makes a command that only holds others.
func (a *app) group(use string, short text, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   use,
		Short: a.say(short),
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return a.unknown(cmd, args[0])
			}
			cmd.SetOut(a.env.Stderr)
			cmd.Help()
			return fault.New(fault.Invalid, "%s", a.say(msgWhichCommand, cmd.CommandPath()))
		},
	}
	cmd.AddCommand(subs...)
	return cmd
}

// unknown says that a group has no such command, and which may be meant.
func (a *app) unknown(cmd *cobra.Command, name string) error {
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return fault.New(fault.Invalid, "%s", a.say(msgUnknownCommand, cmd.CommandPath(), name)+a.meant(name, names))
}

// meant suggests the nearest of the names, if one is near.
func (a *app) meant(name string, names []string) string {
	if n := nearest(name, names); n != "" {
		return a.say(msgDidYouMean, n)
	}
	return ""
}

// missing makes a command that runbooks know and this version has not.
func (a *app) missing(use string) *cobra.Command {
	return &cobra.Command{
		Use: use, Hidden: true, DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.ran = true
			message := a.say(msgMissing, cmd.CommandPath())
			if r, ok := whyMissing[use]; ok {
				message = a.say(msgMissingBecause, message, a.say(r.why), a.say(r.do))
			}
			return fault.New(fault.Unsupported, "%s", message)
		},
	}
}

// leaf makes a command that asks the agent.
func (a *app) leaf(use string, short text, run func(ctx context.Context, c *localapi.Client) error) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: a.say(short), Args: cobra.NoArgs, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.ask(cmd.Context(), run) },
	}
}

// ask connects to the agent and runs the command.
func (a *app) ask(ctx context.Context, run func(ctx context.Context, c *localapi.Client) error) error {
	a.ran = true
	c, err := localapi.Dial(ctx, a.socketPath())
	if err != nil {
		return err
	}
	defer c.Close()
	return run(ctx, c)
}

func (a *app) socketPath() string {
	switch {
	case a.socket != "":
		return a.socket
	case a.env.Getenv("KOMAINU_SOCKET") != "":
		return a.env.Getenv("KOMAINU_SOCKET")
	default:
		return localapi.DefaultSocket
	}
}

// capital starts a sentence.
func capital(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(r)) + s[n:]
}
