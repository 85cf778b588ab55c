package agent

import (
	"archive/zip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"komainu/agent/instance"
	"komainu/agent/link"
	"komainu/agent/localapi"
	"komainu/agent/quarantine"
	"komainu/agent/realtime"
	"komainu/agent/scan"
	"komainu/event"
	"komainu/fault"
	"komainu/finding"
	"komainu/health"
)

// backend is what the local API can ask of this agent.
func (w *worker) backend() localapi.Backend {
	l := &local{w: w}
	s := &localSettings{settings: w.settings, logLevel: w.setLogLevel, changed: w.settingChanged}
	return localapi.Backend{Health: l, Settings: s, Threats: l, Allowed: s, Quarantine: l, Scans: l, Exclusions: s, Connectivity: l, Enrolment: l, Definitions: l, Diagnostics: l, Tests: l, Upgrades: l}
}

// levels maps the names of `log level set` to what slog knows.
var levels = map[string]slog.Level{"error": slog.LevelError, "warning": slog.LevelWarn, "info": slog.LevelInfo, "verbose": slog.LevelDebug, "debug": slog.LevelDebug}

func (w *worker) setLogLevel(name string) error {
	level, ok := levels[name]
	if !ok {
		return fault.New(fault.Invalid, "log level %q: want %s", name, strings.Join(localapi.LogLevels, ", "))
	}
	w.cfg.Level.Set(level)
	return nil
}

func levelName(v *slog.LevelVar) string {
	if v == nil {
		return "info"
	}
	for _, name := range []string{"error", "warning", "info", "debug"} {
		if levels[name] == v.Level() {
			return name
		}
	}
	return v.Level().String()
}

// settingChanged makes a local change of protection visible to the control
// plane: it is the first thing that an intruder with root does.
func (w *worker) settingChanged(name, from, to string) {
	w.record.Event(&event.Event{Action: event.SettingChanged, Config: &event.Config{Name: name, From: from, To: to, By: "local"}})
	w.health.changed()
}

// local implements the parts of the local API that read state and start work.
type local struct{ w *worker }

// Report implements localapi.Health.
func (l *local) Report(context.Context) health.Report { return l.w.health.report() }

// Threats implements localapi.Threats.
func (l *local) Threats(context.Context) ([]localapi.Threat, error) {
	var list []localapi.Threat
	for _, t := range l.w.protect.history.List() {
		list = append(list, threatOf(t))
	}
	return list, nil
}

// Threat implements localapi.Threats.
func (l *local) Threat(_ context.Context, id string) (localapi.Threat, error) {
	t, ok := l.w.protect.history.Get(finding.ID(id))
	if !ok {
		return localapi.Threat{}, fault.New(fault.NotFound, "there is no threat %s; see komainu threat list", id)
	}
	return threatOf(t), nil
}

func threatOf(t quarantine.Threat) localapi.Threat {
	return localapi.Threat{
		ID: string(t.ID), Name: t.Name, Type: t.Type, DetectionTime: t.Time, Status: localapi.Status(t.State), Severity: t.Severity.String(), Path: t.Path,
		Inside: t.Inside, InitiatingUser: t.User, InitiatingProcess: t.Process, SHA256: t.SHA256, Reason: t.Reason,
	}
}

// QuarantineObjects implements localapi.Quarantine.
func (l *local) QuarantineObjects(context.Context) ([]localapi.QuarantineObject, error) {
	objects, err := l.w.protect.store.List()
	var list []localapi.QuarantineObject
	for _, o := range objects {
		list = append(list, objectOf(o))
	}
	return list, err
}

func objectOf(o quarantine.Object) localapi.QuarantineObject {
	return localapi.QuarantineObject{ID: string(o.ID), Threat: string(o.Threat), Path: o.Path, SHA256: o.SHA256, Size: o.Size, Owner: o.Owner, QuarantinedTime: o.Time}
}

// QuarantineThreat implements localapi.Quarantine.
func (l *local) QuarantineThreat(ctx context.Context, id string) (localapi.QuarantineObject, error) {
	t, ok := l.w.protect.history.Get(finding.ID(id))
	if !ok {
		return localapi.QuarantineObject{}, fault.New(fault.NotFound, "there is no threat %s; see komainu threat list", id)
	}
	if t.State == finding.Quarantined {
		return localapi.QuarantineObject{}, fault.New(fault.Conflict, "threat %s is in quarantine already", id)
	}
	f, err := openRegular(t.Path)
	if err != nil {
		return localapi.QuarantineObject{}, fault.Wrap(fault.NotFound, err, "the file of threat %s", id)
	}
	defer f.Close()
	v, err := l.w.scanner.Scan(ctx, f, scan.Options{})
	if err != nil {
		return localapi.QuarantineObject{}, err
	}
	if v = named(v); v.Outcome != finding.Malicious || t.SHA256 != "" && v.SHA256 != t.SHA256 {
		return localapi.QuarantineObject{}, fault.New(fault.Conflict, "%s has changed since it was found; scan it again", t.Path)
	}
	o, err := l.w.protect.store.Add(ctx, quarantine.Request{ID: t.ID, File: f, Path: t.Path, Threat: v.Threat, SHA256: v.SHA256, Time: time.Now().UTC()})
	if err != nil {
		return localapi.QuarantineObject{}, err
	}
	return objectOf(o), l.w.protect.history.SetState(t.ID, finding.Quarantined, "")
}

// RemoveQuarantined implements localapi.Quarantine.
func (l *local) RemoveQuarantined(_ context.Context, id string) error {
	if err := l.w.protect.store.Remove(finding.ID(id)); err != nil {
		return err
	}
	return l.state(finding.ID(id), finding.Removed)
}

// state notes what became of a threat; one that the history has forgotten by
// now is no error.
func (l *local) state(id finding.ID, s finding.State) error {
	err := l.w.protect.history.SetState(id, s, "")
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}

// RemoveAllQuarantined implements localapi.Quarantine.
func (l *local) RemoveAllQuarantined(context.Context) (int, error) {
	objects, err := l.w.protect.store.List()
	if err != nil {
		return 0, err
	}
	for i, o := range objects {
		if err := l.RemoveQuarantined(context.Background(), string(o.ID)); err != nil {
			return i, err
		}
	}
	return len(objects), nil
}

// RestoreQuarantined implements localapi.Quarantine.
func (l *local) RestoreQuarantined(ctx context.Context, req localapi.RestoreRequest) ([]localapi.Restored, error) {
	if err := mayDo(l.w.settings.Now(), "restore"); err != nil {
		return nil, err
	}
	ids := []finding.ID{finding.ID(req.ID)}
	if req.Path != "" {
		objects, err := l.w.protect.store.List()
		if err != nil {
			return nil, err
		}
		ids = nil
		for _, o := range objects {
			if o.Path == req.Path {
				ids = append(ids, o.ID)
			}
		}
		if ids == nil {
			return nil, fault.New(fault.NotFound, "nothing that was at %s is in quarantine", req.Path)
		}
	}
	var restored []localapi.Restored
	for _, id := range ids {
		path, err := l.w.protect.store.Restore(ctx, id, req.Destination)
		if err != nil {
			return restored, err
		}
		restored = append(restored, localapi.Restored{ID: string(id), Path: path})
		l.w.record.Event(&event.Event{Action: event.AntivirusRemediation, File: &event.File{Path: path}, Threat: &event.Threat{ID: string(id), Action: "restored"}})
		if err := l.state(id, finding.Restored); err != nil {
			return restored, err
		}
	}
	return restored, nil
}

// TestConnectivity implements localapi.Connectivity.
func (l *local) TestConnectivity(ctx context.Context, step func(localapi.ConnectivityStep) error) error {
	return link.Test(ctx, l.w.cfg.State, l.w.proxy(), time.Now, func(s link.Step) error {
		return step(localapi.ConnectivityStep{Name: s.Name, Target: s.Target, OK: s.OK, Skipped: s.Skipped, Detail: s.Detail, Duration: s.Took})
	})
}

// Enrol implements localapi.Enrolment.
func (l *local) Enrol(ctx context.Context, req localapi.EnrolRequest) (localapi.EnrolResult, error) {
	o := link.EnrolOptions{Dir: l.w.cfg.State, Token: req.Token, Force: req.Force, Facts: hostFacts(), Machine: thisMachine().String(), Proxy: l.w.proxy()}
	if req.Cloud != "" {
		o.Cloud = &link.CloudJoin{Cloud: req.Cloud, Server: req.Server, Pin: req.Pin, Document: instance.Default().Document}
	}
	id, err := link.Enrol(ctx, o)
	if err != nil {
		return localapi.EnrolResult{}, err
	}
	l.w.left()
	l.w.device.Store(&id)
	if err := l.w.settings.Enrolled(id.PolicyKey); err != nil {
		return localapi.EnrolResult{}, err
	}
	l.w.link.Enrolled()
	return localapi.EnrolResult{Device: string(id.Device), Organization: id.Organization, Environment: id.Environment, Server: id.Server}, nil
}

// UpdateDefinitions implements localapi.Definitions.
func (l *local) UpdateDefinitions(context.Context) (localapi.DefinitionsResult, error) {
	return localapi.DefinitionsResult{Version: scan.Embedded().Version(), Note: "the definitions of this version are embedded in the agent; a new version of the agent brings new ones"}, nil
}

// ScanCounters implements localapi.Diagnostics.
func (l *local) ScanCounters(context.Context) ([]localapi.ScanCounter, error) {
	if l.w.realtime == nil || !l.w.settings.Now().RealTimeOn() {
		return nil, fault.New(fault.Conflict, "real-time protection is off, so that nothing is scanned for programs; komainu health says why")
	}
	return l.w.protect.counts.list(), nil
}

// WriteDiagnostics implements localapi.Diagnostics: health, counters and
// settings, and a manifest of what is in it.
func (l *local) WriteDiagnostics(_ context.Context, out io.Writer) error {
	z := zip.NewWriter(out)
	files := []struct {
		name, what string
		content    any
	}{
		{"health.json", "the report of komainu health", l.w.health.report()},
		{"settings.json", "settings in effect and where they come from", l.w.settings.Now()},
		{"host.json", "what the control plane is told of this host", hostFacts()},
		{"scanner.json", "the scanner process and its sandbox", l.w.scanner.Status()},
		{"realtime.json", "counters of real-time protection", l.realTimeStats()},
		{"sensor.json", "the kernel sensor and its counters", l.sensorStatus()},
		{"spool.json", "records that wait for the control plane", l.w.record.events.Stats()},
	}
	var manifest strings.Builder
	manifest.WriteString("Written by komainu " + Version + " at " + time.Now().UTC().Format(time.RFC3339) + ".\nNo keys, tokens or contents of scanned files are in it.\n\n")
	for _, f := range files {
		manifest.WriteString(fmt.Sprintf("%-16s %s\n", f.name, f.what))
		w, err := z.Create(f.name)
		if err != nil {
			return err
		}
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		if err := enc.Encode(f.content); err != nil {
			return err
		}
	}
	w, err := z.Create("MANIFEST.txt")
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, manifest.String()); err != nil {
		return err
	}
	return z.Close()
}

func (l *local) realTimeStats() realtime.Stats {
	if l.w.realtime == nil {
		return realtime.Stats{}
	}
	return l.w.realtime.Stats()
}

func (l *local) sensorStatus() any {
	if s := l.w.sensor.Load(); s != nil {
		return s.Status()
	}
	return "off"
}
