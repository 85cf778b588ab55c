package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"komainu/control/client"
	"komainu/deploy"
	"komainu/deploy/remote"
	"komainu/fault"
)

const (
	hostLimit   = 15 * time.Minute // for the work on one host
	joinLife    = 30 * time.Minute // of its join token
	reportEvery = time.Second      // it is looked whether its agent is connected
	offboarded  = "Offboarded"     // status of a device whose identity does not work any more
)

// deployment is one run of deploy.
type deployment struct {
	api         *client.Client
	options     deployOptions
	environment string // id
	server      string
	jump        []remote.Hop
	keys        ssh.AuthMethod
	hangUp      func()
	sudo        remote.Sudo
	password    string
	known       *remote.KnownHosts
	listed      bool // no other keys are taken than those that a connector lists
	packages    packages
	terminal    *terminal
	show        progress

	asking  sync.Mutex      // one question at a time
	refused map[string]bool // addresses whose key was said to be wrong
}

// outcome is what became of a host.
type outcome struct {
	Host    string         `json:"host"`
	Address string         `json:"address"`
	Machine string         `json:"machine,omitempty"` // of the connector's list
	OK      bool           `json:"ok"`
	Passed  bool           `json:"passedOver,omitempty"` // nothing was to be done, or wanted; the text says why
	Step    deploy.Step    `json:"step"`                 // the last one
	Text    string         `json:"text,omitempty"`
	Reason  *deploy.Reason `json:"reason,omitempty"`
	OS      string         `json:"os,omitempty"`
	Version string         `json:"version,omitempty"`
	Device  string         `json:"device,omitempty"`
	Seconds float64        `json:"seconds"`
}

// run works on all hosts, some at a time.
func (d *deployment) run(ctx context.Context, hosts []target) error {
	var workers sync.WaitGroup
	next := make(chan target)
	done := make(chan outcome)
	for range min(d.options.concurrency, len(hosts)) {
		workers.Go(func() {
			for e := range next {
				done <- d.host(ctx, e)
			}
		})
	}
	go func() {
		for _, e := range hosts {
			next <- e // after an interruption each of them fails at once
		}
		close(next)
		workers.Wait()
		close(done)
	}()
	failed, passed := 0, 0
	for o := range done {
		switch {
		case o.Passed:
			passed++
		case !o.OK:
			failed++
		}
		d.show.done(o)
	}
	d.show.end(len(hosts)-failed-passed, failed, passed)
	if failed > 0 {
		return fault.New(fault.Conflict, "%d of %d hosts failed", failed, len(hosts))
	}
	return nil
}

// attempt is the work on one host.
type attempt struct {
	*deployment
	outcome
	user    string
	machine *client.Machine // of the connector's list, else nil
	facts   deploy.Facts
}

func (d *deployment) host(ctx context.Context, t target) outcome {
	began := time.Now()
	a := &attempt{deployment: d, user: cmp.Or(t.User, d.options.user), machine: t.machine, outcome: outcome{Host: t.Name, Address: t.Address(d.options.port)}}
	if t.machine != nil {
		a.outcome.Machine = t.machine.ID
	}
	if t.pass != nil {
		a.Passed, a.Reason = !t.asked, t.pass
		return a.outcome
	}
	err := a.work(ctx)
	a.Seconds = time.Since(began).Round(time.Millisecond).Seconds()
	a.OK = err == nil
	if err != nil {
		a.Reason = reasonFor(ctx, err)
		if d.listed && a.Reason.ID == deploy.HostKeyUnknown {
			a.Reason.Remedy = deploy.ReasonOf(deploy.HostKeyUnknown, "").Remedy
		}
	}
	return a.outcome
}

// reasonFor says why a host failed, in words for who sits at a workstation.
func reasonFor(ctx context.Context, err error) *deploy.Reason {
	if ctx.Err() != nil {
		return &deploy.Reason{ID: deploy.Interrupted, Text: "it was interrupted", Remedy: "deploy to the host again: what is done already is passed over"}
	}
	f, ok := errors.AsType[*deploy.Failure](err)
	if !ok {
		f = deploy.Fail(deploy.ConnectorFailed, err.Error())
		f.Reason.Text, f.Reason.Remedy = "the deployment could not go on", "see to what the detail says, and deploy to the host again"
	}
	r := f.Reason
	r.Remedy = cmp.Or(remedies[r.ID], r.Remedy)
	return &r
}

// remedies are those that are others here than in the control plane.
var remedies = map[deploy.ReasonID]string{
	deploy.NameNotFound:      "correct the name, or give the address",
	deploy.ConnectionRefused: "start sshd on it, or correct the port",
	deploy.HostKeyChanged:    "compare the fingerprint on the machine's console (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub); if it is right, take the old key out of the file with ssh-keygen -R HOST",
	deploy.HostKeyUnknown:    "compare the fingerprint on the machine's console; then connect with ssh once, or use --accept-new",
	deploy.LoginRefused:      "check --user and your keys (ssh-add -l), and the machine's authorized_keys; its journal of sshd says more",
	deploy.SudoPassword:      "use --sudo password, or NOPASSWD for this user",
	deploy.ConnectionLost:    "deploy to the host again",
	deploy.EnrolledElsewhere: "offboard it there, or take it over with --take",
	deploy.ConflictingAgent:  "remove the other product, or install beside it with --despite-others",
}

func (a *attempt) at(step deploy.Step, text string) {
	a.Step = step
	a.show.step(a.Host, step, text)
}

func (a *attempt) work(ctx context.Context) error {
	a.at(deploy.Connect, a.Address)
	h, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer h.Close()
	ctx, cancel := context.WithTimeoutCause(ctx, hostLimit, deploy.Failf(deploy.TimedOut, "the work on it took longer than %s", hostLimit))
	defer cancel()
	a.at(deploy.Preflight, "")
	if a.facts, err = deploy.Inspect(ctx, h, a.server); err != nil {
		return err
	}
	a.OS, a.Version, a.Device = a.facts.OSName, a.facts.Agent, a.facts.Device
	if problem := a.facts.Check(deploy.Requirements{Now: time.Now(), Despite: a.options.despite}); problem != nil {
		return problem
	}
	plan, err := a.plan(ctx)
	if err != nil {
		return err
	}
	a.Text = plan.does
	if a.options.dryRun {
		return nil
	}
	return a.install(ctx, h, plan)
}

// connect logs in. A host key that is not known is asked about, where there
// is somebody to ask; people have no time limit.
func (a *attempt) connect(ctx context.Context) (*remote.Host, error) {
	auth := []ssh.AuthMethod{a.keys}
	c := remote.Config{Hop: remote.Hop{Address: a.Address, User: a.user, Auth: auth}, HostKeys: a.known, Sudo: a.sudo, Password: a.password}
	for _, hop := range a.jump {
		hop.Auth = auth
		c.Jump = append(c.Jump, hop)
	}
	for {
		h, err := remote.Dial(ctx, c)
		f, ok := errors.AsType[*deploy.Failure](err)
		if !ok || f.Reason.ID != deploy.HostKeyUnknown {
			return h, err
		}
		took, problem := a.takeKey(c)
		if problem != nil {
			return nil, problem
		}
		if !took {
			return nil, err
		}
	}
}

// takeKey decides on the key of the first host of a way that is not known.
func (a *attempt) takeKey(c remote.Config) (bool, error) {
	a.asking.Lock()
	defer a.asking.Unlock()
	for _, hop := range append(append([]remote.Hop{}, c.Jump...), c.Hop) {
		key, ok := a.known.Offered(hop.Address)
		if !ok {
			continue
		}
		if !a.options.acceptNew {
			if a.terminal == nil || a.listed {
				return false, nil
			}
			if a.refused[hop.Address] {
				return false, nil
			}
			answer, err := a.terminal.line(fmt.Sprintf("The key of %s is not known: %s %s\nIs it the right one (yes/no)? ", hop.Address, key.Type(), ssh.FingerprintSHA256(key)))
			if err != nil || answer != "yes" {
				a.refused[hop.Address] = true
				return false, nil
			}
		}
		return true, a.known.Add(hop.Address, key)
	}
	return true, nil // it became known while others were asked about
}

// plan is what is to be done on a host.
type plan struct {
	does    string
	pack    *client.Package // nil: what is there stays
	enrols  bool
	take    bool
	settled bool // nothing is to be done
}

func (a *attempt) plan(ctx context.Context) (plan, error) {
	var p plan
	if a.facts.Device != "" {
		known, err := a.api.Device(ctx, a.facts.Device)
		switch {
		case fault.Is(err, fault.NotFound) && !a.options.take:
			return p, deploy.Fail(deploy.EnrolledElsewhere, "its device id there is "+a.facts.Device)
		case err != nil && !fault.Is(err, fault.NotFound):
			return p, err
		}
		p.take = err != nil || known.OnboardingStatus == offboarded
	}
	p.enrols = a.facts.Device == "" || p.take
	// The control plane says which version: it knows what is rolled out to whom.
	stays := a.facts.Device
	if p.enrols {
		stays = ""
	}
	wanted, err := a.api.WantedPackage(ctx, a.facts.Manager, a.facts.Architecture(), a.facts.Agent, stays)
	if err != nil {
		return p, err
	}
	pack := wanted.Package
	switch {
	case pack == nil && a.facts.Agent == "":
		return p, deploy.Failf(deploy.NoPackage, "%s for %s", a.facts.Manager, a.facts.Architecture())
	case pack == nil || a.facts.Agent == pack.Version:
		p.does = "keep " + a.facts.Agent
	default:
		p.pack, p.does = pack, "install "+pack.Version
		if a.facts.Agent != "" {
			p.does = "replace " + a.facts.Agent + " by " + pack.Version
		}
	}
	switch {
	case p.take:
		p.does += ", enrol anew"
	case p.enrols:
		p.does += ", enrol"
	case p.pack == nil && a.facts.Service != "active":
		p.does += ", start"
	}
	if wanted.Why != "" {
		p.does += " (" + wanted.Why + ")"
	}
	p.settled = p.pack == nil && !p.enrols && a.facts.Service == "active"
	return p, nil
}

func (a *attempt) install(ctx context.Context, h deploy.Host, p plan) error {
	i := deploy.Installation{Take: p.take}
	if p.enrols {
		t, err := a.token(ctx)
		if err != nil {
			return err
		}
		i.Token = t.Token
	}
	if p.pack != nil {
		content, err := a.packages.content(ctx, *p.pack)
		if err != nil {
			return err
		}
		i.Package, i.SHA256, i.Size, i.Content = p.pack.Format, p.pack.SHA256, int64(len(content)), bytes.NewReader(content)
	}
	if !p.settled {
		done, err := deploy.InstallOn(ctx, h, i, a.at)
		if err != nil {
			return err
		}
		a.Version, a.Device = cmp.Or(done.Version, a.Version), cmp.Or(done.Device, a.Device)
	}
	if a.machine != nil && !p.enrols && (a.machine.Device == nil || a.machine.Device.ID != a.Device) {
		if _, err := a.api.LinkMachine(ctx, a.machine.ID, a.Device); err != nil {
			return err
		}
	}
	if a.options.wait == 0 {
		return nil
	}
	if err := a.reported(ctx); err != nil || a.machine == nil {
		return err
	}
	return a.proven(ctx)
}

// token lets the host enrol: as the machine of the connector's list, where it
// is one, else as a machine of its own.
func (a *attempt) token(ctx context.Context) (client.JoinToken, error) {
	if a.machine != nil {
		return a.api.CreateMachineToken(ctx, a.machine.ID)
	}
	return a.api.CreateJoinToken(ctx, a.environment, client.JoinTokenRequest{Label: "komainuctl deploy " + a.Host, ExpiresInSeconds: int64(joinLife / time.Second), MaxUses: 1})
}

// proven waits until the control plane has seen that the machine is protected.
func (a *attempt) proven(ctx context.Context) error {
	a.at(deploy.SelfTest, "")
	late := time.After(a.options.wait)
	for {
		m, err := a.api.Machine(ctx, a.machine.ID)
		if err != nil && !fault.Is(err, fault.Unavailable) {
			return err
		}
		if err == nil && m.Extension.State == deploy.Succeeded {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-late:
			if m.Extension.Reason != nil {
				return &deploy.Failure{Reason: *m.Extension.Reason}
			}
			return deploy.Failf(deploy.SelfTestSilent, "not within %s", a.options.wait)
		case <-time.After(reportEvery):
		}
	}
}

// reported waits until the agent is connected and has its policy.
func (a *attempt) reported(ctx context.Context) error {
	a.at(deploy.Report, "")
	if a.Device == "" {
		return deploy.Fail(deploy.NoReport, "the host does not say which device it is")
	}
	late := time.After(a.options.wait)
	for {
		x, err := a.api.Device(ctx, a.Device)
		if err != nil && !fault.Is(err, fault.Unavailable) && !fault.Is(err, fault.NotFound) {
			return err
		}
		if err == nil && x.Connected && x.Policy != nil && x.Policy.ConfirmedVersion > 0 && x.Policy.ConfirmedVersion == x.Policy.Version {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-late:
			if err == nil && x.Connected {
				return deploy.Failf(deploy.NoPolicy, "not within %s", a.options.wait)
			}
			return deploy.Failf(deploy.NoReport, "not within %s", a.options.wait)
		case <-time.After(reportEvery):
		}
	}
}

// packages are those that were fetched from the repository, each of them once.
type packages struct {
	download func(context.Context, client.Package) ([]byte, error)

	mu   sync.Mutex
	here map[string][]byte // by hash
}

func (p *packages) content(ctx context.Context, x client.Package) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if content := p.here[x.SHA256]; content != nil {
		return content, nil
	}
	content, err := p.download(ctx, x)
	if err != nil {
		return nil, err
	}
	if p.here == nil {
		p.here = map[string][]byte{}
	}
	p.here[x.SHA256] = content
	return content, nil
}
