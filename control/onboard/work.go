package onboard

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"komainu/control/machine"
	"komainu/deploy"
	"komainu/drill"
	"komainu/event"
	"komainu/fault"
)

// attempt is one go at bringing a machine under protection.
type attempt struct {
	*Engine
	id      string
	started time.Time
	step    deploy.Step
	version string // of the agent that is there at the end
	host    deploy.Host
	early   bool // the machine still counts as protected
}

// protect brings a machine under protection, or says why that is not possible.
func (e *Engine) protect(ctx context.Context, id string, d decision) {
	a := &attempt{Engine: e, id: id, started: e.now(), early: d.early}
	err := a.protect(ctx, d.work)
	if a.host != nil {
		_ = a.host.Close() // nothing is lost with it
	}
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(cause, errUnwanted) {
		return // the control plane stops: it is begun again at the next start
	}
	if err == nil {
		return
	}
	if noted := a.failed(context.WithoutCancel(ctx), err); noted != nil && !errors.Is(noted, errUnwanted) {
		e.unwritten(ctx, id, noted)
	}
}

// unwritten says that what became of a machine cannot be written down. It is
// then as it was before, so that its turn would come again at once, and this
// would be said without end: it keeps its place for a while.
func (e *Engine) unwritten(ctx context.Context, id string, err error) {
	e.cfg.Log.Error("what became of a machine cannot be written down", "machine", id, "error", err)
	if fault.Is(err, fault.NotFound) {
		return // it was deleted meanwhile
	}
	select {
	case <-ctx.Done():
	case <-time.After(again):
	}
}

func (a *attempt) protect(ctx context.Context, w work) error {
	err := a.note(ctx, machine.Line{}, func(x *machine.Extension) {
		x.Reason, x.Waits, x.StartedAt, x.Next = nil, "", a.started, time.Time{}
		x.Attempt++
	})
	if err != nil {
		return err
	}
	if w != verify {
		if err := a.deploy(ctx); err != nil {
			return err
		}
	}
	device, err := a.reported(ctx)
	if err != nil {
		return err
	}
	return a.prove(ctx, device)
}

// note changes the state of the machine, unless somebody has offboarded it
// meanwhile: then errUnwanted ends the attempt.
func (a *attempt) note(ctx context.Context, l machine.Line, change func(*machine.Extension)) error {
	unwanted := false
	err := a.cfg.Machines.Note(ctx, a.id, l, func(x *machine.Extension) {
		if unwanted = x.State == deploy.Removing; !unwanted {
			change(x)
		}
	})
	if err == nil && unwanted {
		return errUnwanted
	}
	return err
}

// at begins a step. A machine whose agent is silent counts as protected until
// the machine itself answers: it may be booting.
func (a *attempt) at(ctx context.Context, step deploy.Step, waits string) error {
	a.step = step
	return a.note(ctx, machine.Line{}, func(x *machine.Extension) {
		x.Step, x.Waits = step, waits
		if !a.early || step != deploy.Connect {
			x.State = deploy.Creating
		}
	})
}

// did ends a step that went well.
func (a *attempt) did(ctx context.Context, text string) error {
	return a.note(ctx, machine.Line{Step: a.step, State: machine.LineOK, Text: text}, func(*machine.Extension) {})
}

// again is when a machine that does not answer is looked at the next time.
const again = 20 * time.Second

// failed writes down why a machine is not protected, and when it is tried
// again.
func (a *attempt) failed(ctx context.Context, err error) error {
	failure, ofHost := errors.AsType[*deploy.Failure](err)
	if !ofHost {
		a.cfg.Log.Warn("a machine could not be brought under protection", "machine", a.id, "step", a.step, "error", err)
		failure = deploy.Fail(deploy.ConnectorFailed, err.Error())
	}
	if a.early && a.step == deploy.Connect && (!ofHost || !failure.Permanent()) {
		// Neither the agent nor the host answers: it may be booting. Or nobody has
		// asked the host.
		return a.note(ctx, machine.Line{}, func(x *machine.Extension) {
			x.State, x.Step, x.Waits, x.Attempt, x.Next = deploy.Succeeded, "", "", 0, a.now().Add(again)
		})
	}
	line := machine.Line{Step: a.step, State: machine.LineFailed, Text: failure.Reason.Text, Reason: &failure.Reason}
	if errors.Is(err, errUnwanted) {
		line = machine.Line{Step: a.step, State: machine.LineInfo, Text: err.Error()}
	}
	return a.note(ctx, line, func(x *machine.Extension) {
		x.State, x.Reason, x.Requested = failure.State(), &failure.Reason, time.Time{}
		// What is wrong here passes, or concerns more than this machine.
		x.Next = a.now().Add(backoff(x.Attempt, ofHost && failure.Permanent()))
	})
}

// deploy sees to it that the agent is installed, runs and is enrolled.
func (a *attempt) deploy(ctx context.Context) error {
	m, err := a.machine()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, hostLimit, deploy.Failf(deploy.TimedOut, "the work on it took longer than %s", hostLimit))
	defer cancel()
	if err := a.at(ctx, deploy.Connect, ""); err != nil {
		return err
	}
	if a.host, err = a.cfg.Reach(ctx, m); err != nil {
		return err
	}
	if err := a.did(ctx, m.Address); err != nil {
		return err
	}
	facts, err := a.preflight(ctx, m)
	if err != nil {
		return err
	}
	i, own, err := a.plan(ctx, m, facts)
	if err != nil {
		return err
	}
	if c, ok := i.Content.(io.Closer); ok {
		defer c.Close()
	}
	if i.Cloud != "" {
		a.expect(a.id)
		defer a.Came(a.id)
	}
	done, err := deploy.InstallOn(ctx, a.host, i, func(s deploy.Step, waits string) {
		if s != a.step && a.step != deploy.Preflight {
			_ = a.did(ctx, "") // what cannot be noted shows in the next note
		}
		_ = a.at(ctx, s, waits)
	})
	if err != nil {
		return err
	}
	a.version = done.Version
	if own != "" {
		err = a.cfg.Machines.Linked(ctx, a.id, event.DeviceID(own))
	}
	if err != nil {
		return err
	}
	return a.did(ctx, "")
}

func (a *attempt) machine() (machine.Machine, error) {
	if m, ok := a.cfg.Machines.Lookup(a.id); ok {
		return m, nil
	}
	return machine.Machine{}, fault.New(fault.NotFound, "there is no machine %s", a.id)
}

// preflight looks at a host before anything is changed on it.
func (a *attempt) preflight(ctx context.Context, m machine.Machine) (deploy.Facts, error) {
	if err := a.at(ctx, deploy.Preflight, ""); err != nil {
		return deploy.Facts{}, err
	}
	facts, err := deploy.Inspect(ctx, a.host, a.cfg.Server)
	if err != nil {
		return facts, err
	}
	if err := a.cfg.Machines.Described(ctx, m.ID, facts.OSName, facts.Architecture()); err != nil {
		return facts, err
	}
	if f := facts.Check(deploy.Requirements{Now: a.cfg.Now(), Despite: m.Extension.Despite}); f != nil {
		return facts, f
	}
	text := facts.OSName + ", kernel " + facts.Kernel
	if !facts.Verified() {
		text += " (not verified: releases are not tried on this distribution)"
	}
	return facts, a.did(ctx, text)
}

// plan says what has to be installed. own is the id of the device that the
// agent on the host has already and keeps.
func (a *attempt) plan(ctx context.Context, m machine.Machine, f deploy.Facts) (i deploy.Installation, own string, err error) {
	if f.Device != "" {
		known := a.cfg.Device(m.Organization, event.DeviceID(f.Device))
		switch {
		case known == nil && !m.Extension.Take:
			return i, "", deploy.Fail(deploy.EnrolledElsewhere, "its device id there is "+f.Device)
		case known == nil || known.Offboarded:
			i.Take = true
		default:
			mine, err := a.owns(ctx, m, known)
			if err != nil {
				return i, "", err
			}
			if i.Take = !mine; mine {
				own = f.Device
			}
		}
	}
	limits := deploy.LimitsOf(a.host)
	switch {
	case own != "":
	case limits.Cloud != "":
		i.Cloud, i.Server, i.Pin = limits.Cloud, a.cfg.Server, a.cfg.Pin()
	default:
		i.InArguments = limits.NoInput
		if i.Token, err = a.cfg.Token(ctx, m); err != nil {
			return i, "", err
		}
	}
	p, ok := a.pick(f, event.DeviceID(own))
	switch {
	case !ok && f.Agent == "":
		return i, "", deploy.Failf(deploy.NoPackage, "%s for %s", f.Manager, f.Architecture())
	case !ok, f.Agent == p.Version && f.Service == "active":
		return i, own, nil // nothing to install
	}
	i.Package, i.SHA256, i.Size = f.Manager, p.SHA256, p.Size
	if limits.NoInput {
		i.URL = p.URL
		return i, own, nil
	}
	content, err := p.Content()
	if err != nil {
		return i, "", fmt.Errorf("open the package: %w", err)
	}
	i.Content = content
	return i, own, nil
}

// pick chooses the package for a host. An agent that is there and known is
// started, and put in anew only when it does not start: in the version that it
// has, for the upgrades to change in their order, or in another one when there
// is no package of that.
func (a *attempt) pick(f deploy.Facts, own event.DeviceID) (Package, bool) {
	if own != "" && f.Agent != "" {
		if f.Service != "failed" {
			return Package{}, false
		}
		if p, ok := a.cfg.Package(own, f.Agent, f.Manager, f.Architecture()); ok {
			return p, true
		}
	}
	return a.cfg.Package("", "", f.Manager, f.Architecture())
}

// reported waits until the agent is connected and has its policy.
func (a *attempt) reported(ctx context.Context) (event.DeviceID, error) {
	if err := a.at(ctx, deploy.Report, ""); err != nil {
		return "", err
	}
	var device *Device
	ok, err := a.waitFor(ctx, reportLimit, func() (bool, error) {
		m, err := a.machine()
		if err != nil {
			return false, err
		}
		device = a.device(&m)
		return device != nil && device.Connected && device.Confirmed, nil
	})
	switch {
	case err != nil:
		return "", err
	case !ok && (device == nil || !device.Connected):
		return "", deploy.Failf(deploy.NoReport, "not within %s", reportLimit)
	case !ok:
		return "", deploy.Failf(deploy.NoPolicy, "not within %s", reportLimit)
	}
	if device.Version != "" {
		a.version = device.Version
	}
	return device.ID, a.did(ctx, "the agent is connected and has its policy")
}

// prove has the machine prove that it is protected: a harmless detection on it
// has to become an alert here.
func (a *attempt) prove(ctx context.Context, device event.DeviceID) error {
	if err := a.at(ctx, deploy.SelfTest, ""); err != nil {
		return err
	}
	m, err := a.machine()
	if err != nil {
		return err
	}
	if a.Settings(m.Environment).SkipSelfTest {
		return a.succeeded(ctx, "", "", "the agent has its policy; detection tests are switched off here")
	}
	t, err := a.test(ctx, m.Organization, device)
	for again := 0; t.forgotten && err == nil && again < mostSelfTests; again++ {
		t, err = a.test(ctx, m.Organization, device)
	}
	if err != nil {
		return err
	}
	switch explained := t.state.Reason; {
	case t.alert != "":
		return a.succeeded(ctx, t.run, t.alert, "a harmless detection became an alert: the machine is protected")
	case t.state.Outcome == drill.Running:
		return deploy.Fail(deploy.SelfTestSilent, "run "+t.run)
	case explained != nil:
		return deploy.Failf(deploy.SelfTestFailed, "%s; %s", explained.Text, explained.Remedy)
	default:
		return deploy.Fail(deploy.SelfTestFailed, "run "+t.run)
	}
}

// tested is what became of a self-test.
type tested struct {
	run   string
	state drill.Run
	alert string
	// The agent was started anew meanwhile: it knows nothing of a test that it
	// was in the middle of, and nobody should wait for its answer.
	forgotten bool
}

// test has a device run the self-test, and waits for its end or for the alert.
func (a *attempt) test(ctx context.Context, organization string, device event.DeviceID) (t tested, err error) {
	if t.run, err = a.cfg.Test(ctx, organization, device, test); err != nil {
		return t, err
	}
	away := false
	_, err = a.waitFor(ctx, selfTestLimit, func() (bool, error) {
		var err error
		if t.state, t.alert, err = a.cfg.Tested(ctx, organization, t.run); err != nil {
			return false, err
		}
		d := a.cfg.Device(organization, device)
		connected := d != nil && d.Connected
		ended := t.alert != "" || t.state.Outcome != drill.Running
		t.forgotten = !ended && away && connected
		away = away || !connected
		return ended || t.forgotten, nil
	})
	return t, err
}

// succeeded calls the machine protected.
func (a *attempt) succeeded(ctx context.Context, run, alert, text string) error {
	now := a.now()
	return a.note(ctx, machine.Line{Step: deploy.SelfTest, State: machine.LineOK, Text: text}, func(x *machine.Extension) {
		x.State, x.Step, x.Reason, x.Waits, x.Next = deploy.Succeeded, "", nil, "", time.Time{}
		x.Seconds, x.AgentVersion, x.SelfTest, x.Alert, x.Protected = now.Sub(a.started).Seconds(), a.version, run, alert, now
		x.Attempt = 0
		x.Answered()
	})
}

// remove takes the agent off a machine that was offboarded. What goes wrong is
// tried again: the host may be down, or its package manager busy.
func (e *Engine) remove(ctx context.Context, id string) {
	a := &attempt{Engine: e, id: id, step: deploy.Remove}
	tries := 0
	err := e.cfg.Machines.Note(ctx, id, machine.Line{}, func(x *machine.Extension) {
		if x.State == deploy.Removing {
			x.Attempt, x.StartedAt, x.Next = x.Attempt+1, e.now(), time.Time{}
			tries = x.Attempt
		}
	})
	if err == nil && tries == 0 {
		return // somebody wants it protected again
	}
	if err == nil {
		err = a.takeOff(ctx)
	}
	if a.host != nil {
		_ = a.host.Close() // nothing is lost with it
	}
	if err != nil && ctx.Err() != nil {
		return // begun again at the next start
	}
	state, reason, next := deploy.None, deploy.ReasonOf(deploy.Offboarded, ""), time.Time{}
	line := machine.Line{Step: deploy.Remove, State: machine.LineOK, Text: "the agent is removed"}
	if err != nil {
		failure, ofHost := errors.AsType[*deploy.Failure](err)
		if !ofHost {
			failure = deploy.Fail(deploy.ConnectorFailed, err.Error())
		}
		reason = deploy.ReasonOf(deploy.RemoveFailed, failure.Said())
		line = machine.Line{Step: deploy.Remove, State: machine.LineFailed, Text: reason.Text, Reason: &reason}
		state, next = deploy.Removing, e.now().Add(backoff(tries, ofHost && failure.Permanent()))
		if tries >= removeTries || slices.Contains([]deploy.ReasonID{deploy.NoWay, deploy.CredentialMissing, deploy.EnrolledTwice}, failure.Reason.ID) {
			state, next = deploy.Failed, time.Time{}
		}
	}
	noted := e.cfg.Machines.Note(ctx, id, line, func(x *machine.Extension) {
		if x.State != deploy.Removing {
			return
		}
		x.State, x.Reason, x.Waits, x.Protected, x.Next = state, &reason, "", time.Time{}, next
		if state != deploy.Removing {
			x.Step, x.Attempt = "", 0
		}
	})
	if noted != nil {
		e.unwritten(ctx, id, noted)
	}
}

// takeOff removes the agent of the machine, and no other.
func (a *attempt) takeOff(ctx context.Context) error {
	m, err := a.machine()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, hostLimit, deploy.Failf(deploy.TimedOut, "the removal took longer than %s", hostLimit))
	defer cancel()
	if a.host, err = a.cfg.Reach(ctx, m); err != nil {
		return err
	}
	facts, err := deploy.Inspect(ctx, a.host, "")
	if err != nil {
		return err
	}
	if id := event.DeviceID(facts.Device); id != "" {
		if err := a.disowns(ctx, m, id); err != nil {
			return err
		}
	}
	return deploy.RemoveFrom(ctx, a.host, nil)
}
