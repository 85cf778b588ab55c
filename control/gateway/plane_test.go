package gateway_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/uptrace/bun"

	"komainu/agent/link"
	"komainu/control/db"
	"komainu/control/enrol"
	"komainu/control/gateway"
	"komainu/deploy"
	"komainu/event"
	"komainu/fault"
	"komainu/policy"
	"komainu/wire"
)

// clock is a clock that tests set.
type clock struct{ off atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.off.Load())) }

func (c *clock) move(d time.Duration) { c.off.Add(int64(d)) }

// plane is the control plane as far as agents see it: real TLS, real CA, real
// gateway, and a queue in memory.
type plane struct {
	t       testing.TB
	clock   clock
	ids     *enrol.Authority
	gateway *gateway.Gateway
	address string
	server  *http.Server
	running sync.WaitGroup

	protocol int
	silence  time.Duration
	resumed  atomic.Int64 // TLS sessions

	mu         sync.Mutex
	devices    []event.DeviceID
	register   error // what Register answers
	frames     []published
	publishing chan struct{}      // told of every publish, when set
	publish    func([]byte) error // nil takes all
	beats      int
	hellos     []*wire.Hello
	results    []*wire.PolicyResult
	gone       int
	version    uint64 // of the policy
	root       []byte // of the repository
	upgrades   []deploy.UpgradeStatus
}

type published struct {
	device event.DeviceID
	name   string
	batch  *wire.Batch
}

func log(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func state(t testing.TB) *bun.DB {
	t.Helper()
	b, err := db.OpenMemory()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	if err := db.Migrate(t.Context(), b, enrol.Migrations); err != nil {
		t.Fatal(err)
	}
	return b
}

func newPlane(t testing.TB) *plane {
	t.Helper()
	return newPlaneWith(t, 2*time.Second)
}

func newPlaneWith(t testing.TB, silence time.Duration) *plane {
	t.Helper()
	p := &plane{t: t, protocol: wire.Protocol, silence: silence, address: "127.0.0.1:0", version: 1}
	ids, err := enrol.Open(enrol.Config{DB: state(t), Dir: t.TempDir(), Log: log(t), Now: p.clock.now, Root: func() ([]byte, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.root, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	p.ids = ids
	p.start()
	t.Cleanup(p.stop)
	return p
}

// hidden is a TLS connection that net/http takes for a plain one: it would end
// one with a protocol that it does not know.
type hidden struct {
	net.Conn
	state *tls.ConnectionState
}

type stateKey struct{}

// agentListener shakes hands and lets agents in.
type agentListener struct {
	net.Listener
	p      *plane
	config *tls.Config
}

func (l agentListener) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := tls.Server(raw, l.config)
		if c.Handshake() != nil || c.ConnectionState().NegotiatedProtocol != enrol.ALPN {
			c.Close()
			continue
		}
		s := c.ConnectionState()
		if s.DidResume {
			l.p.resumed.Add(1)
		}
		return hidden{c, &s}, nil
	}
}

// start serves at the address of before, if there was one.
func (p *plane) start() {
	p.t.Helper()
	l, err := net.Listen("tcp", p.address)
	if err != nil {
		p.t.Fatal(err)
	}
	p.address = l.Addr().String()
	p.gateway = gateway.New(gateway.Config{
		Identify: func(r *http.Request) (event.DeviceID, error) { return p.ids.Identify(r.Context(), r.TLS) },
		Publish:  p.take,
		Hello: func(_ context.Context, _ event.DeviceID, h *wire.Hello) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.hellos = append(p.hellos, h)
			return nil
		},
		Heartbeat: func(_ context.Context, _ event.DeviceID, h *wire.Heartbeat) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.beats++
			return nil
		},
		PolicyResult: func(_ context.Context, _ event.DeviceID, r *wire.PolicyResult) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.results = append(p.results, r)
			return nil
		},
		Policy: func(_ context.Context, d event.DeviceID, _ int) (policy.Signed, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			return policy.Sign(&policy.Document{Format: policy.Format, Device: string(d), Version: p.version, Plan: policy.Off}, p.ids.PolicyKey())
		},
		Upgrade: func(_ context.Context, _ event.DeviceID, s deploy.UpgradeStatus) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.upgrades = append(p.upgrades, s)
			return nil
		},
		Gone: func(event.DeviceID) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.gone++
		},
		Log: log(p.t), Silence: p.silence,
	})
	mux := http.NewServeMux()
	mux.Handle("GET /agent/v1/link", p.gateway)
	mux.Handle("/agent/", p.ids.Handler(p, p.protocol))
	p.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			r.TLS = r.Context().Value(stateKey{}).(*tls.ConnectionState)
			mux.ServeHTTP(w, r)
		}),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, stateKey{}, c.(hidden).state)
		},
		ErrorLog: slog.NewLogLogger(log(p.t).Handler(), slog.LevelDebug),
	}
	p.running.Go(func() { _ = p.server.Serve(agentListener{l, p, p.ids.TLSConfig()}) })
}

func (p *plane) stop() {
	p.server.Close()
	if err := p.gateway.Close(); err != nil {
		p.t.Error(err)
	}
	p.running.Wait()
}

// Register implements enrol.Registrar.
func (p *plane) Register(_ context.Context, to enrol.Admission, facts json.RawMessage) (enrol.Registration, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.register != nil {
		return enrol.Registration{}, p.register
	}
	d := event.DeviceID(fmt.Sprintf("device-%d", len(p.devices)+1))
	p.devices = append(p.devices, d)
	return enrol.Registration{Device: d, Organization: "org", Environment: to.Environment}, nil
}

// Leave implements enrol.Registrar.
func (p *plane) Leave(context.Context, event.DeviceID, string) error { return nil }

// Recognize implements enrol.Registrar.
func (p *plane) Recognize(context.Context, enrol.Evidence) (enrol.Admission, error) {
	return enrol.Admission{}, fault.New(fault.Unauthentic, "no cloud is known here")
}

func (p *plane) take(_ context.Context, d event.DeviceID, name string, frame []byte) error {
	p.mu.Lock()
	publish, told := p.publish, p.publishing
	p.mu.Unlock()
	if told != nil {
		told <- struct{}{}
	}
	if publish != nil {
		if err := publish(frame); err != nil {
			return err
		}
	}
	m, err := wire.Decode(frame)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frames = append(p.frames, published{d, name, m.(*wire.Batch)})
	return nil
}

// records returns what was published, in order, duplicates included.
func (p *plane) records() (all []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.frames {
		for _, r := range f.batch.Records {
			all = append(all, string(r))
		}
	}
	return all
}

func (p *plane) locked(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// token makes a join token for any number of hosts, or as edit says.
func (p *plane) token(edit func(*enrol.TokenRequest)) (enrol.Token, string) {
	p.t.Helper()
	r := enrol.TokenRequest{Environment: "prod", Label: "servers", Lasts: time.Hour, MaxUses: 100, CreatedBy: "test", Server: "https://" + p.address}
	if edit != nil {
		edit(&r)
	}
	t, text, err := p.ids.CreateToken(p.t.Context(), r)
	if err != nil {
		p.t.Fatal(err)
	}
	return t, text
}

// uses returns how often a token was used.
func (p *plane) uses(id string) int {
	p.t.Helper()
	list, err := p.ids.Tokens(p.t.Context(), "prod")
	if err != nil {
		p.t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(t enrol.Token) bool { return t.ID == id })
	if i < 0 {
		p.t.Fatalf("no token %s", id)
	}
	return list[i].Uses
}

// agent is an enrolled host.
type agent struct {
	p     *plane
	dir   string
	clock clock
	id    link.Identity
	link  *link.Link

	mu       sync.Mutex
	policies []uint64
	refuse   error // policies
	sources  []link.Source
	upgrade  deploy.Upgrade       // that was asked for
	upgraded deploy.UpgradeStatus // how far it is

	proxy atomic.Pointer[link.Proxy]
}

var facts = wire.Facts{Hostname: "web-1", OS: "linux", AgentVersion: "1.0"}

func (p *plane) enrol() *agent {
	p.t.Helper()
	_, token := p.token(nil)
	a := &agent{p: p, dir: p.t.TempDir()}
	id, err := link.Enrol(p.t.Context(), link.EnrolOptions{Dir: a.dir, Token: token, Facts: facts})
	if err != nil {
		p.t.Fatal(err)
	}
	a.id = id
	return a
}

// run runs a link until the test ends, or stop is called.
func (a *agent) run() (stop func()) {
	t := a.p.t
	key := a.id.PolicyKey
	l := link.New(link.Config{
		Dir: a.dir, Facts: func() wire.Facts { return facts }, Epoch: 7, Sources: a.sources, PolicyVersion: func() uint64 { return 0 },
		ApplyPolicy: func(s policy.Signed) (uint64, error) {
			doc, err := policy.Open(s, key)
			if err != nil {
				return 0, err
			}
			a.mu.Lock()
			defer a.mu.Unlock()
			if a.refuse == nil {
				a.policies = append(a.policies, doc.Version)
			}
			return doc.Version, a.refuse
		},
		Health: func() []byte { return []byte("{}") }, Counts: func() (uint64, uint64) { return 1, 2 },
		Upgrade: func(u deploy.Upgrade) error {
			a.mu.Lock()
			defer a.mu.Unlock()
			if u.Version == "" {
				return errors.New("no version")
			}
			a.upgrade = u
			return nil
		},
		UpgradeStatus: func() (deploy.UpgradeStatus, bool) {
			a.mu.Lock()
			defer a.mu.Unlock()
			return a.upgraded, a.upgraded.ID != ""
		},
		Log: log(t), Now: a.clock.now, Silence: a.p.silence,
		Proxy: func() link.Proxy {
			if p := a.proxy.Load(); p != nil {
				return *p
			}
			return link.Proxy{}
		},
	})
	a.link = l
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() {
		if err := l.Run(ctx); err != nil {
			t.Errorf("link: %v", err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(stop)
	return stop
}

func (a *agent) connected() string {
	if s := a.link.State(); !s.Connected {
		return fmt.Sprintf("not connected: %v", s.Error)
	}
	return ""
}

// refused waits until the link fails with an error of a kind and returns it.
func (a *agent) refused(kind fault.Kind) error {
	a.p.t.Helper()
	var err error
	eventually(a.p.t, func() string {
		s := a.link.State()
		if err = s.Error; s.Connected || !fault.Is(err, kind) {
			return fmt.Sprintf("connected %v, error %v, want kind %v", s.Connected, err, kind)
		}
		return ""
	})
	return err
}

// eventually waits until f has nothing to complain about.
func eventually(t testing.TB, f func() string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for problem := f(); problem != ""; problem = f() {
		select {
		case <-deadline:
			t.Fatal(problem)
		case <-tick.C:
		}
	}
}

var errDown = errors.New("the queue is down")
