package localapi

import (
	"errors"
	"net/http"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"komainu/drill"
	"komainu/fault"
	"komainu/policy"
)

// The bodies of requests that carry a single thing.
type (
	valueBody struct {
		Value string `json:"value"`
	}
	nameBody struct {
		Name string `json:"name"`
	}
	idBody struct {
		ID string `json:"id"`
	}
	countBody struct {
		Count int `json:"count"`
	}
)

// routes is the whole API: path, who may, what happens.
func (s *Server) routes() []route {
	return []route{
		{"GET /v1/version", everybody, func(c *call) error { return c.answer(s.version(), nil) }},
		{"GET /v1/health", everybody, s.getHealth},
		{"PUT /v1/settings/{name}", admins, s.putSetting},
		{"PUT /v1/log-level", admins, s.putLogLevel},
		{"PUT /v1/tags", admins, s.putTag},
		{"DELETE /v1/tags", admins, s.deleteTag},
		{"GET /v1/threat-types", everybody, s.listThreatTypes},
		{"GET /v1/threats", everybody, s.listThreats},
		{"GET /v1/threats/{id}", admins, s.getThreat},
		{"GET /v1/allowed-threats", admins, s.listAllowed},
		{"POST /v1/allowed-threats", admins, s.addAllowed},
		{"DELETE /v1/allowed-threats", admins, s.deleteAllowed},
		{"GET /v1/quarantine", admins, s.listQuarantine},
		{"POST /v1/quarantine", admins, s.addQuarantine},
		{"POST /v1/quarantine/restore", admins, s.restore},
		{"DELETE /v1/quarantine/{id}", admins, s.deleteQuarantine},
		{"DELETE /v1/quarantine", admins, s.emptyQuarantine},
		{"GET /v1/scans", admins, s.listScans},
		{"POST /v1/scans", admins, s.startScan},
		{"POST /v1/scans/cancel", admins, s.cancelScan},
		{"GET /v1/scans/{id}/progress", admins, s.watchScan},
		{"GET /v1/exclusions", admins, s.listExclusions},
		{"POST /v1/exclusions", admins, s.addExclusion},
		{"POST /v1/exclusions/remove", admins, s.removeExclusion},
		{"GET /v1/connectivity", everybody, s.testConnectivity},
		{"POST /v1/enrolment", admins, s.enrol},
		{"POST /v1/enrolment/offboard", admins, s.offboard},
		{"POST /v1/enrolment/proof", admins, s.prove},
		{"POST /v1/definitions/update", admins, s.updateDefinitions},
		{"GET /v1/diagnostics", admins, s.diagnostics},
		{"GET /v1/diagnostics/real-time-protection", admins, s.scanCounters},
		{"GET /v1/tests", everybody, func(c *call) error { return c.answer(list(drill.Scenarios()), nil) }},
		{"POST /v1/tests", admins, s.runTest},
		{"GET /v1/upgrade", admins, s.getUpgrade},
		{"POST /v1/upgrade/check", admins, s.checkUpgrade},
		{"POST /v1/upgrade", admins, s.applyUpgrade},
	}
}

// absent is the answer for a part of the backend that is nil.
func absent(what string) error {
	return fault.New(fault.Unsupported, "%s: this agent does not have it on this platform or in this version", what)
}

func (s *Server) getHealth(c *call) error {
	if s.cfg.Backend.Health == nil {
		return absent("health")
	}
	r := s.cfg.Backend.Health.Report(c.r.Context())
	// Lists are lists for who reads JSON, also when they are empty.
	r.Issues, r.Conflicting, r.Managed = orEmpty(r.Issues), orEmpty(r.Conflicting), orEmpty(r.Managed)
	r.EDRDeviceTags, r.Conditions = orEmpty(r.EDRDeviceTags), orEmpty(r.Conditions)
	if !c.admin {
		// What is set here is nobody's business, exclusions least of all.
		for i := range r.Settings {
			r.Settings[i].Local = nil
		}
	}
	return c.answer(r, nil)
}

func orEmpty[T any](all []T) []T {
	if all == nil {
		return []T{}
	}
	return all
}

func (s *Server) putSetting(c *call) error {
	name := Setting(c.r.PathValue("name"))
	body, err := decode[valueBody](c)
	if err != nil {
		return err
	}
	if err := name.Check(body.Value); err != nil {
		return err
	}
	if s.cfg.Backend.Settings == nil {
		return absent("settings")
	}
	return c.done(s.cfg.Backend.Settings.ApplySetting(c.r.Context(), name, body.Value))
}

func (s *Server) putLogLevel(c *call) error {
	body, err := decode[valueBody](c)
	if err != nil {
		return err
	}
	if !slices.Contains(LogLevels, body.Value) {
		return fault.New(fault.Invalid, "the log level is one of %s, not %q", strings.Join(LogLevels, ", "), body.Value)
	}
	if s.cfg.Backend.Settings == nil {
		return absent("settings")
	}
	return c.done(s.cfg.Backend.Settings.SetLogLevel(c.r.Context(), body.Value))
}

func (s *Server) listThreatTypes(c *call) error {
	if s.cfg.Backend.Settings == nil {
		return absent("settings")
	}
	return answerList[ThreatType](c)(s.cfg.Backend.Settings.ThreatTypes(c.r.Context()))
}

func (s *Server) putTag(c *call) error {
	tag, err := decode[policy.Tag](c)
	if err != nil {
		return err
	}
	if err := errors.Join(printable("name of a tag", tag.Key, 64), printable("value of a tag", tag.Value, 200)); err != nil {
		return err
	}
	if s.cfg.Backend.Settings == nil {
		return absent("settings")
	}
	return c.done(s.cfg.Backend.Settings.SetTag(c.r.Context(), tag))
}

func (s *Server) deleteTag(c *call) error {
	body, err := decode[nameBody](c)
	if err != nil {
		return err
	}
	if s.cfg.Backend.Settings == nil {
		return absent("settings")
	}
	return c.done(s.cfg.Backend.Settings.RemoveTag(c.r.Context(), body.Name))
}

func (s *Server) listThreats(c *call) error {
	if s.cfg.Backend.Threats == nil {
		return absent("threats")
	}
	all, err := s.cfg.Backend.Threats.Threats(c.r.Context())
	body := list(all)
	if !c.admin {
		body.Restricted = true
		body.Items = make([]Threat, len(all))
		for i, t := range all {
			body.Items[i] = Threat{ID: t.ID, Name: t.Name, Type: t.Type, DetectionTime: t.DetectionTime, Status: t.Status, Severity: t.Severity}
		}
	}
	return c.answer(body, err)
}

func (s *Server) getThreat(c *call) error {
	if s.cfg.Backend.Threats == nil {
		return absent("threats")
	}
	return answer(c)(s.cfg.Backend.Threats.Threat(c.r.Context(), c.r.PathValue("id")))
}

func (s *Server) listAllowed(c *call) error {
	if s.cfg.Backend.Allowed == nil {
		return absent("allowed threats")
	}
	return answerList[AllowedThreat](c)(s.cfg.Backend.Allowed.AllowedThreats(c.r.Context()))
}

func (s *Server) addAllowed(c *call) error {
	body, err := decode[nameBody](c)
	if err != nil {
		return err
	}
	if err := printable("name of a threat", body.Name, 256); err != nil {
		return err
	}
	if s.cfg.Backend.Allowed == nil {
		return absent("allowed threats")
	}
	return c.done(s.cfg.Backend.Allowed.AllowThreat(c.r.Context(), body.Name))
}

func (s *Server) deleteAllowed(c *call) error {
	body, err := decode[nameBody](c)
	if err != nil {
		return err
	}
	if s.cfg.Backend.Allowed == nil {
		return absent("allowed threats")
	}
	return c.done(s.cfg.Backend.Allowed.DisallowThreat(c.r.Context(), body.Name))
}

func (s *Server) listQuarantine(c *call) error {
	if s.cfg.Backend.Quarantine == nil {
		return absent("quarantine")
	}
	return answerList[QuarantineObject](c)(s.cfg.Backend.Quarantine.QuarantineObjects(c.r.Context()))
}

func (s *Server) addQuarantine(c *call) error {
	body, err := decode[idBody](c)
	if err != nil {
		return err
	}
	if s.cfg.Backend.Quarantine == nil {
		return absent("quarantine")
	}
	return answer(c)(s.cfg.Backend.Quarantine.QuarantineThreat(c.r.Context(), body.ID))
}

func (s *Server) restore(c *call) error {
	req, err := decode[RestoreRequest](c)
	if err != nil {
		return err
	}
	if (req.ID == "") == (req.Path == "") {
		return fault.New(fault.Invalid, "restore by the id or by the path, one of both")
	}
	for _, p := range []string{req.Path, req.Destination} {
		if p != "" && !path.IsAbs(p) {
			return fault.New(fault.Invalid, "%q is not an absolute path", p)
		}
	}
	if s.cfg.Backend.Quarantine == nil {
		return absent("quarantine")
	}
	return answerList[Restored](c)(s.cfg.Backend.Quarantine.RestoreQuarantined(c.r.Context(), req))
}

func (s *Server) deleteQuarantine(c *call) error {
	if s.cfg.Backend.Quarantine == nil {
		return absent("quarantine")
	}
	return c.done(s.cfg.Backend.Quarantine.RemoveQuarantined(c.r.Context(), c.r.PathValue("id")))
}

func (s *Server) emptyQuarantine(c *call) error {
	if s.cfg.Backend.Quarantine == nil {
		return absent("quarantine")
	}
	n, err := s.cfg.Backend.Quarantine.RemoveAllQuarantined(c.r.Context())
	return c.answer(countBody{n}, err)
}

func (s *Server) listScans(c *call) error {
	if s.cfg.Backend.Scans == nil {
		return absent("scans")
	}
	return answerList[ScanJob](c)(s.cfg.Backend.Scans.ScanJobs(c.r.Context()))
}

func (s *Server) startScan(c *call) error {
	req, err := decode[ScanRequest](c)
	if err != nil {
		return err
	}
	switch {
	case req.Type == ScanCustom && !path.IsAbs(req.Path):
		return fault.New(fault.Invalid, "a custom scan needs an absolute path, not %q", req.Path)
	case req.Type != ScanCustom && req.Path != "":
		return fault.New(fault.Invalid, "only a custom scan takes a path")
	case req.Type != ScanQuick && req.Type != ScanFull && req.Type != ScanCustom:
		return fault.New(fault.Invalid, "a scan is quick, full or custom, not %q", string(req.Type))
	case s.cfg.Backend.Scans == nil:
		return absent("scans")
	}
	return answer(c)(s.cfg.Backend.Scans.StartScan(c.r.Context(), req))
}

func (s *Server) cancelScan(c *call) error {
	body, err := decode[idBody](c)
	if err != nil {
		return err
	}
	if s.cfg.Backend.Scans == nil {
		return absent("scans")
	}
	return answer(c)(s.cfg.Backend.Scans.CancelScan(c.r.Context(), body.ID))
}

func (s *Server) watchScan(c *call) error {
	if s.cfg.Backend.Scans == nil {
		return absent("scans")
	}
	return stream(s, c, func(yield func(ScanJob) error) error {
		return s.cfg.Backend.Scans.WatchScan(c.r.Context(), c.r.PathValue("id"), yield)
	})
}

func (s *Server) listExclusions(c *call) error {
	if s.cfg.Backend.Exclusions == nil {
		return absent("exclusions")
	}
	return answerList[Exclusion](c)(s.cfg.Backend.Exclusions.Exclusions(c.r.Context()))
}

func (s *Server) addExclusion(c *call) error {
	x, err := decode[policy.Exclusion](c)
	if err != nil {
		return err
	}
	x = normal(x)
	if err := x.Validate(); err != nil {
		return fault.New(fault.Invalid, "%w", err)
	}
	if s.cfg.Backend.Exclusions == nil {
		return absent("exclusions")
	}
	return c.done(s.cfg.Backend.Exclusions.AddExclusion(c.r.Context(), x))
}

func (s *Server) removeExclusion(c *call) error {
	x, err := decode[policy.Exclusion](c)
	if err != nil {
		return err
	}
	if s.cfg.Backend.Exclusions == nil {
		return absent("exclusions")
	}
	return c.done(s.cfg.Backend.Exclusions.RemoveExclusion(c.r.Context(), normal(x)))
}

// normal returns the exclusion as it is compared: one spelling of a path.
func normal(x policy.Exclusion) policy.Exclusion {
	if x.Type != policy.ExcludeExtension && path.IsAbs(x.Value) {
		x.Value = path.Clean(x.Value)
	}
	return x
}

func (s *Server) testConnectivity(c *call) error {
	if s.cfg.Backend.Connectivity == nil {
		return absent("connectivity test")
	}
	if !s.testing.TryLock() {
		return fault.New(fault.Conflict, "a connectivity test is running already; wait for it to end")
	}
	defer s.testing.Unlock()
	return stream(s, c, func(yield func(ConnectivityStep) error) error {
		return s.cfg.Backend.Connectivity.TestConnectivity(c.r.Context(), yield)
	})
}

func (s *Server) enrol(c *call) error {
	req, err := decode[EnrolRequest](c)
	if err != nil {
		return err
	}
	if req.Token == "" && req.Cloud == "" {
		return fault.New(fault.Invalid, "the join token is missing")
	}
	if s.cfg.Backend.Enrolment == nil {
		return absent("enrolment")
	}
	return answer(c)(s.cfg.Backend.Enrolment.Enrol(c.r.Context(), req))
}

func (s *Server) offboard(c *call) error {
	req, err := decode[OffboardRequest](c)
	if err != nil {
		return err
	}
	if s.cfg.Backend.Enrolment == nil {
		return absent("enrolment")
	}
	return answer(c)(s.cfg.Backend.Enrolment.Offboard(c.r.Context(), req))
}

func (s *Server) prove(c *call) error {
	req, err := decode[ProofRequest](c)
	if err != nil {
		return err
	}
	if s.cfg.Backend.Enrolment == nil {
		return absent("enrolment")
	}
	return answer(c)(s.cfg.Backend.Enrolment.Prove(c.r.Context(), req))
}

func (s *Server) updateDefinitions(c *call) error {
	if s.cfg.Backend.Definitions == nil {
		return absent("update of definitions")
	}
	return answer(c)(s.cfg.Backend.Definitions.UpdateDefinitions(c.r.Context()))
}

func (s *Server) scanCounters(c *call) error {
	if s.cfg.Backend.Diagnostics == nil {
		return absent("diagnostics")
	}
	return answerList[ScanCounter](c)(s.cfg.Backend.Diagnostics.ScanCounters(c.r.Context()))
}

// diagnostics sends the archive as it is made. Once bytes are on their way
// the only honest end of a failure is to break the connection.
func (s *Server) diagnostics(c *call) error {
	if s.cfg.Backend.Diagnostics == nil {
		return absent("diagnostics")
	}
	out := &download{c: c}
	err := s.cfg.Backend.Diagnostics.WriteDiagnostics(c.r.Context(), out)
	if err != nil && out.started {
		s.cfg.Log.Error("diagnostics broke off", "error", err)
		panic(http.ErrAbortHandler)
	}
	return err
}

// download is a body whose writer has time for every piece, not for all.
type download struct {
	c       *call
	started bool
}

func (d *download) Write(p []byte) (int, error) {
	if !d.started {
		d.started = true
		d.c.w.Header().Set("Content-Type", "application/zip")
	}
	d.c.extend()
	return d.c.w.Write(p)
}

// answer and answerList take the two results of a backend's method.
func answer(c *call) func(any, error) error { return c.answer }

func answerList[T any](c *call) func([]T, error) error {
	return func(all []T, err error) error { return c.answer(list(all), err) }
}

// printable refuses what would spoil a line of output or a log.
func printable(what, s string, limit int) error {
	if s == "" || len(s) > limit || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return fault.New(fault.Invalid, "the %s is 1 to %d bytes of printable text", what, limit)
	}
	return nil
}
