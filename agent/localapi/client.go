package localapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"komainu/fault"
	"komainu/health"
	"komainu/policy"
)

// Client calls an agent on this host. Its methods return what the agent
// answered; errors carry the kind that the agent gave them. fault.Unavailable
// means that no agent answers.
type Client struct {
	path    string
	http    *http.Client
	version Version
}

// helloTimeout is how long an agent may take to say who it is; tests shorten
// it.
var helloTimeout = 5 * time.Second

// maxAnswer bounds what a client reads of one answer or one line.
const maxAnswer = 64 << 20

// Dial connects to the agent at the socket and asks for its version.
func Dial(ctx context.Context, path string) (*Client, error) {
	if path == "" {
		path = DefaultSocket
	}
	c := &Client{path: path, http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, path) },
		// A proxy, compression and HTTP/2 have no place on a socket.
		DisableCompression: true,
	}}}
	hello, cancel := context.WithTimeout(ctx, helloTimeout)
	defer cancel()
	v, err := get[Version](hello, c, "/v1/version")
	switch {
	case err != nil && hello.Err() != nil && ctx.Err() == nil:
		return nil, fault.New(fault.Unavailable, "could not connect to the daemon: it listens on %s but gave no answer within %v; "+
			"look at `systemctl status komainud`", path, helloTimeout)
	case err != nil:
		return nil, err
	case v.API < API:
		return nil, fault.New(fault.Unsupported, "the agent (version %s) is older than this command; update it", v.Agent)
	}
	c.version = v
	return c, nil
}

// Version returns which agent answered Dial.
func (c *Client) Version() Version { return c.version }

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Health returns the state of the agent.
func (c *Client) Health(ctx context.Context) (health.Report, error) {
	return get[health.Report](ctx, c, "/v1/health")
}

// ApplySetting changes a setting.
func (c *Client) ApplySetting(ctx context.Context, name Setting, value string) error {
	return c.send(ctx, http.MethodPut, "/v1/settings/"+url.PathEscape(string(name)), valueBody{value})
}

// SetLogLevel changes how much the agent logs.
func (c *Client) SetLogLevel(ctx context.Context, level string) error {
	return c.send(ctx, http.MethodPut, "/v1/log-level", valueBody{level})
}

// ThreatTypes returns what is done about each threat type.
func (c *Client) ThreatTypes(ctx context.Context) ([]ThreatType, error) {
	return getList[ThreatType](ctx, c, "/v1/threat-types")
}

// SetTag sets a tag of the device.
func (c *Client) SetTag(ctx context.Context, tag policy.Tag) error {
	return c.send(ctx, http.MethodPut, "/v1/tags", tag)
}

// RemoveTag removes a tag of the device.
func (c *Client) RemoveTag(ctx context.Context, key string) error {
	return c.send(ctx, http.MethodDelete, "/v1/tags", nameBody{key})
}

// Threats returns the protection history, newest first. It is restricted,
// without paths, for who is not an administrator.
func (c *Client) Threats(ctx context.Context) (threats []Threat, restricted bool, err error) {
	l, err := get[items[Threat]](ctx, c, "/v1/threats")
	return l.Items, l.Restricted, err
}

// Threat returns one entry of the history.
func (c *Client) Threat(ctx context.Context, id string) (Threat, error) {
	return get[Threat](ctx, c, "/v1/threats/"+url.PathEscape(id))
}

// AllowedThreats returns the names that are not acted upon.
func (c *Client) AllowedThreats(ctx context.Context) ([]AllowedThreat, error) {
	return getList[AllowedThreat](ctx, c, "/v1/allowed-threats")
}

// AllowThreat adds a name that is not acted upon.
func (c *Client) AllowThreat(ctx context.Context, name string) error {
	return c.send(ctx, http.MethodPost, "/v1/allowed-threats", nameBody{name})
}

// DisallowThreat removes such a name.
func (c *Client) DisallowThreat(ctx context.Context, name string) error {
	return c.send(ctx, http.MethodDelete, "/v1/allowed-threats", nameBody{name})
}

// QuarantineObjects returns what is in quarantine.
func (c *Client) QuarantineObjects(ctx context.Context) ([]QuarantineObject, error) {
	return getList[QuarantineObject](ctx, c, "/v1/quarantine")
}

// QuarantineThreat quarantines the file of a threat.
func (c *Client) QuarantineThreat(ctx context.Context, id string) (QuarantineObject, error) {
	return exchange[QuarantineObject](ctx, c, http.MethodPost, "/v1/quarantine", idBody{id})
}

// RemoveQuarantined deletes an object for ever.
func (c *Client) RemoveQuarantined(ctx context.Context, id string) error {
	return c.send(ctx, http.MethodDelete, "/v1/quarantine/"+url.PathEscape(id), nil)
}

// RemoveAllQuarantined deletes every object and returns how many.
func (c *Client) RemoveAllQuarantined(ctx context.Context) (int, error) {
	n, err := exchange[countBody](ctx, c, http.MethodDelete, "/v1/quarantine", nil)
	return n.Count, err
}

// RestoreQuarantined puts files back.
func (c *Client) RestoreQuarantined(ctx context.Context, req RestoreRequest) ([]Restored, error) {
	l, err := exchange[items[Restored]](ctx, c, http.MethodPost, "/v1/quarantine/restore", req)
	return l.Items, err
}

// StartScan starts a scan. It goes on when the client goes away.
func (c *Client) StartScan(ctx context.Context, req ScanRequest) (ScanJob, error) {
	return exchange[ScanJob](ctx, c, http.MethodPost, "/v1/scans", req)
}

// WatchScan calls progress until the scan has ended.
func (c *Client) WatchScan(ctx context.Context, id string, progress func(ScanJob) error) error {
	return follow(ctx, c, "/v1/scans/"+url.PathEscape(id)+"/progress", progress)
}

// CancelScan stops the scan with this id, or the running one when id is "".
func (c *Client) CancelScan(ctx context.Context, id string) (ScanJob, error) {
	return exchange[ScanJob](ctx, c, http.MethodPost, "/v1/scans/cancel", idBody{id})
}

// ScanJobs returns running and past scans.
func (c *Client) ScanJobs(ctx context.Context) ([]ScanJob, error) {
	return getList[ScanJob](ctx, c, "/v1/scans")
}

// Exclusions returns what is left out of protection.
func (c *Client) Exclusions(ctx context.Context) ([]Exclusion, error) {
	return getList[Exclusion](ctx, c, "/v1/exclusions")
}

// AddExclusion adds a local exclusion.
func (c *Client) AddExclusion(ctx context.Context, x policy.Exclusion) error {
	return c.send(ctx, http.MethodPost, "/v1/exclusions", x)
}

// RemoveExclusion removes a local exclusion.
func (c *Client) RemoveExclusion(ctx context.Context, x policy.Exclusion) error {
	return c.send(ctx, http.MethodPost, "/v1/exclusions/remove", x)
}

// TestConnectivity calls step with each outcome as it is known.
func (c *Client) TestConnectivity(ctx context.Context, step func(ConnectivityStep) error) error {
	return follow(ctx, c, "/v1/connectivity", step)
}

// Enrol brings the device into an environment.
func (c *Client) Enrol(ctx context.Context, req EnrolRequest) (EnrolResult, error) {
	return exchange[EnrolResult](ctx, c, http.MethodPost, "/v1/enrolment", req)
}

// Offboard takes the device out of its environment.
func (c *Client) Offboard(ctx context.Context, req OffboardRequest) (OffboardResult, error) {
	return exchange[OffboardResult](ctx, c, http.MethodPost, "/v1/enrolment/offboard", req)
}

// Prove has the device prove who it is.
func (c *Client) Prove(ctx context.Context, req ProofRequest) (ProofResult, error) {
	return exchange[ProofResult](ctx, c, http.MethodPost, "/v1/enrolment/proof", req)
}

// UpdateDefinitions looks for newer definitions.
func (c *Client) UpdateDefinitions(ctx context.Context) (DefinitionsResult, error) {
	return exchange[DefinitionsResult](ctx, c, http.MethodPost, "/v1/definitions/update", nil)
}

// ScanCounters returns what real-time protection scanned for which program.
func (c *Client) ScanCounters(ctx context.Context) ([]ScanCounter, error) {
	return getList[ScanCounter](ctx, c, "/v1/diagnostics/real-time-protection")
}

// Diagnostics writes the diagnostic archive to w.
func (c *Client) Diagnostics(ctx context.Context, w io.Writer) error {
	resp, err := c.do(ctx, http.MethodGet, "/v1/diagnostics", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fault.Wrap(fault.Unavailable, err, "the diagnostics broke off; the agent's log says why")
	}
	return nil
}

func get[T any](ctx context.Context, c *Client, path string) (T, error) {
	return exchange[T](ctx, c, http.MethodGet, path, nil)
}

func getList[T any](ctx context.Context, c *Client, path string) ([]T, error) {
	l, err := get[items[T]](ctx, c, path)
	return l.Items, err
}

// send makes a call that answers with nothing.
func (c *Client) send(ctx context.Context, method, path string, body any) error {
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// exchange makes a call that answers with one value.
func exchange[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var v T
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&v); err != nil {
		return v, fault.Wrap(fault.Unavailable, err, "the answer of the agent broke off")
	}
	return v, nil
}

// follow reads a stream until it ends. A stream that ends without saying so
// was cut: the agent went away.
func follow[T any](ctx context.Context, c *Client, path string, each func(T) error) error {
	return followRequest(ctx, c, http.MethodGet, path, nil, each)
}

// followRequest is follow for a stream that a request with a body begins.
func followRequest[T any](ctx context.Context, c *Client, method, path string, body any, each func(T) error) error {
	resp, err := c.do(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for d := json.NewDecoder(resp.Body); ; {
		var l line[T]
		err := d.Decode(&l)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil:
			return fault.New(fault.Unavailable, "lost the connection to the daemon: it stopped or was restarted")
		case l.Failed != nil:
			return l.Failed.err()
		case l.Done:
			return nil
		case l.Item != nil:
			if err := each(*l.Item); err != nil {
				return err
			}
		}
	}
}

// do sends a request and turns every answer that is no success into an error.
func (c *Client) do(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://agent"+path, r)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(ctx, err)
	}
	if resp.Header.Get(headerVersion) == "" {
		resp.Body.Close()
		return nil, fault.New(fault.Unavailable, "could not connect to the daemon: what answers on %s is not a Komainu agent", c.path)
	}
	if resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	var f failure
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&f); err != nil || f.Message == "" {
		return nil, fault.New(fault.Internal, "the agent (version %s) answered %s", resp.Header.Get(headerVersion), resp.Status)
	}
	return nil, f.err()
}

// unreachable says why no agent answers and what to do about it.
func (c *Client) unreachable(ctx context.Context, err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		err = ue.Err
	}
	const start = "start it with `sudo systemctl start komainu-agent`, or name the socket of a moved agent with --socket or KOMAINU_SOCKET"
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case fault.KindOf(err) != fault.Internal:
		return err
	case errors.Is(err, fs.ErrPermission):
		return fault.New(fault.NeedsRoot, "this user cannot reach the daemon at %s", c.path)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return fault.New(fault.Unavailable, "could not connect to the daemon: there is no %s; %s", c.path, start)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fault.New(fault.Unavailable, "could not connect to the daemon: it does not run (nobody listens on %s); %s", c.path, start)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return fault.New(fault.Unavailable, "the daemon closed the connection: it stopped, or too many programs ask it at once; try again")
	default:
		return fault.Wrap(fault.Unavailable, err, "could not connect to the daemon at %s", c.path)
	}
}
