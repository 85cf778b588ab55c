package link

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"komainu/fault"
	"komainu/wire"
)

// requestLimit is how long one request to the control plane may take.
const requestLimit = 20 * time.Second

// maxAnswer bounds what is read of an answer.
const maxAnswer = 1 << 20

// client makes single requests to the control plane.
type client struct{ transport *http.Transport }

func newClient(proxy Proxy, config *tls.Config) client {
	return client{&http.Transport{DialContext: proxy.dial, TLSClientConfig: config, TLSHandshakeTimeout: requestLimit, MaxResponseHeaderBytes: 64 << 10}}
}

func (c client) close() { c.transport.CloseIdleConnections() }

// ping is what the control plane tells everybody.
type ping struct {
	Time     time.Time `json:"time"`
	Protocol int       `json:"protocol"`
}

func (c client) ping(ctx context.Context, server string) (ping, error) {
	var p ping
	err := c.do(ctx, http.MethodGet, server+"/agent/v1/ping", nil, &p)
	if err == nil && p.Time.IsZero() {
		err = fault.New(fault.Unavailable, "%s does not answer like a Komainu control plane", server)
	}
	return p, err
}

// fits reports why this agent and the control plane would not get on.
func (c client) fits(ctx context.Context, server string, now func() time.Time) error {
	p, err := c.ping(ctx, server)
	if err != nil {
		return err
	}
	if err := speaks(p.Protocol); err != nil {
		return err
	}
	return clockFault(now().Sub(p.Time))
}

// speaks refuses a control plane that is too old.
func speaks(protocol int) error {
	if protocol < wire.Oldest {
		return fault.New(fault.Unsupported, "the control plane speaks protocol %d, the oldest that this agent understands is %d; upgrade the control plane", protocol, wire.Oldest)
	}
	return nil
}

func (c client) post(ctx context.Context, to string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	return c.do(ctx, http.MethodPost, to, text, answer)
}

func (c client) do(ctx context.Context, method, to string, body []byte, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, to, bytes.NewReader(body))
	if err != nil {
		return fault.New(fault.Invalid, "the address %q cannot be used: %w", to, err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := c.transport.RoundTrip(req)
	if err != nil {
		return explain(req.URL.Host, err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fault.Wrap(fault.Unavailable, err, "the answer of %s broke off", req.URL.Host)
	}
	if res.StatusCode != http.StatusOK {
		return refused(req.URL.Host, res.Status, text)
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fault.New(fault.Unavailable, "%s does not answer like a Komainu control plane", req.URL.Host)
	}
	return nil
}

// refused turns the control plane's problem into a fault of the same kind.
func refused(host, status string, text []byte) error {
	var problem struct {
		Kind    string `json:"kind"`
		Message string `json:"message"`
		ID      string `json:"id"`
	}
	if json.Unmarshal(text, &problem) != nil || problem.Kind == "" {
		return fault.New(fault.Unavailable, "%s answers %s; is it a Komainu control plane?", host, status)
	}
	if problem.ID != "" {
		problem.Message += " (" + problem.ID + ")"
	}
	return fault.New(fault.ParseKind(problem.Kind), "the control plane refuses: %s", problem.Message)
}
