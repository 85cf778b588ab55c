package control

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"komainu/control/access"
	"komainu/control/audit"
	"komainu/control/backup"
	"komainu/control/db"
	"komainu/fault"
)

const usage = `usage: komainu-control COMMAND [flags]

  run            run the control plane
  admin reset    make a new one-time password for the user admin; works while the control plane runs
  admin token    make an API token with all rights for an hour, for scripts on this host
  backup         save everything in one file, also while the control plane runs
  restore        bring a backup back into an empty state folder
  ca status      say which CA is in use and how far its replacement is
  ca rotate      replace the CA; devices follow by themselves
  content list   list the packages in the signed repository
  content add FILE…       add packages; works while the control plane runs, as all of content do
  content remove VERSION  take a version out of the repository
  content export DIR      copy the repository to a folder, a mirror or a medium
  content import DIR      add what another repository offers, or plain packages with SHA256SUMS
  content rotate          replace the keys that sign the repository; agents follow by themselves
  migrate        bring the state up to this version without starting, while the control plane is stopped
  log level      change how loud the control plane is that runs: --to debug, info, warn or error
  config check   say what is wrong with the configuration
  config show    print the configuration in effect
  version        print the version

Flags of all commands:
  --config FILE    configuration in YAML
  --state DIR      folder that holds everything the control plane keeps
Flags of run:
  --listen ADDR    address and port, 127.0.0.1:8443 by default
  --hostname NAME  name or address under which browsers and agents reach it; may be repeated
  --log-level LEVEL    debug, info, warn or error
  --log-format FORMAT  text or json
  --packages DIR   folder of packages of the agent that the repository is filled from at the start
  --print-once FD  write the one-time password of the first start to this descriptor, not to standard output
Flags of backup and restore:
  --to FILE               the backup to write
  --recipient KEY         encrypt it for this public key (age1...); may be repeated
  --from FILE             the backup to restore
  --identity FILE         secret keys to decrypt it with (age-keygen makes such files)
  --passphrase-file FILE  encrypt or decrypt with the first line of this file, - for standard input
Flags of migrate:
  --check          only say what would be done, and which copies of the state there are
  --rollback       go back to the copy from before the last upgrade
Flags of content export:
  --days N         how many days the copy is good for, from 2, the default, to 14
Flags of content import:
  --root FILE      the root of the other repository that is trusted, like its metadata/1.root.json
Flags of content rotate:
  --root-key-out FILE  write the new root key to this file and do not keep it here
  --root-key FILE      the root key that was written by --root-key-out before
Flags of ca rotate:
  --finish         drop the old CA now; devices that have not renewed have to enrol again
`

// Main is the command komainu-control. It returns the exit code.
func Main(version string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return Command(ctx, os.Args[1:], Env{Version: version, Stdout: os.Stdout, Stderr: os.Stderr, Secret: os.Stdout})
}

// Command runs one command in the given world.
func Command(ctx context.Context, args []string, env Env) int {
	err := command(ctx, args, env)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprint(env.Stdout, usage)
		return fault.ExitOK
	case err != nil:
		fmt.Fprintln(env.Stderr, "komainu-control:", err)
	}
	return fault.Exit(err)
}

type repeated []string

func (r *repeated) String() string     { return strings.Join(*r, ",") }
func (r *repeated) Set(s string) error { *r = append(*r, s); return nil }

func command(ctx context.Context, args []string, env Env) error {
	name, rest := "", args
	for len(rest) > 0 && !strings.HasPrefix(rest[0], "-") && !takesArguments(name) {
		name, rest = strings.TrimSpace(name+" "+rest[0]), rest[1:]
	}
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	var hostnames repeated
	file := flags.String("config", "", "")
	state := flags.String("state", "", "")
	address := flags.String("listen", "", "")
	descriptor := flags.Int("print-once", -1, "")
	level := flags.String("log-level", "", "")
	packages := flags.String("packages", "", "")
	format := flags.String("log-format", "", "")
	to := flags.String("to", "", "")
	from := flags.String("from", "", "")
	identity := flags.String("identity", "", "")
	passphrase := flags.String("passphrase-file", "", "")
	check := flags.Bool("check", false, "")
	rollback := flags.Bool("rollback", false, "")
	finish := flags.Bool("finish", false, "")
	var recipients repeated
	flags.Var(&recipients, "recipient", "")
	flags.Var(&hostnames, "hostname", "")
	trusted := flags.String("root", "", "")
	rootKey := flags.String("root-key", "", "")
	rootKeyOut := flags.String("root-key-out", "", "")
	days := flags.Int("days", usualCopy, "")
	var operands []string
	for takesArguments(name) && len(rest) > 0 && !strings.HasPrefix(rest[0], "-") {
		operands, rest = append(operands, rest[0]), rest[1:]
	}
	if err := flags.Parse(rest); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return fault.New(fault.Invalid, "%w; komainu-control --help lists the flags", err)
	}
	if takesArguments(name) {
		operands = append(operands, flags.Args()...)
	} else if flags.NArg() > 0 {
		return fault.New(fault.Invalid, "%q comes after the flags; komainu-control --help shows the order", flags.Arg(0))
	}
	cfg := DefaultConfig()
	if *file != "" {
		var err error
		cfg, err = LoadConfig(*file)
		if name == "restore" && errors.Is(err, fs.ErrNotExist) {
			err = nil // the backup has one
		}
		if err != nil {
			return err
		}
	}
	if *state != "" {
		dir, err := filepath.Abs(*state)
		if err != nil {
			return err
		}
		cfg.State = dir
	}
	if *packages != "" {
		cfg.Content.Packages = *packages
	}
	if *address != "" {
		cfg.Listen = *address
	}
	if hostnames != nil {
		cfg.Hostnames = hostnames
	}
	if *level != "" {
		cfg.Log.Level = *level
	}
	if *format != "" {
		cfg.Log.Format = *format
	}
	switch name {
	case "backup":
		secret, err := secretFile(*passphrase)
		if err != nil {
			return err
		}
		return makeBackup(ctx, cfg, env, *to, backup.Lock{Passphrase: secret, Recipients: recipients})
	case "restore":
		key, err := backupKey(*passphrase, *identity)
		if err != nil {
			return err
		}
		return restoreBackup(ctx, cfg, env, *from, *file, key)
	case "ca status":
		return rotateCA(ctx, cfg, env, "status")
	case "ca rotate":
		if *finish {
			return rotateCA(ctx, cfg, env, "finish")
		}
		return rotateCA(ctx, cfg, env, "rotate")
	case "content list":
		return listContent(ctx, cfg, env)
	case "content add":
		return addContent(ctx, cfg, env, operands)
	case "content remove":
		return removeContent(ctx, cfg, env, operands)
	case "content export":
		return exportContent(ctx, cfg, env, operands, *days)
	case "content import":
		return importContent(ctx, cfg, env, operands, *trusted)
	case "content rotate":
		return rotateContent(ctx, cfg, env, *rootKey, *rootKeyOut)
	case "migrate":
		return migrateState(ctx, cfg, env, *check, *rollback)
	case "log level":
		return setLogLevel(ctx, cfg, env, *to)
	case "run":
		if *descriptor >= 0 {
			f := os.NewFile(uintptr(*descriptor), "print-once")
			if f == nil {
				return fault.New(fault.Invalid, "--print-once %d: no such descriptor", *descriptor)
			}
			defer f.Close()
			env.Secret = f
		}
		return Run(ctx, cfg, env)
	case "admin reset":
		return resetAdmin(ctx, cfg, env)
	case "admin token":
		return adminToken(ctx, cfg, env)
	case "config check":
		if err := cfg.Validate(); err != nil {
			return err
		}
		fmt.Fprintln(env.Stdout, "the configuration is good")
		return nil
	case "config show":
		text, err := yaml.Marshal(cfg)
		if err != nil {
			return err
		}
		_, err = env.Stdout.Write(text)
		return err
	case "version":
		fmt.Fprintln(env.Stdout, "komainu-control", env.Version)
		return nil
	case "", "help":
		fmt.Fprint(env.Stderr, usage)
		return fault.New(fault.Invalid, "name a command")
	default:
		return fault.New(fault.Invalid, "there is no command %q; komainu-control --help lists them", name)
	}
}

// takesArguments reports whether a command is followed by names of files and
// the like.
func takesArguments(command string) bool {
	switch command {
	case "content add", "content remove", "content export", "content import":
		return true
	}
	return false
}

// resetAdmin is for someone on the host: who can write the state may
// administer it.
func resetAdmin(ctx context.Context, cfg Config, env Env) error {
	users, closeState, err := hostAccess(ctx, cfg, env)
	if err != nil {
		return err
	}
	defer closeState()
	name, password, err := users.ResetAdmin(ctx)
	if err != nil {
		return db.Explain(err)
	}
	fmt.Fprintf(env.Stdout, "%s one-time password: %s\nSign in with it and choose a new one; sessions of this user have ended.\n", name, password)
	return nil
}

// adminTokenLife is enough for a script that sets something up.
const adminTokenLife = time.Hour

// adminToken is for someone on the host, like resetAdmin.
func adminToken(ctx context.Context, cfg Config, env Env) error {
	users, closeState, err := hostAccess(ctx, cfg, env)
	if err != nil {
		return err
	}
	defer closeState()
	organization, err := users.Organization(ctx)
	if err != nil {
		return db.Explain(err)
	}
	ctx = access.WithActor(ctx, access.Actor{Kind: access.System, Name: "host", Organization: organization.ID})
	in := &access.CreateTokenInput{}
	in.Body.Label, in.Body.Role, in.Body.ExpiresInSeconds = "made on the host", access.Admin, int64(adminTokenLife.Seconds())
	token, err := users.CreateToken(ctx, in)
	if err != nil {
		return db.Explain(err)
	}
	fmt.Fprintln(env.Stdout, token.Token)
	return nil
}

// hostAccess opens the users of a state folder beside a control plane that
// may be running.
func hostAccess(ctx context.Context, cfg Config, env Env) (users *access.Access, closeState func(), err error) {
	if _, err := os.Stat(filepath.Join(cfg.State, db.File)); err != nil {
		return nil, nil, fault.Wrap(fault.NotFound, err, "there is no state in %s; name the folder with --state", cfg.State)
	}
	log := cfg.Log.logger(env.Stderr)
	state, err := openBeside(ctx, cfg.State, log)
	if err != nil {
		return nil, nil, err
	}
	users = access.New(state, access.Config{Log: log, Hashing: env.Hashing, Record: audit.New(state, time.Now).Record})
	return users, func() { _ = state.Close() }, nil
}
