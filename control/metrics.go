package control

import (
	"context"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"komainu/control/access"
	"komainu/control/incident"
	"komainu/control/queue"
	"komainu/finding"
)

// meter answers what monitoring asks. Figures are read where they are kept
// when they are asked for; only answers to requests are counted here. Labels
// are of small sets: no device, user or path is in them.
//
// Figures of devices, alerts and incidents are those of the organization that
// the asking token belongs to, the others those of the whole installation.
type meter struct {
	a     *api
	queue interface {
		Status(context.Context) (queue.Status, error)
	}
	store interface {
		Count(context.Context) (int64, error)
		Size() (int64, error)
	}
	retained *retention
	state    string // folder
	version  string

	process  *prometheus.Registry
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
}

func newMeter(a *api, e *events, state, version string) *meter {
	m := &meter{
		a: a, queue: e.queue, store: e.store, retained: &e.retention, state: state, version: version, process: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "komainu_http_requests_total", Help: "Answered requests of people and programs, by route and status."}, []string{"route", "status"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "komainu_http_request_duration_seconds", Help: "How long answers took, by route; the live stream lasts as long as its page.", Buckets: []float64{.001, .005, .02, .1, .5, 2, 10},
		}, []string{"route"}),
	}
	m.process.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m.requests, m.took)
	return m
}

// answered counts an answer.
func (m *meter) answered(pattern string, status int, took time.Duration) {
	if pattern == "" {
		pattern = "none"
	}
	m.requests.WithLabelValues(pattern, strconv.Itoa(status)).Inc()
	m.took.WithLabelValues(pattern).Observe(took.Seconds())
}

// metrics answers GET /metrics.
func (a *api) metrics(w http.ResponseWriter, r *http.Request) {
	own := prometheus.NewRegistry()
	own.MustRegister(&reading{a.meter, r.Context()})
	promhttp.HandlerFor(prometheus.Gatherers{a.meter.process, own}, promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP(w, r)
}

// reading is what one request reads.
type reading struct {
	*meter
	ctx context.Context
}

// figure is a time series, or several with labels.
type figure struct {
	*prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, labels ...string) figure {
	return figure{prometheus.NewDesc("komainu_"+name, help, labels, nil), prometheus.GaugeValue}
}

func counter(name, help string, labels ...string) figure {
	return figure{prometheus.NewDesc("komainu_"+name, help, labels, nil), prometheus.CounterValue}
}

var (
	figBuild    = gauge("build_info", "1; the label says which version runs.", "version")
	figReady    = gauge("ready", "1 when a part works, 0 when not. The parts are those of /readyz.", "part")
	figReadable = gauge("reading_ok", "1 when the figures of a part could be read, 0 when not; they are then missing.", "part")

	figSessions  = gauge("agent_sessions", "Agents that are connected now.")
	figOpened    = counter("agent_sessions_opened_total", "Sessions of agents that began.")
	figRefused   = counter("agent_sessions_refused_total", "Requests of agents that were not let in.")
	figReplaced  = counter("agent_sessions_replaced_total", "Sessions that another one of the same device has ended.")
	figMalformed = counter("agent_frames_malformed_total", "Frames that ended a session.")
	figUnknown   = counter("agent_frames_unknown_total", "Frames of newer agents that were passed over.")
	figBatches   = counter("agent_batches_total", "Batches of agents, by what became of them: acknowledged, or failed and sent again.", "result")
	figPanics    = counter("agent_frame_panics_total", "Frames that made the gateway panic. Report them.")

	figWaiting      = gauge("queue_messages", "Batches that wait for a consumer.", "consumer")
	figQueueBytes   = gauge("queue_bytes", "Bytes that waiting batches take on disk.")
	figQueueLimit   = gauge("queue_limit_bytes", "Bytes that waiting batches may take.")
	figQueueRefused = counter("queue_refused_total", "Batches that were refused because of a full queue or disk; agents keep them.")
	figDead         = gauge("queue_dead_letters", "Batches that were put aside because nobody could use them.")

	figEvents     = gauge("events", "Events in the store.")
	figEventBytes = gauge("event_store_bytes", "Bytes that the event store takes on disk.")
	figDeleted    = counter("retention_deleted_events_total", "Events that were deleted because of their age.")
	figRetained   = gauge("retention_last_success_timestamp_seconds", "When retention last ended well, 0 for never.")
	figDiskFree   = gauge("disk_free_bytes", "Bytes that are free on the disk of the state folder.")

	figDevices   = gauge("devices", "Devices that are not offboarded, by how they are protected.", "coverage")
	figOffboard  = gauge("devices_offboarded", "Devices that are offboarded.")
	figIncidents = gauge("open_incidents", "Incidents that are not resolved.", "severity")
	figAlerts    = gauge("open_alerts", "Alerts that are not resolved.", "severity")

	figOutbox = gauge("notification_messages", "Messages to people, by state: pending or given_up.", "state")
	figCA     = gauge("ca_not_after_timestamp_seconds", "When the CA expires.")
	figMoving = gauge("ca_rotation_waiting_devices", "Devices that still depend on the CA that is being replaced.")
)

// Describe implements prometheus.Collector. What there is depends on what can
// be read.
func (r *reading) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (r *reading) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(r.ctx, 5*time.Second)
	defer cancel()
	put := func(f figure, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(f.Desc, f.kind, v, labels...)
	}
	could := func(part string, err error) bool {
		put(figReadable, truth(err == nil), part)
		return err == nil
	}
	put(figBuild, 1, r.version)
	for _, p := range r.a.parts(ctx) {
		put(figReady, truth(p.OK), p.Name)
	}
	r.flow(ctx, put, could)
	r.stores(ctx, put, could)
	r.protection(ctx, put, could)
}

func truth(ok bool) float64 {
	if ok {
		return 1
	}
	return 0
}

type (
	putter func(f figure, v float64, labels ...string)
	reader func(part string, err error) bool
)

// flow tells of agents and the queue.
func (r *reading) flow(ctx context.Context, put putter, could reader) {
	s := r.a.agents.Stats()
	put(figSessions, float64(s.Sessions))
	put(figOpened, float64(s.Opened))
	put(figRefused, float64(s.Refused))
	put(figReplaced, float64(s.Replaced))
	put(figMalformed, float64(s.Malformed))
	put(figUnknown, float64(s.Unknown))
	put(figBatches, float64(s.Batches), "acknowledged")
	put(figBatches, float64(s.Failed), "failed")
	put(figPanics, float64(s.Panics))
	if q, err := r.queue.Status(ctx); could("queue", err) {
		for name, n := range q.Consumers {
			put(figWaiting, float64(n), name)
		}
		put(figQueueBytes, float64(q.Bytes))
		put(figQueueLimit, float64(q.MaxBytes))
		put(figQueueRefused, float64(q.Refused))
		put(figDead, float64(q.Dead))
	}
}

// stores tells of what is kept.
func (r *reading) stores(ctx context.Context, put putter, could reader) {
	if n, err := r.store.Count(ctx); could("events", err) {
		put(figEvents, float64(n))
	}
	if n, err := r.store.Size(); could("event store", err) {
		put(figEventBytes, float64(n))
	}
	put(figDeleted, float64(r.retained.deleted.Load()))
	put(figRetained, float64(r.retained.last.Load()))
	var disk syscall.Statfs_t
	if could("disk", syscall.Statfs(r.state, &disk)) {
		put(figDiskFree, float64(disk.Bavail)*float64(disk.Bsize))
	}
	if c, err := r.a.ids.Rotation(ctx); could("ca", err) {
		put(figCA, float64(c.NotAfter.Unix()))
		put(figMoving, float64(c.Waiting))
	}
	if pending, dead, err := r.a.notices.Outbox(ctx); could("notifications", err) {
		put(figOutbox, float64(pending), "pending")
		put(figOutbox, float64(dead), "given_up")
	}
}

// protection tells of the organization of who asks.
func (r *reading) protection(ctx context.Context, put putter, could reader) {
	organization := access.ActorOf(ctx).Organization
	t := r.a.devices.Totals(organization, nil)
	for _, c := range t.Coverage {
		put(figDevices, float64(c.Count), string(c.State))
	}
	put(figOffboard, float64(t.Offboarded))
	severities := func(f figure, o incident.Open) {
		for s := finding.Informational; s <= finding.High; s++ {
			put(f, float64(o.BySeverity[s]), s.String())
		}
	}
	if o, err := r.a.desk.OpenIncidents(ctx, organization); could("incidents", err) {
		severities(figIncidents, o)
	}
	if o, err := r.a.desk.OpenAlerts(ctx, organization); could("alerts", err) {
		severities(figAlerts, o)
	}
}
