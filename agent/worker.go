package agent

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"komainu/agent/link"
	"komainu/agent/localapi"
	"komainu/agent/ondemand"
	"komainu/agent/proctree"
	"komainu/agent/quarantine"
	"komainu/agent/realtime"
	"komainu/agent/rules"
	"komainu/agent/scan"
	"komainu/agent/selftest"
	"komainu/agent/sensor"
	"komainu/agent/spool"
	"komainu/agent/upgrade"
	"komainu/event"
	"komainu/fault"
	"komainu/finding"
	"komainu/internal/atomicfile"
	"komainu/policy"
)

// worker is the role that does everything which may be slow.
type worker struct {
	cfg      Config
	log      *slog.Logger
	settings *settings
	record   *recorder
	tree     *proctree.Tree
	protect  *protector
	scanner  *scan.Process    // for who waits for an open
	scanning *scan.Process    // for scans on request, which nobody's open waits for
	realtime *realtime.Handle // nil without a guardian
	rtError  error            // why there is none
	jobs     *ondemand.Runner
	link     *link.Link
	health   *healthKeeper
	tests    *selftest.Runner
	upgrades *upgrade.Runner
	form     func() string // of the package that this agent was installed from
	filter   sensorFilter

	telemetry telemetry

	obeyed     *obeyed // used by obey alone
	startLevel string

	refreshing sync.Mutex // what is known of the repository

	joinLock  sync.Mutex
	joinState joining
	copied    bool // the identity of another machine was put away by this start

	device  atomic.Pointer[link.Identity]
	sensor  atomic.Pointer[sensor.Sensor]
	wakeup  chan struct{} // settings have changed
	news    news          // of settings
	started time.Time
}

// runWorker opens what the agent needs, in order, and runs it until ctx ends.
// An error says why it could not start. After it has begun nothing ends it but
// ctx: a part that fails is degraded and tried again.
func runWorker(ctx context.Context, cfg Config) error {
	err := startWorker(ctx, cfg)
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = fault.Wrap(fault.Exhausted, err, "the agent cannot start before there is room: free space on the disk of %s", cfg.State)
	}
	return err
}

func startWorker(ctx context.Context, cfg Config) error {
	if err := os.MkdirAll(cfg.State, 0o700); err != nil {
		return fault.Wrap(fault.NeedsRoot, err, "make the state folder %s", cfg.State)
	}
	if err := checkState(cfg.State); err != nil {
		return err
	}
	w := &worker{cfg: cfg, log: cfg.Log, wakeup: make(chan struct{}, 1), started: time.Now()}
	if err := w.openSettings(); err != nil {
		return err
	}
	if err := w.openRecorder(); err != nil {
		return err
	}
	defer w.record.Close()
	if w.copied {
		// What waits tells of the other machine.
		if err := w.discard(); err != nil {
			return err
		}
	}
	w.tree = proctree.New(proctree.Limits{})
	w.openScanners()
	if err := w.openProtection(); err != nil {
		return err
	}
	w.openTests()
	scheduled, err := w.openSchedule()
	if err != nil {
		return err
	}
	w.openUpgrades()
	w.openLink()
	w.health = newHealthKeeper(w)
	w.protect.tellUntold()
	api, err := localapi.Open(localapi.Config{Path: cfg.Socket, Version: Version, Backend: w.backend(), Log: w.log.With("component", "localapi")})
	if err != nil {
		return err
	}
	defer api.Close()
	w.record.agentEvent(event.AgentStarted, map[string]string{"version": Version, "pid": strconv.Itoa(os.Getpid())})
	defer w.record.agentEvent(event.AgentStopped, nil)

	// That protection ends is noted before any part is told to end: on a busy
	// host the others may be gone long before one that notes it beside them.
	ctx, end := afterwards(ctx, func() {
		if w.realtime != nil {
			w.protected(false)
		}
	})
	defer end()
	var parts sync.WaitGroup
	keep := func(name string, run func(context.Context) error) { parts.Go(func() { w.keep(ctx, name, run) }) }
	keep("recorder", w.record.Run)
	keep("scanner", w.scanner.Run)
	keep("scanning", w.scanning.Run)
	keep("sensor", w.runSensor)
	keep("ondemand", w.jobs.Run)
	keep("link", w.link.Run)
	keep("localapi", api.Run)
	keep("health", w.health.run)
	keep("quarantine", w.purge)
	keep("remediation", w.protect.runRetries)
	keep("schedule", scheduled.Run)
	keep("definitions", w.runDefinitions)
	keep("upgrade", w.upgrades.Run)
	keep("join", w.runJoin)
	if w.realtime != nil {
		keep("realtime", func(ctx context.Context) error { return w.realtime.Run(ctx, w.protect) })
		keep("marks", w.runMarks)
	}
	w.log.Info("agent runs", "version", Version, "state", cfg.State, "real_time", w.realtime != nil)
	parts.Wait()
	w.protect.work.Wait()
	return nil
}

// afterwards returns a context that ends when ctx has ended and f has returned.
func afterwards(ctx context.Context, f func()) (context.Context, context.CancelFunc) {
	later, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		f()
		end()
	})
	return later, func() {
		stop()
		end()
	}
}

// keep runs a part until ctx ends, and again when it fails.
func (w *worker) keep(ctx context.Context, name string, run func(context.Context) error) {
	for pause := time.Second; ctx.Err() == nil; pause = min(2*pause, time.Minute) {
		err := run(ctx)
		if ctx.Err() != nil {
			return
		}
		if fault.Is(err, fault.Unsupported) {
			w.log.Warn("a part of the agent does not exist here", "part", name, "error", err)
			<-ctx.Done()
			return
		}
		w.log.Error("a part of the agent has ended and is started again", "part", name, "error", err)
		w.record.agentEvent(event.PartRestarted, map[string]string{"part": name, "reason": fmt.Sprint(err)})
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// stateVersion is the version of the state folder's layout.
const stateVersion = 1

// checkState refuses a folder that a newer version has written to.
func checkState(dir string) error {
	name := Config{State: dir}.path("version")
	text, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return atomicfile.Write(name, []byte(strconv.Itoa(stateVersion)+"\n"), 0o600)
	}
	if err != nil {
		return err
	}
	var v int
	if _, err := fmt.Sscan(string(text), &v); err != nil {
		return fault.New(fault.Invalid, "%s is damaged; it holds %q and should hold a number", name, text)
	}
	if v > stateVersion {
		return fault.New(fault.Conflict, "the state folder %s was written by a newer version of the agent (layout %d, this version knows %d); install that version or move the folder away", dir, v, stateVersion)
	}
	return nil
}

func (w *worker) openSettings() error {
	var err error
	// A copy of an enrolled machine goes on with the policy that it came with;
	// the key that it is signed with stays known until there is another.
	var key ed25519.PublicKey
	was, now, err := tellCopy(w.cfg.State, thisMachine())
	if err != nil {
		w.log.Error("whether this machine is a copy cannot be noted", "error", err)
	}
	if was != nil {
		w.log.Error("this machine is a copy of an enrolled one; that identity was put away", "device", was.Device)
		w.joinState.Was, w.copied, key = was, now, was.PolicyKey
	}
	id, err := link.Load(w.cfg.State)
	if err == nil {
		key = id.PolicyKey
	}
	switch {
	case err == nil:
		w.device.Store(&id)
	case !fault.Is(err, fault.NotFound):
		w.log.Error("the identity cannot be used; enrol again with --force", "error", err)
	}
	var warning error
	w.settings, warning, err = openSettings(w.cfg.State, key)
	if warning != nil {
		w.log.Warn("the stored policy was dropped; the control plane sends it again", "error", warning)
	}
	return err
}

func (w *worker) deviceID() event.DeviceID {
	if id := w.device.Load(); id != nil {
		return id.Device
	}
	return ""
}

func (w *worker) openRecorder() error {
	// The spools come first: one that a newer version wrote is left as it is,
	// with everything beside it.
	events, err := spool.Open(w.cfg.path("spool/events"), spool.Limits{})
	if err != nil {
		return err
	}
	findings, err := spool.Open(w.cfg.path("spool/findings"), spool.Limits{Bytes: 64 << 20})
	if err != nil {
		return errors.Join(err, events.Close())
	}
	numbers, err := spool.OpenNumbers(w.cfg.path("epoch"))
	if err != nil {
		return errors.Join(err, events.Close(), findings.Close())
	}
	if err := numbers.Unnoted(); err != nil {
		w.log.Warn("the epoch of event numbers could not be noted; it is tried again", "error", err)
	}
	w.record = &recorder{log: w.log.With("component", "recorder"), device: w.deviceID, numbers: numbers, events: events, findings: findings}
	return nil
}

// scannerIdle is how long a scanner that nothing needs waits for another file.
const scannerIdle = 5 * time.Second

// keepScanner reports whether somebody may come who must not wait for the
// start of the scanner. Without real-time protection it runs for scans only.
func (w *worker) keepScanner() bool { return w.realtime != nil && w.settings.Now().RealTimeOn() }

// openScanners makes two of them: a scan of the whole host keeps its scanner
// busy for hours, and an open must not wait behind its files.
func (w *worker) openScanners() {
	command := func() *exec.Cmd { return roleCommand("scanner") }
	w.scanner = scan.NewProcess(scan.Config{Command: command, Idle: scannerIdle, Keep: w.keepScanner, Log: w.log.With("component", "scan")})
	w.scanning = scan.NewProcess(scan.Config{Command: command, Idle: scannerIdle, Nice: 10, Log: w.log.With("component", "scan", "for", "scans on request")})
}

func (w *worker) openProtection() error {
	store, err := quarantine.Open(w.cfg.path("quarantine"))
	if err != nil {
		return err
	}
	history, err := quarantine.OpenHistory(w.cfg.path("history"), quarantine.HistoryLimits{})
	if err != nil {
		return err
	}
	w.protect = &protector{log: w.log.With("component", "protect"), scanner: w.scanner, store: store, history: history, record: w.record,
		who: w.processes, known: map[realtime.Stamp]time.Time{}}
	if w.realtime, w.rtError = realtime.Attach(w.log.With("component", "realtime")); w.rtError != nil {
		w.rtError = cmp.Or(w.cfg.NoGuardian, w.rtError)
		w.log.Warn("no real-time protection", "error", w.rtError)
	}
	w.settings.Watch(func(e policy.Effective) {
		w.record.licensed.Store(e.Licensed)
		w.protect.settingsChanged(e)
		w.filter.settingsChanged(e)
		w.telemetry.settingsChanged(e)
		w.obey(e)
		poke(w.wakeup)
		w.news.tell()
	})
	w.jobs, err = ondemand.New(ondemand.Config{
		Scan: func(ctx context.Context, f *os.File) (finding.Verdict, error) {
			v, err := w.scanning.Scan(ctx, f, scan.Options{SkipArchives: !w.settings.Now().ScanArchives})
			return w.protect.rated(v), err
		},
		Found:    w.protect.found,
		Settings: w.settings.Now,
		History:  w.cfg.path("scans"),
		Mounts:   localMounts,
		Log:      w.log.With("component", "ondemand"),
	})
	return err
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// processes returns the process that has a pid and its ancestors.
func (w *worker) processes(pid event.PID) []event.Process {
	p, ok := w.tree.ByPID(pid, time.Time{})
	if !ok {
		return nil
	}
	return append([]event.Process{p}, w.tree.Ancestors(p.Key)...)
}

func localMounts() []string {
	mounts, err := realtime.Mounts()
	if err != nil {
		return nil
	}
	paths := make([]string, len(mounts))
	for i, m := range mounts {
		paths[i] = m.Path
	}
	return paths
}

// gatherEvents is how long events wait for others before they leave. Findings
// never wait.
const gatherEvents = 200 * time.Millisecond

func (w *worker) openLink() {
	source := func(s *spool.Spool) link.Source {
		return link.Source{Stream: s.Stream(), Ack: s.Ack, Next: func(ctx context.Context, after uint64, maxBytes int) (link.Batch, error) {
			b, err := s.Next(ctx, after, maxBytes)
			return link.Batch(b), err
		}}
	}
	events := source(w.record.events)
	events.Gather = gatherEvents
	w.link = link.New(link.Config{
		Dir: w.cfg.State, Facts: hostFacts, Epoch: w.record.numbers.Epoch(),
		Sources:       []link.Source{watched(source(w.record.findings), w.tests), events},
		PolicyVersion: func() uint64 { return w.settings.Now().Version },
		ApplyPolicy:   w.applyPolicy,
		Claim:         (&claimer{file: w.cfg.path("spool/owner"), discard: w.discard}).Claim,
		Proxy:         w.proxy,
		Test:          w.beginTest, TestStages: w.tests.Answer,
		Upgrade: w.beginUpgrade, UpgradeStatus: w.upgrades.Status,
		Health: func() []byte {
			report := w.health.report()
			b, err := json.Marshal(&report)
			if err != nil {
				return nil
			}
			return b
		},
		Counts: func() (uint64, uint64) {
			return w.record.events.Stats().Waiting + w.record.findings.Stats().Waiting, w.record.lost.Load()
		},
		Log: w.log.With("component", "link"),
	})
}

// discard removes what waits for a former environment.
func (w *worker) discard() error {
	w.log.Warn("the device has moved to another environment; events and findings that wait for the former one are removed",
		"count", w.record.events.Stats().Waiting+w.record.findings.Stats().Waiting)
	return w.record.Discard()
}

func (w *worker) applyPolicy(signed policy.Signed) (uint64, error) {
	before := w.settings.Now().Version
	version, err := w.settings.ApplyPolicy(string(w.deviceID()), signed)
	if err == nil && version != before {
		w.log.Info("policy applied", "version", version)
		w.record.agentEvent(event.PolicyApplied, map[string]string{"version": strconv.FormatUint(version, 10)})
	}
	return version, err
}

// runSensor feeds tree, rules and recorder from one goroutine while telemetry
// is on. A change of the plan or of the sensor's settings starts it anew.
func (w *worker) runSensor(ctx context.Context) error {
	for ctx.Err() == nil {
		now := w.settings.Now()
		if !now.Licensed || !now.EndpointDetection {
			w.awaitChange(ctx, func(e policy.Effective) bool { return e.Licensed && e.EndpointDetection })
			continue
		}
		if err := w.sense(ctx, now); err != nil {
			return err
		}
	}
	return nil
}

// sense runs a sensor until settings change that it depends on.
func (w *worker) sense(ctx context.Context, now policy.Effective) error {
	s, err := sensor.Open(sensor.Config{
		EBPF: now.EBPF, HashExecutables: now.FileHashComputation, Own: w.own, Lookup: w.tree.ByPID, Filesystems: localMounts(), Log: w.log.With("component", "sensor"),
	})
	if err != nil {
		return err
	}
	w.tree.Seed(s.Snapshot())
	engine, err := rules.New(rules.Config{Tree: w.tree, Classify: sensor.Classify, SecretFolder: sensor.SecretFolder})
	if err != nil {
		return errors.Join(err, s.Close())
	}
	w.sensor.Store(s)
	defer w.sensor.Store(nil)
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		w.awaitChange(ctx, func(e policy.Effective) bool {
			return e.Licensed != now.Licensed || e.EndpointDetection != now.EndpointDetection || e.EBPF != now.EBPF
		})
		cancel()
	})
	watching.Go(func() { followMounts(ctx, localMounts, s.SetFilesystems) })
	err = s.Run(ctx, func(ev *event.Event) { w.sensed(engine, ev) })
	return errors.Join(err, s.Close())
}

// sensed takes an event of the sensor: the tree and the rules see it whether
// or not it is sent.
func (w *worker) sensed(engine *rules.Engine, ev *event.Event) {
	w.tree.Apply(ev)
	w.observed(ev)
	if w.filter.Excludes(ev) {
		return
	}
	found := engine.Observe(ev)
	if !sensor.IsFork(ev) && w.telemetry.Sends(ev) {
		w.record.Event(ev)
	}
	for i := range found {
		w.behaviour(&found[i])
	}
}

// followMounts hands on the mount points whenever they have changed.
func followMounts(ctx context.Context, mounts func() []string, changed func([]string)) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	for have := mounts(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now := mounts(); !slices.Equal(have, now) {
			have = now
			changed(have)
		}
	}
}

// awaitChange returns when the settings answer, or ctx ends.
func (w *worker) awaitChange(ctx context.Context, changed func(policy.Effective) bool) {
	for {
		next := w.news.next()
		if changed(w.settings.Now()) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-next:
		}
	}
}

// own reports whether a process belongs to this agent.
func (w *worker) own(pid event.PID) bool {
	return int(pid) == os.Getpid() || int(pid) == os.Getppid() && w.realtime != nil || int(pid) == w.scanner.Status().PID || int(pid) == w.scanning.Status().PID
}

// behaviour tells of what a rule has found.
func (w *worker) behaviour(f *finding.Finding) {
	if f.ID == "" {
		f.ID = newFindingID()
	}
	if !w.settings.Now().BehaviorMonitoring {
		return
	}
	w.record.Finding(f)
	entry := quarantine.Threat{ID: f.ID, Name: "Behavior:Linux/" + f.Rule.ID, Type: "behavior", Severity: f.Severity, State: finding.Detected, Time: f.Time}
	if actor := actorOf(f.Tree); actor != nil {
		entry.User, entry.Process = actor.User.Name, actor.Path
	}
	if err := w.protect.history.Add(entry); err != nil {
		w.log.Error("the protection history could not be written", "error", err)
	}
	w.record.Event(&event.Event{Action: event.BehaviorDetection, Time: f.Time, Initiator: actorOf(f.Tree), Fields: map[string]string{"title": f.Title, "rule": f.Rule.ID}})
	w.log.Info("behaviour found", "title", f.Title, "rule", f.Rule.ID)
}

// runMarks keeps the marks of real-time protection as settings and mounts
// want them.
func (w *worker) runMarks(ctx context.Context) error {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	var have []realtime.Mark
	known := false
	var begins sync.WaitGroup
	defer begins.Wait()
	var judged judgedBy
	for {
		w.realtime.OwnPID(0, w.scanner.Status().PID)
		w.realtime.OwnPID(1, w.scanning.Status().PID)
		now := w.settings.Now()
		want := wantedMarks(now)
		if !known || !slices.Equal(have, want) {
			if err := w.realtime.SetMarks(ctx, want); err != nil {
				w.health.marksFailed(err)
				if fault.Is(err, fault.Unavailable) {
					return err
				}
			} else {
				w.health.marksFailed(nil)
				if !known {
					begins.Go(func() { w.beginsToProtect(ctx) })
				}
			}
			have, known = want, true
			w.health.marked(have)
			w.health.changed()
		}
		if next := judgedByOf(now); !judged.same(next) {
			judged = next
			if err := w.realtime.Invalidate(); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			// The guardian takes all marks away when it closes the group. To ask
			// the broker for it would be to wait for an answer that nobody reads
			// any more.
			return nil
		case <-w.wakeup:
		case <-tick.C:
		}
	}
}

// judgedBy are the settings that verdicts rest on: what was remembered by
// others is forgotten.
type judgedBy struct {
	exclusions   []policy.Exclusion
	allowed      []string
	scanArchives bool
	bombs        policy.ThreatAction
}

func judgedByOf(e policy.Effective) judgedBy {
	return judgedBy{e.Exclusions, e.AllowedThreats, e.ScanArchives, bombAction(&e)}
}

func (j judgedBy) same(k judgedBy) bool {
	return slices.Equal(j.exclusions, k.exclusions) && slices.Equal(j.allowed, k.allowed) && j.scanArchives == k.scanArchives && j.bombs == k.bombs
}

// wantedMarks returns the filesystems to mark, with their modes.
func wantedMarks(e policy.Effective) []realtime.Mark {
	if !e.RealTimeOn() {
		return nil
	}
	mounts, err := realtime.Mounts()
	if err != nil {
		return nil
	}
	var marks []realtime.Mark
	for _, m := range mounts {
		if slices.Contains(e.UnmonitoredFilesystems, m.Type) {
			continue
		}
		if mode := e.ModeOf(m.Path); mode == policy.Block || mode == policy.Watch {
			marks = append(marks, realtime.Mark{Path: m.Path, Mode: mode})
		}
	}
	return marks
}

// purge removes what is older than the retention, once at the start and then
// every hour.
func (w *worker) purge(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		keep := time.Duration(w.settings.Now().QuarantineRetention) * 24 * time.Hour
		if n, err := w.protect.store.Purge(time.Now().Add(-keep)); err != nil {
			w.log.Warn("old quarantined files could not be removed", "error", err)
		} else if n > 0 {
			w.log.Info("old quarantined files removed", "count", n)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
