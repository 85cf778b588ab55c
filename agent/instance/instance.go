// Package instance asks the cloud that a machine runs in for the document that
// says what machine it is. The address of that service is the same on every
// machine and leads nowhere else.
package instance

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"time"

	"komainu/fault"
)

// Source is where documents come from.
type Source struct {
	base   string
	client *http.Client
}

// Bounds of the conversation.
const (
	maxAnswer = 24 << 10
	limit     = 10 * time.Second
)

// Default returns the service of the cloud that this machine runs in.
func Default() Source { return At("http://169.254.169.254") }

// At returns the service at a base URL. It is asked directly: a proxy would be
// another machine.
func At(base string) Source {
	t := &http.Transport{DialContext: (&net.Dialer{Timeout: 3 * time.Second}).DialContext, DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10}
	return Source{base, &http.Client{
		Transport: t, Timeout: limit, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Document asks for the document of this machine. nonce and pin are put into
// it where the cloud allows that. Errors: fault.Unavailable when there is no
// such service here, fault.Invalid for a cloud that is not known.
func (s Source) Document(ctx context.Context, cloud, nonce, pin string) (document, signature string, err error) {
	switch cloud {
	case "aws":
		return s.aws(ctx)
	case "azure":
		document, err = s.azure(ctx, nonce)
		return document, "", err
	case "gcp":
		document, err = s.gcp(ctx, nonce, pin)
		return document, "", err
	}
	return "", "", fault.New(fault.Invalid, "cloud %q: want aws, azure or gcp", cloud)
}

// gcp asks for an identity token that is made for one control plane and one
// question.
func (s Source) gcp(ctx context.Context, nonce, pin string) (string, error) {
	return s.ask(ctx, http.MethodGet, "/computeMetadata/v1/instance/service-accounts/default/identity",
		url.Values{"audience": {"komainu:" + pin + ":" + nonce}, "format": {"full"}}, http.Header{"Metadata-Flavor": {"Google"}})
}

// azure asks for an attested document that carries the nonce.
func (s Source) azure(ctx context.Context, nonce string) (string, error) {
	text, err := s.ask(ctx, http.MethodGet, "/metadata/attested/document", url.Values{"api-version": {"2021-02-01"}, "nonce": {nonce}}, http.Header{"Metadata": {"true"}})
	if err != nil {
		return "", err
	}
	var answer struct {
		Signature string `json:"signature"`
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || answer.Signature == "" {
		return "", fault.New(fault.Unavailable, "what this machine's cloud answers is no attested document")
	}
	return answer.Signature, nil
}

// aws asks with a session (IMDSv2), which what can only make GET requests on
// this machine does not get.
func (s Source) aws(ctx context.Context) (document, signature string, err error) {
	session, err := s.ask(ctx, http.MethodPut, "/latest/api/token", nil, http.Header{"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": {"60"}})
	if err != nil {
		return "", "", err
	}
	with := http.Header{"X-Aws-Ec2-Metadata-Token": {session}}
	if document, err = s.ask(ctx, http.MethodGet, "/latest/dynamic/instance-identity/document", nil, with); err != nil {
		return "", "", err
	}
	signature, err = s.ask(ctx, http.MethodGet, "/latest/dynamic/instance-identity/rsa2048", nil, with)
	return document, signature, err
}

func (s Source) ask(ctx context.Context, method, path string, query url.Values, header http.Header) (string, error) {
	to := s.base + path
	if query != nil {
		to += "?" + query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, method, to, nil)
	if err != nil {
		return "", fmt.Errorf("ask the cloud: %w", err)
	}
	maps.Copy(r.Header, header)
	res, err := s.client.Do(r)
	if err != nil {
		return "", fault.Wrap(fault.Unavailable, err, "this machine's cloud does not say what machine it is")
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case err != nil:
		return "", fault.Wrap(fault.Unavailable, err, "the answer of this machine's cloud broke off")
	case res.StatusCode != http.StatusOK:
		return "", fault.New(fault.Unavailable, "this machine's cloud answers %s to %s", res.Status, path)
	case len(text) > maxAnswer || len(text) == 0:
		return "", fault.New(fault.Unavailable, "what this machine's cloud answers to %s is no document: %d bytes", path, len(text))
	}
	return string(text), nil
}
