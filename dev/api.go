package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"komainu/fault"
)

// api speaks with the REST API of a control plane of ours on this machine.
type api struct {
	url    string
	token  string
	client *http.Client
}

func newAPI(url, token string) *api {
	return &api{url: url, token: token, client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		// The control plane was started a moment ago by this process, on the
		// loopback address; its CA is known to nobody yet.
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}}
}

// call sends a request with a JSON body, nil for none, and decodes the answer.
func (a *api) call(ctx context.Context, method, path string, body, answer any) error {
	var in io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		in = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, a.url+"/api/v1"+path, in)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+a.token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode >= 300 {
		var problem struct{ Kind, Message string }
		if json.Unmarshal(text, &problem) != nil {
			problem.Message = string(text)
		}
		return fault.New(fault.ParseKind(problem.Kind), "%s %s: %s: %s", method, path, res.Status, problem.Message)
	}
	if answer == nil {
		return nil
	}
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	return nil
}

type environment struct{ ID, Name, Plan string }

// environment returns the first environment, which the first start makes.
func (a *api) environment(ctx context.Context) (environment, error) {
	var list struct{ Items []environment }
	if err := a.call(ctx, "GET", "/environments", nil, &list); err != nil {
		return environment{}, err
	}
	if len(list.Items) == 0 {
		return environment{}, fault.New(fault.NotFound, "the control plane has no environment")
	}
	return list.Items[0], nil
}

// filesystemRule is policy.FilesystemRule as it travels.
type filesystemRule struct {
	Path string `json:"path"`
	Mode string `json:"mode"`
}

// untested has new machines of an environment not prove themselves: who counts
// alerts counts those of what it did itself.
func (a *api) untested(ctx context.Context, environment string) error {
	var now struct {
		Version      uint64
		SkipSelfTest bool
	}
	path := "/environments/" + environment + "/onboarding"
	if err := a.call(ctx, "GET", path, nil, &now); err != nil || now.SkipSelfTest {
		return err
	}
	return a.call(ctx, "PUT", path, map[string]any{
		"version": now.Version, "automatic": true, "concurrency": 20, "dryRun": false, "observe": map[string]any{"enabled": false}, "excludeTags": []string{},
		"allowHostOffboarding": true, "keepOffboardedDays": 180, "skipSelfTest": true,
	}, nil)
}

// protect switches the plan on and says what real-time protection covers.
func (a *api) protect(ctx context.Context, environment string, rules []filesystemRule) error {
	var plan struct {
		Version     uint64
		Servers     bool
		Tier        string
		Filesystems []filesystemRule
	}
	path := "/environments/" + environment + "/plan"
	if err := a.call(ctx, "GET", path, nil, &plan); err != nil {
		return err
	}
	return a.call(ctx, "PUT", path, map[string]any{"version": plan.Version, "servers": true, "tier": plan.Tier, "filesystems": rules}, nil)
}

// joinToken makes a token for one device and an hour.
func (a *api) joinToken(ctx context.Context, environment string) (string, error) {
	var token struct{ Token string }
	err := a.call(ctx, "POST", "/environments/"+environment+"/join-tokens", map[string]any{"label": "this machine", "expiresInSeconds": 3600, "maxUses": 1}, &token)
	return token.Token, err
}

// alert is what is looked at here of an alert.
type alert struct {
	ID, Title, Severity, State, IncidentID, Summary string
	CreatedAt                                       time.Time
}

// alerts returns the newest alerts.
func (a *api) alerts(ctx context.Context, limit int) ([]alert, error) {
	var list struct{ Items []alert }
	err := a.call(ctx, "GET", fmt.Sprintf("/alerts?limit=%d", limit), nil, &list)
	return list.Items, err
}
