package cli_test

import (
	"cmp"
	"context"
	"io"
	"slices"
	"sync"
	"time"

	"komainu/agent/localapi"
	"komainu/deploy"
	"komainu/fault"
	"komainu/health"
	"komainu/policy"
)

// fakeAgent is an agent that only remembers. Scripts steer it with the
// command `agent`.
type fakeAgent struct {
	mu         sync.Mutex
	settings   policy.Settings
	managed    policy.Settings
	level      string
	proxy      string
	refuse     error // what changes answer
	threats    []localapi.Threat
	allowed    []string
	jobs       []localapi.ScanJob
	scan       []localapi.ScanJob // the states that a scan goes through
	hold       bool               // a scan stays at its last state until it is cancelled
	cancelled  chan struct{}
	steps      []localapi.ConnectivityStep
	enrolled   bool
	quarantine []localapi.QuarantineObject
	upgrades   []deploy.UpgradeStatus // the states that the next upgrade goes through
	upgraded   *deploy.UpgradeStatus
}

const (
	eicarID = "6f1c2d3e-0000-4000-8000-000000000001"
	toolID  = "6f1c2d3e-0000-4000-8000-000000000002"
)

var found = time.Date(2026, 11, 23, 8, 38, 7, 0, time.UTC)

func newFakeAgent() *fakeAgent {
	return &fakeAgent{
		level:     "info",
		cancelled: make(chan struct{}),
		managed: policy.Settings{
			BehaviorMonitoring: new(true),
			Exclusions:         []policy.Exclusion{{Type: policy.ExcludeFolder, Value: "/srv/cache", Scope: policy.ScopeGlobal}},
		},
		threats: []localapi.Threat{
			{ID: eicarID, Name: "Virus:DOS/EICAR_Test_File", Type: "virus", DetectionTime: found, Status: localapi.StatusQuarantined,
				Severity: "High", Path: "/srv/demo/eicar.com.txt", InitiatingUser: "web", InitiatingProcess: "/usr/bin/curl", SHA256: "275a021b"},
			{ID: toolID, Name: "HackTool:Linux/Example.A", Type: "tool", DetectionTime: found.Add(-time.Hour), Status: localapi.StatusBlocked,
				Severity: "Medium", Path: "/srv/demo/\x1b[31mred\u202e", Reason: "the file is in use"},
		},
		quarantine: []localapi.QuarantineObject{{ID: eicarID, Threat: "Virus:DOS/EICAR_Test_File", Path: "/srv/demo/eicar.com.txt",
			SHA256: "275a021b", Size: 68, Owner: "web:web", QuarantinedTime: found.Add(time.Second)}},
		scan: []localapi.ScanJob{
			{State: localapi.ScanRunning},
			{State: localapi.ScanRunning, FilesScanned: 40, FilesTotal: 120},
			{State: localapi.ScanRunning, FilesScanned: 90, FilesTotal: 120, Threats: 1},
			{State: localapi.ScanCompleted, FilesScanned: 120, FilesTotal: 120, FilesSkipped: 2, BytesScanned: 4096, Threats: 1, EndTime: found.Add(2 * time.Second)},
		},
		steps: []localapi.ConnectivityStep{
			{Name: "tls", Target: "https://control.example:8443/ca.pem", OK: true, Duration: 12 * time.Millisecond},
			{Name: "protocol", Target: "https://control.example:8443/agent/v1/ping", OK: true, Duration: 3 * time.Millisecond, Detail: "protocol 3"},
		},
	}
}

// lock makes the caller the only one; the returned func ends that.
func (f *fakeAgent) lock() (unlock func()) {
	f.mu.Lock()
	return f.mu.Unlock
}

// backend hands the agent in, part by part.
func (f *fakeAgent) backend() localapi.Backend {
	return localapi.Backend{Health: f, Settings: f, Threats: f, Allowed: f, Quarantine: f, Scans: f,
		Exclusions: f, Connectivity: f, Enrolment: f, Definitions: f, Diagnostics: f, Upgrades: f}
}

func (f *fakeAgent) effective() policy.Effective {
	return policy.Merge(&policy.Document{Format: policy.Format, Version: 1, Plan: policy.P1, Licensed: true, Managed: f.managed}, f.settings)
}

func (f *fakeAgent) Report(context.Context) health.Report {
	defer f.lock()()
	e := f.effective()
	r := health.Report{
		Healthy: true, Licensed: true, EngineVersion: "1.0.1", EngineLoadStatus: "Engine load succeeded", AppVersion: "1.2.3",
		OrgID: "0b7c1111-0000-4000-8000-000000000000", LogLevel: f.level, MachineGUID: "m-1", ReleaseRing: "Production",
		PassiveMode: e.EnforcementLevel == policy.Passive, BehaviorMonitoring: "enabled",
		RealTimeEnabled: e.RealTimeOn(), RealTimeAvailable: true, RealTimeSubsystem: "fanotify", RealTimeScope: "all_filesystems",
		SupplementaryEvents: "ebpf", DefinitionsUpdated: "Mon Nov 23 08:00:00 2026", DefinitionsMinutes: 38,
		DefinitionsVersion: "1.0.1", DefinitionsStatus: "up_to_date", EDRClientVersion: "1.2.3", EDRConfiguration: "1",
		EDRMachineID: "d-1", Managed: []string{"behavior_monitoring"}, Time: found,
		Conditions: []health.Condition{
			{Part: "real_time_protection", State: health.OK, Since: found},
			{Part: "sensor", State: health.Degraded, Since: found.Add(time.Minute), Reason: "eBPF cannot be loaded", Remedy: "use kernel 5.10 or newer"},
			{Part: "scanner", State: health.OK, Since: found},
		},
	}
	for _, t := range e.Tags {
		r.EDRDeviceTags = append(r.EDRDeviceTags, health.Tag(t))
		if t.Key == localapi.GroupIDs {
			r.EDRGroupIDs = t.Value
		}
	}
	r.Proxy = f.proxy
	return r
}

func (f *fakeAgent) ApplySetting(_ context.Context, name localapi.Setting, value string) error {
	defer f.lock()()
	if f.refuse != nil {
		return f.refuse
	}
	if f.effective().Managed(name.Key()) {
		return fault.New(fault.Managed, "the setting %s is managed by policy; change it in the control plane", name)
	}
	p, err := name.Patch(f.effective(), value)
	f.settings.EnforcementLevel = cmp.Or(p.EnforcementLevel, f.settings.EnforcementLevel)
	f.settings.OnDemandScanThreads = cmp.Or(p.OnDemandScanThreads, f.settings.OnDemandScanThreads)
	if p.LogLevel != nil {
		f.level = *p.LogLevel
	}
	if p.Proxy != nil {
		f.proxy = *p.Proxy
	}
	if p.ThreatTypes != nil {
		f.settings.ThreatTypes = p.ThreatTypes
	}
	return err
}

func (f *fakeAgent) SetTag(_ context.Context, tag policy.Tag) error {
	defer f.lock()()
	f.settings.Tags = []policy.Tag{tag}
	return f.refuse
}

func (f *fakeAgent) RemoveTag(_ context.Context, key string) error {
	defer f.lock()()
	if !slices.ContainsFunc(f.settings.Tags, func(t policy.Tag) bool { return t.Key == key }) {
		return fault.New(fault.NotFound, "there is no tag %q", key)
	}
	f.settings.Tags = nil
	return nil
}

func (f *fakeAgent) SetLogLevel(_ context.Context, level string) error {
	defer f.lock()()
	f.level = level
	return nil
}

func (f *fakeAgent) ThreatTypes(context.Context) ([]localapi.ThreatType, error) {
	defer f.lock()()
	e := f.effective()
	return []localapi.ThreatType{
		{Type: policy.ArchiveBomb, Action: e.ThreatTypes[policy.ArchiveBomb], Origin: e.Origins[localapi.ArchiveBombs.Key()], Engine: true},
		{Type: policy.PUA, Action: policy.ActionOff, Origin: policy.FromDefault},
	}, nil
}

func (f *fakeAgent) Threats(context.Context) ([]localapi.Threat, error) {
	defer f.lock()()
	return f.threats, nil
}

func (f *fakeAgent) Threat(_ context.Context, id string) (localapi.Threat, error) {
	defer f.lock()()
	for _, t := range f.threats {
		if t.ID == id {
			return t, nil
		}
	}
	return localapi.Threat{}, fault.New(fault.NotFound, "there is no threat with the id %q", id)
}

func (f *fakeAgent) AllowedThreats(context.Context) ([]localapi.AllowedThreat, error) {
	defer f.lock()()
	var all []localapi.AllowedThreat
	for _, n := range f.allowed {
		all = append(all, localapi.AllowedThreat{Name: n, Origin: policy.FromLocal})
	}
	return all, nil
}

func (f *fakeAgent) AllowThreat(_ context.Context, name string) error {
	defer f.lock()()
	f.allowed = append(f.allowed, name)
	return nil
}

func (f *fakeAgent) DisallowThreat(_ context.Context, name string) error {
	defer f.lock()()
	n := len(f.allowed)
	if f.allowed = slices.DeleteFunc(f.allowed, func(s string) bool { return s == name }); len(f.allowed) == n {
		return fault.New(fault.NotFound, "%q is not allowed", name)
	}
	return nil
}

func (f *fakeAgent) QuarantineObjects(context.Context) ([]localapi.QuarantineObject, error) {
	defer f.lock()()
	return f.quarantine, nil
}

func (f *fakeAgent) QuarantineThreat(ctx context.Context, id string) (localapi.QuarantineObject, error) {
	t, err := f.Threat(ctx, id)
	if err != nil {
		return localapi.QuarantineObject{}, err
	}
	defer f.lock()()
	o := localapi.QuarantineObject{ID: t.ID, Threat: t.Name, Path: t.Path, QuarantinedTime: found}
	f.quarantine = append(f.quarantine, o)
	return o, nil
}

func (f *fakeAgent) RemoveQuarantined(_ context.Context, id string) error {
	defer f.lock()()
	n := len(f.quarantine)
	f.quarantine = slices.DeleteFunc(f.quarantine, func(o localapi.QuarantineObject) bool { return o.ID == id })
	if len(f.quarantine) == n {
		return fault.New(fault.NotFound, "there is nothing with the id %q in quarantine", id)
	}
	return nil
}

func (f *fakeAgent) RemoveAllQuarantined(context.Context) (int, error) {
	defer f.lock()()
	n := len(f.quarantine)
	f.quarantine = nil
	return n, nil
}

func (f *fakeAgent) RestoreQuarantined(_ context.Context, req localapi.RestoreRequest) ([]localapi.Restored, error) {
	defer f.lock()()
	for _, o := range f.quarantine {
		if o.ID == req.ID || o.Path == req.Path {
			return []localapi.Restored{{ID: o.ID, Path: req.Destination + o.Path}}, nil
		}
	}
	return nil, fault.New(fault.NotFound, "there is no such file in quarantine")
}

func (f *fakeAgent) StartScan(_ context.Context, req localapi.ScanRequest) (localapi.ScanJob, error) {
	defer f.lock()()
	job := localapi.ScanJob{ID: "scan-1", Type: req.Type, Path: req.Path, State: localapi.ScanQueued, StartTime: found}
	f.jobs = append([]localapi.ScanJob{job}, f.jobs...)
	return job, nil
}

func (f *fakeAgent) WatchScan(ctx context.Context, id string, progress func(localapi.ScanJob) error) error {
	send := func(state localapi.ScanJob) error {
		unlock := f.lock()
		job := f.jobs[0]
		state.ID, state.Type, state.Path, state.StartTime = job.ID, job.Type, job.Path, job.StartTime
		f.jobs[0] = state
		unlock()
		return progress(state)
	}
	unlock := f.lock()
	states, hold := f.scan, f.hold
	unlock()
	for _, state := range states {
		if err := send(state); err != nil {
			return err
		}
	}
	if !hold {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.cancelled:
		return send(localapi.ScanJob{State: localapi.ScanCancelled, FilesScanned: 90, EndTime: found})
	}
}

func (f *fakeAgent) CancelScan(context.Context, string) (localapi.ScanJob, error) {
	defer f.lock()()
	if !f.hold {
		return localapi.ScanJob{}, fault.New(fault.NotFound, "no scan is running")
	}
	close(f.cancelled)
	return f.jobs[0], nil
}

func (f *fakeAgent) ScanJobs(context.Context) ([]localapi.ScanJob, error) {
	defer f.lock()()
	return slices.Clone(f.jobs), nil
}

func (f *fakeAgent) Exclusions(context.Context) ([]localapi.Exclusion, error) {
	defer f.lock()()
	var all []localapi.Exclusion
	for _, x := range f.managed.Exclusions {
		all = append(all, localapi.Exclusion{Exclusion: x, Origin: policy.FromPolicy})
	}
	for _, x := range f.settings.Exclusions {
		all = append(all, localapi.Exclusion{Exclusion: x, Origin: policy.FromLocal})
	}
	return all, nil
}

func (f *fakeAgent) AddExclusion(_ context.Context, x policy.Exclusion) error {
	defer f.lock()()
	f.settings.Exclusions = append(f.settings.Exclusions, x)
	return nil
}

func (f *fakeAgent) RemoveExclusion(_ context.Context, x policy.Exclusion) error {
	defer f.lock()()
	if slices.Contains(f.managed.Exclusions, x) {
		return fault.New(fault.Managed, "the exclusion of %s comes from policy; remove it in the control plane", x.Value)
	}
	i := slices.Index(f.settings.Exclusions, x)
	if i < 0 {
		return fault.New(fault.NotFound, "there is no exclusion of %s with the scope %s", x.Value, x.Scope)
	}
	f.settings.Exclusions = slices.Delete(f.settings.Exclusions, i, i+1)
	return nil
}

func (f *fakeAgent) TestConnectivity(_ context.Context, step func(localapi.ConnectivityStep) error) error {
	unlock := f.lock()
	steps := slices.Clone(f.steps)
	unlock()
	for _, s := range steps {
		if err := step(s); err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeAgent) Enrol(_ context.Context, req localapi.EnrolRequest) (localapi.EnrolResult, error) {
	defer f.lock()()
	switch {
	case f.enrolled && !req.Force:
		return localapi.EnrolResult{}, fault.New(fault.Conflict, "this device is enrolled already; --force enrols it anew")
	case req.Token == "expired":
		return localapi.EnrolResult{}, fault.New(fault.Unauthentic, "the control plane refused the join token: it has expired; make a new one")
	}
	f.enrolled = true
	return localapi.EnrolResult{Device: "d-1", Organization: "Example", Environment: "Head office", Server: "https://control.example:8443"}, nil
}

func (f *fakeAgent) Prove(_ context.Context, req localapi.ProofRequest) (localapi.ProofResult, error) {
	defer f.lock()()
	if !f.enrolled {
		return localapi.ProofResult{}, fault.New(fault.NotFound, "this device is not enrolled")
	}
	return localapi.ProofResult{Device: "d-1", Proof: "certificate." + string(req.Nonce)}, nil
}

func (f *fakeAgent) Offboard(_ context.Context, req localapi.OffboardRequest) (localapi.OffboardResult, error) {
	defer f.lock()()
	if !f.enrolled {
		return localapi.OffboardResult{}, fault.New(fault.NotFound, "this device is not enrolled")
	}
	r := localapi.OffboardResult{Device: "d-1", Environment: "Head office", Server: "https://control.example:8443", Told: true, Package: "deb"}
	if f.refuse != nil {
		if !req.Force || fault.Is(f.refuse, fault.Denied) {
			return localapi.OffboardResult{}, f.refuse
		}
		r.Told, r.Untold = false, f.refuse.Error()
	}
	f.enrolled = false
	return r, nil
}

func (f *fakeAgent) UpdateDefinitions(context.Context) (localapi.DefinitionsResult, error) {
	return localapi.DefinitionsResult{Version: "1.0.1", Note: "Definitions are embedded in this version of the agent and come with its updates."}, nil
}

func (f *fakeAgent) ScanCounters(context.Context) ([]localapi.ScanCounter, error) {
	return []localapi.ScanCounter{{ID: 1, Name: "git", Path: "/usr/bin/git", Files: 1200}, {ID: 2, Name: "cc1", Path: "/usr/lib/gcc/cc1", Files: 31}}, nil
}

func (f *fakeAgent) WriteDiagnostics(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, "PK of a zip")
	return err
}

func (f *fakeAgent) Upgrade(context.Context) (localapi.Upgrade, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.upgrades) > 0 {
		f.upgraded, f.upgrades = &f.upgrades[0], f.upgrades[1:]
	}
	return localapi.Upgrade{Running: "1.0.0", Last: f.upgraded}, nil
}

func (f *fakeAgent) CheckUpgrade(_ context.Context, from string) (localapi.Offer, error) {
	if from == "/mnt/stick" {
		return localapi.Offer{}, fault.New(fault.Unauthentic, "its timestamp of the repository has expired")
	}
	return localapi.Offer{Running: "1.0.0", Versions: []string{"1.1.0", "1.0.0"}, Form: "deb"}, nil
}

func (f *fakeAgent) ApplyUpgrade(_ context.Context, req localapi.UpgradeRequest) (deploy.UpgradeStatus, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := deploy.UpgradeStatus{ID: "local-1", From: "1.0.0", To: cmp.Or(req.Version, "1.1.0"), State: deploy.UpgradeStateFetching}
	if s.To == s.From {
		return s, fault.New(fault.Conflict, "version %s runs already", s.To)
	}
	at := func(state deploy.UpgradeState) deploy.UpgradeStatus {
		next := s
		next.State = state
		return next
	}
	end := at(deploy.UpgradeStateSucceeded)
	if s.To == "1.2.0" {
		end = at(deploy.UpgradeStateRolledBack)
		end.Reason = new(deploy.ReasonOf(deploy.UpgradeRolledBack, "it does not answer"))
	}
	end.Gap = 812 * time.Millisecond
	f.upgraded, f.upgrades = &s, []deploy.UpgradeStatus{at(deploy.UpgradeStateInstalling), at(deploy.UpgradeStateProbation), end}
	return s, nil
}
