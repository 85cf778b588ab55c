package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"komainu/control/client"
	"komainu/deploy/remote"
	"komainu/fault"
)

// deployOptions are the flags of deploy.
type deployOptions struct {
	environment, inventory, connector string
	user, jump, sudo, passwordFile    string
	identities                        []string
	knownHosts, server                string
	port, concurrency                 int
	acceptNew, dryRun, take, despite  bool
	wait                              time.Duration
}

func (a *app) deploy() *cobra.Command {
	var o deployOptions
	c := &cobra.Command{
		Use:   "deploy [HOST]...",
		Short: "Install the agent on hosts over SSH, with your own keys, and enrol them",
		Long: "Install the agent on hosts over SSH, with your own keys, and enrol them.\n" +
			"A HOST is written like admin@web[01-20].example.net:2222 or [2001:db8::5]:22; the file of --inventory has a host per line, with comments after #.\n" +
			"With --connector the hosts are the machines of an SSH connector that need the agent, or those of them that are named. User, ports, jump hosts, sudo and listed host keys are the connector's, where no flag says otherwise; each agent enrols as the machine of the list, and is done when the machine has proven that it is protected. Machines that are not to get an agent are passed over with the reason; one that was named fails.\n" +
			"The keys are those of the SSH agent at SSH_AUTH_SOCK and of --identity, or else the usual ones in ~/.ssh; nothing of them leaves this machine. Host keys are checked like ssh does; ssh_config is not read.\n" +
			"Every host gets a join token of its own and the version that is rolled out (docs/upgrades.md), and is done when its agent is connected and has its policy. Where the agent is there already, it is started if it was stopped, and keeps its version until its upgrade comes to it.\n" +
			"Without a terminal, each step is a line of host, step and text, separated by tabs; with -o json each host is one object in a line when it is done. The exit status is 1 when a host failed.",
		Args: cobra.ArbitraryArgs,
		RunE: a.with(func(c *cobra.Command, api *client.Client, args []string) error {
			d, targets, err := a.prepare(c, api, &o, args)
			if err != nil {
				return err
			}
			defer d.hangUp()
			return d.run(c.Context(), targets)
		}),
	}
	f := c.Flags()
	f.StringVar(&o.environment, "environment", "", "name or id of the environment; may be left out when there is only one")
	f.StringVar(&o.connector, "connector", "", "name or id of an SSH connector, for the machines of its list")
	f.StringVar(&o.inventory, "inventory", "", "file with hosts, - for standard input")
	f.StringVar(&o.user, "user", "root", "user to log in as where a host names none")
	f.IntVar(&o.port, "port", 22, "port where a host names none")
	f.StringVar(&o.jump, "jump", "", "hosts to go through, like admin@bastion:22, separated by commas")
	f.StringArrayVar(&o.identities, "identity", nil, "file with a private key; a certificate beside it is used too; may be given again")
	f.StringVar(&o.knownHosts, "known-hosts", "", "file with host keys (default ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts)")
	f.BoolVar(&o.acceptNew, "accept-new", false, "take the keys of hosts that are not known yet, and keep them; keys that have changed are refused all the same")
	f.StringVar(&o.sudo, "sudo", "", "how the user becomes root: none, passwordless or password (default none for root, passwordless for others)")
	f.StringVar(&o.passwordFile, "sudo-password-file", "", "file with the password for sudo (default: it is asked for on the terminal)")
	f.IntVar(&o.concurrency, "concurrency", 20, "hosts at a time, at most 200")
	f.BoolVar(&o.dryRun, "dry-run", false, "log in and look, but change nothing; says what would be done")
	f.BoolVar(&o.take, "take", false, "take over hosts whose agent belongs to another control plane")
	f.BoolVar(&o.despite, "despite-others", false, "install beside another product that decides on file accesses")
	f.StringVar(&o.server, "server", "", "HOST:PORT of the control plane as the hosts see it (default that of the profile)")
	f.DurationVar(&o.wait, "wait", time.Minute, "how long to wait for the agent to connect; 0 does not wait")
	return c
}

// prepare reads all that the flags name and asks for what is missing, before
// any host is touched.
func (a *app) prepare(c *cobra.Command, api *client.Client, o *deployOptions, args []string) (*deployment, []target, error) {
	hosts, err := a.hosts(o, args)
	if err != nil {
		return nil, nil, err
	}
	if o.concurrency < 1 || o.concurrency > 200 {
		return nil, nil, fault.New(fault.Invalid, "--concurrency %d: want 1 to 200", o.concurrency)
	}
	if o.port < 1 || o.port > 65535 {
		return nil, nil, fault.New(fault.Invalid, "--port %d: want 1 to 65535", o.port)
	}
	d := &deployment{api: api, options: *o, terminal: a.terminal(c), hangUp: func() {}, refused: map[string]bool{}}
	targets := targetsOf(hosts)
	if o.connector != "" {
		if targets, err = d.follow(c, hosts); err != nil {
			return nil, nil, err
		}
	}
	work := slices.DeleteFunc(slices.Clone(targets), func(t target) bool { return t.pass != nil })
	if d.jump, err = hops(&d.options); err != nil {
		return nil, nil, err
	}
	if d.server, err = a.serverFor(o.server); err != nil {
		return nil, nil, err
	}
	if d.known == nil {
		if d.known, err = knownHosts(o.knownHosts); err != nil {
			return nil, nil, err
		}
	}
	if err := d.sudoPassword(work); err != nil {
		return nil, nil, err
	}
	if d.environment == "" {
		if d.environment, err = environmentFor(c.Context(), api, o.environment); err != nil {
			return nil, nil, err
		}
	}
	d.packages = packages{download: api.Download}
	d.show = a.progress(c, len(targets))
	if len(work) == 0 {
		return d, targets, nil // nobody is asked for a passphrase in vain
	}
	d.keys, d.hangUp, err = d.openKeys()
	return d, targets, err
}

// hosts are those of the arguments and of the inventory, each of them once.
func (a *app) hosts(o *deployOptions, args []string) ([]remote.Entry, error) {
	all, err := remote.ParseInventory(strings.Join(args, "\n"), o.port)
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "hosts of the command line, each counted as a line")
	}
	if o.inventory != "" {
		in := a.in
		if o.inventory != "-" {
			f, err := os.Open(o.inventory)
			if err != nil {
				return nil, fault.Wrap(fault.Invalid, err, "read the inventory")
			}
			defer f.Close()
			in = f
		}
		text, err := io.ReadAll(io.LimitReader(in, maxInput))
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "read the inventory")
		}
		more, err := remote.ParseInventory(string(text), o.port)
		if err != nil {
			return nil, fault.Wrap(fault.Invalid, err, "inventory %s", o.inventory)
		}
		named := map[string]bool{}
		for _, e := range all {
			named[e.Key(o.port)] = true
		}
		all = append(all, slices.DeleteFunc(more, func(e remote.Entry) bool { return named[e.Key(o.port)] })...)
	}
	if len(all) == 0 && (o.connector == "" || o.inventory != "") {
		return nil, fault.New(fault.Invalid, "name hosts, a file of them with --inventory, or a connector with --connector")
	}
	if len(all) > remote.MaxHosts {
		return nil, fault.New(fault.Invalid, "there are %d hosts; take %d at a time", len(all), remote.MaxHosts)
	}
	return all, nil
}

// maxInput is more than any inventory or password that is taken, in bytes.
const maxInput = 8 << 20

func hops(o *deployOptions) ([]remote.Hop, error) {
	var way []remote.Hop
	for part := range strings.SplitSeq(o.jump, ",") {
		if o.jump == "" {
			break
		}
		list, err := remote.ParseInventory(part, 0)
		if err != nil || len(list) != 1 {
			return nil, fault.New(fault.Invalid, "--jump %q: want USER@HOST:PORT", part)
		}
		way = append(way, remote.Hop{Address: list[0].Address(22), User: cmp.Or(list[0].User, o.user)})
	}
	return way, nil
}

// serverFor is where hosts find the control plane.
func (a *app) serverFor(flag string) (string, error) {
	if flag != "" {
		if _, _, err := net.SplitHostPort(flag); err != nil {
			return "", fault.New(fault.Invalid, "--server %q: want HOST:PORT", flag)
		}
		return flag, nil
	}
	p, err := a.readProfile()
	if err != nil {
		return "", err
	}
	u, err := url.Parse(p.Server)
	if err != nil {
		return "", fault.Wrap(fault.Invalid, err, "the server of the profile")
	}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")), nil
}

func knownHosts(file string) (*remote.KnownHosts, error) {
	if file != "" {
		return remote.OpenKnownHosts(file)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return nil, fault.Wrap(fault.Invalid, err, "find ~/.ssh/known_hosts; name a file with --known-hosts")
	}
	return remote.OpenKnownHosts(filepath.Join(home, ".ssh", "known_hosts"), "/etc/ssh/ssh_known_hosts")
}

func environmentFor(ctx context.Context, api *client.Client, name string) (string, error) {
	list, err := api.Environments(ctx)
	if err != nil {
		return "", err
	}
	if name == "" {
		if len(list.Items) == 1 {
			return list.Items[0].ID, nil
		}
		return "", fault.New(fault.Invalid, "there are %d environments; name one with --environment", len(list.Items))
	}
	for _, e := range list.Items {
		if e.ID == name || e.Name == name {
			return e.ID, nil
		}
	}
	return "", fault.New(fault.NotFound, "there is no environment %q; komainuctl environment list shows them", name)
}

// terminal asks the person at the terminal. It is nil where there is none.
type terminal struct {
	in  *os.File
	out io.Writer
}

func (a *app) terminal(c *cobra.Command) *terminal {
	if f, ok := a.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return &terminal{f, c.ErrOrStderr()}
	}
	return nil
}

// secret reads a line that is not shown.
func (t *terminal) secret(question string) (string, error) {
	fmt.Fprint(t.out, question)
	text, err := term.ReadPassword(int(t.in.Fd()))
	fmt.Fprintln(t.out)
	return string(text), err
}

// line reads a line.
func (t *terminal) line(question string) (string, error) {
	fmt.Fprint(t.out, "\r\x1b[K"+question) // over what shows the progress
	var text []byte
	for one := make([]byte, 1); ; {
		if _, err := t.in.Read(one); err != nil {
			return "", err
		}
		if one[0] == '\n' {
			return strings.TrimSpace(string(text)), nil
		}
		text = append(text, one[0])
	}
}
