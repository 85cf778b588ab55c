package enrol

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/rest"
	"komainu/event"
	"komainu/fault"
)

// Registration is what a device learns of where it belongs.
type Registration struct {
	Device       event.DeviceID
	Organization string // id
	Environment  string // name
}

// Admission is what a host is let in for.
type Admission struct {
	Environment string
	Machine     string // that the token was made for or the evidence is about, or empty
	// Evidence says that a document of a cloud was shown in the place of a
	// token. It is not used up by being used: the registrar lets a machine in
	// once.
	Evidence bool
}

// Evidence is a document of a cloud by which a host says who it is.
type Evidence struct {
	Cloud     string `json:"cloud"`
	Document  string `json:"document"`
	Signature string `json:"signature,omitempty"`
	// Nonce is what was given out for the key that asks, and Pin the pin of the
	// CA: documents that can carry something carry them.
	Nonce string `json:"nonce"`
	Pin   string `json:"-"`
}

// Registrar creates devices.
type Registrar interface {
	// Register creates a device from what its agent tells of the host (a JSON
	// object). Errors: fault.Invalid for facts that cannot be used,
	// fault.NotFound when the environment is gone.
	Register(ctx context.Context, a Admission, facts json.RawMessage) (Registration, error)
	// Recognize checks evidence and finds the machine that it is about. Errors:
	// fault.Unauthentic for evidence that nobody vouches for,
	// fault.Unavailable for a machine that is not known yet.
	Recognize(ctx context.Context, e Evidence) (Admission, error)
	// Leave takes a device out because its own host asks for it: its
	// certificates end, and it is not brought back. What was done in part is
	// completed when it is asked again. Errors: fault.Denied where hosts may not
	// do that.
	Leave(ctx context.Context, id event.DeviceID, address string) error
}

// maxBody is more than a request and the facts of a host need.
const maxBody = 64 << 10

type enrolRequest struct {
	Secret   string          `json:"token"`
	Evidence *Evidence       `json:"evidence"` // in the place of the token
	CSR      string          `json:"csr"`
	Facts    json.RawMessage `json:"facts"`
}

// identity is the answer to enrolment and renewal.
type identity struct {
	Device       event.DeviceID `json:"device"`
	Organization string         `json:"organization,omitempty"`
	Environment  string         `json:"environment,omitempty"`
	Certificate  string         `json:"certificate"`         // PEM
	CA           string         `json:"ca,omitempty"`        // PEM
	PolicyKey    string         `json:"policyKey,omitempty"` // base64 of an Ed25519 key
	ContentRoot  []byte         `json:"contentRoot,omitempty"`
	NotAfter     time.Time      `json:"notAfter"`
}

// Handler serves POST /agent/v1/enrol, POST /agent/v1/challenge, POST
// /agent/v1/renew, POST /agent/v1/offboard and GET /agent/v1/ping. protocol is what ping tells.
func (a *Authority) Handler(reg Registrar, protocol int) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /agent/v1/enrol", func(w http.ResponseWriter, r *http.Request) {
		a.answer(w, r, func(ctx context.Context) (any, error) { return a.enrol(ctx, r, reg) })
	})
	mux.HandleFunc("POST /agent/v1/challenge", func(w http.ResponseWriter, r *http.Request) {
		a.answer(w, r, func(context.Context) (any, error) { return a.challenge(r) })
	})
	mux.HandleFunc("POST /agent/v1/renew", func(w http.ResponseWriter, r *http.Request) {
		a.answer(w, r, func(ctx context.Context) (any, error) { return a.renew(ctx, r) })
	})
	mux.HandleFunc("POST /agent/v1/offboard", func(w http.ResponseWriter, r *http.Request) {
		a.answer(w, r, func(ctx context.Context) (any, error) { return a.offboard(ctx, r, reg) })
	})
	mux.HandleFunc("GET /agent/v1/ping", func(w http.ResponseWriter, r *http.Request) {
		a.answer(w, r, func(context.Context) (any, error) {
			return map[string]any{"time": a.cfg.Now().UTC(), "protocol": protocol}, nil
		})
	})
	return mux
}

func (a *Authority) answer(w http.ResponseWriter, r *http.Request, f func(context.Context) (any, error)) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	body, err := f(r.Context())
	if err != nil {
		a.cfg.Log.Info("an agent was refused", "path", r.URL.Path, "remote", r.RemoteAddr, "error", err)
		rest.Write(w, a.cfg.Log, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body) // the agent is gone: it asks again
}

// decode reads a body that is one JSON object with known fields.
func decode(r *http.Request, v any) error {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	err := dec.Decode(v)
	if err == nil {
		if _, end := dec.Token(); end != io.EOF {
			err = cmp.Or(end, errors.New("more follows the object"))
		}
	}
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return fault.New(fault.Exhausted, "the body is larger than %d bytes", tooLarge.Limit)
	}
	if err != nil {
		return fault.New(fault.Invalid, "the body is not the JSON that is expected: %w", err)
	}
	return nil
}

// origin is what failures are counted by: an address, of IPv6 the network
// that one host has for itself.
func origin(remote string) string {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return remote
	}
	a := ap.Addr().Unmap()
	if a.Is4() {
		return a.String()
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return remote
	}
	return p.String()
}

func (a *Authority) enrol(ctx context.Context, r *http.Request, reg Registrar) (identity, error) {
	from := origin(r.RemoteAddr)
	if !a.failed.allow(from, a.cfg.Now()) {
		return identity{}, fault.New(fault.Exhausted, "too many failed enrolments from %s; wait a minute", from)
	}
	id, err := a.admit(ctx, r, reg)
	if err != nil {
		a.failed.count(from, a.cfg.Now())
	}
	return id, err
}

func (a *Authority) admit(ctx context.Context, r *http.Request, reg Registrar) (identity, error) {
	var req enrolRequest
	if err := decode(r, &req); err != nil {
		return identity{}, err
	}
	csr, err := parseRequest([]byte(req.CSR))
	if err != nil {
		return identity{}, err
	}
	if req.Evidence != nil {
		return a.admitByEvidence(ctx, reg, req, csr)
	}
	var t Token
	// The use is spent first and given back when the rest fails: the registrar
	// has tables of its own, which a transaction here would lock out.
	err = a.cfg.DB.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		t, err = a.use(ctx, tx, req.Secret)
		return err
	})
	if err != nil {
		return identity{}, err
	}
	id, err := a.register(ctx, reg, Admission{Environment: t.EnvironmentID, Machine: t.MachineID}, "token "+t.ID, req, csr)
	if err != nil {
		// Also when the agent has hung up meanwhile, which ends ctx.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_, back := a.cfg.DB.NewUpdate().Model(&t).Set("uses = uses - 1").WherePK().Exec(ctx)
		return identity{}, errors.Join(err, back)
	}
	return id, nil
}

func (a *Authority) register(ctx context.Context, reg Registrar, to Admission, by string, req enrolRequest, csr *x509.CertificateRequest) (identity, error) {
	device, err := reg.Register(ctx, to, req.Facts)
	if err != nil {
		return identity{}, err
	}
	cert, err := a.issue(ctx, device.Device, csr)
	if err != nil {
		return identity{}, err
	}
	a.cfg.Log.Info("a device has enrolled", "device", device.Device, "environment", device.Environment, "by", by)
	id := identity{
		Device: device.Device, Organization: device.Organization, Environment: device.Environment,
		Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})), CA: string(a.CAPEM()), NotAfter: cert.NotAfter,
	}
	id.PolicyKey = base64.StdEncoding.EncodeToString(a.policy.Public().(ed25519.PublicKey))
	id.ContentRoot, err = a.contentRoot()
	return id, err
}

// contentRoot is what devices trust signed content by, nil when there is none.
func (a *Authority) contentRoot() ([]byte, error) {
	if a.cfg.Root == nil {
		return nil, nil
	}
	root, err := a.cfg.Root()
	if err != nil {
		return nil, fmt.Errorf("read the root of the repository: %w", err)
	}
	return root, nil
}

func (a *Authority) renew(ctx context.Context, r *http.Request) (identity, error) {
	// An expired certificate is good enough here, a revoked one is not.
	device, _, err := a.peer(ctx, r.TLS)
	if err != nil {
		return identity{}, err
	}
	if !a.renews.allow(string(device), a.cfg.Now()) {
		return identity{}, fault.New(fault.Exhausted, "device %s renews its certificate too often; wait a minute", device)
	}
	a.renews.count(string(device), a.cfg.Now())
	var req struct {
		CSR string `json:"csr"`
	}
	if err := decode(r, &req); err != nil {
		return identity{}, err
	}
	csr, err := parseRequest([]byte(req.CSR))
	if err != nil {
		return identity{}, err
	}
	cert, err := a.issue(ctx, device, csr)
	if err != nil {
		return identity{}, err
	}
	// For devices that enrolled before there was one: the others keep theirs.
	root, err := a.contentRoot()
	return identity{
		Device: device, Certificate: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})), CA: string(a.CAPEM()), NotAfter: cert.NotAfter,
		ContentRoot: root,
	}, err
}

// leaveLimit is how long it takes at most to take a device out.
const leaveLimit = 15 * time.Second

// offboard takes the device that asks out. One that is out already hears the
// same: its first answer may have been lost.
func (a *Authority) offboard(ctx context.Context, r *http.Request, reg Registrar) (any, error) {
	device, _, err := a.peer(ctx, r.TLS)
	if err != nil && device == "" {
		return nil, err
	}
	if err == nil {
		if err := decode(r, new(struct{})); err != nil {
			return nil, err
		}
		// Also when the agent hangs up meanwhile: half of it helps nobody.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveLimit)
		defer cancel()
		if err := reg.Leave(ctx, device, origin(r.RemoteAddr)); err != nil {
			return nil, err
		}
		a.cfg.Log.Warn("a host has offboarded itself", "device", device, "remote", r.RemoteAddr)
	}
	return map[string]any{"device": device}, nil
}

// limiter bounds what somebody may do per minute: fail to enrol, so that
// secrets cannot be guessed, and renew, so that one device cannot fill the
// database.
type limiter struct {
	most   int
	mu     sync.Mutex
	minute time.Time
	counts map[string]int
}

const (
	failuresPerMinute = 30
	renewalsPerMinute = 10
	// maxCounted bounds the memory of a limiter. More are let through: each
	// would be within its limit.
	maxCounted = 100_000
)

func newLimiter(most int) *limiter { return &limiter{most: most, counts: map[string]int{}} }

func (l *limiter) roll(now time.Time) {
	if m := now.Truncate(time.Minute); !m.Equal(l.minute) {
		l.minute, l.counts = m, map[string]int{}
	}
}

func (l *limiter) allow(who string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.roll(now)
	return l.counts[who] < l.most
}

func (l *limiter) count(who string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.roll(now)
	if len(l.counts) < maxCounted {
		l.counts[who]++
	}
}
