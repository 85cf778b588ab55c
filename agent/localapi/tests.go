package localapi

import (
	"context"
	"net/http"
	"path"

	"komainu/drill"
	"komainu/fault"
)

// TestRequest asks for a detection test.
type TestRequest struct {
	Test   string `json:"test"`             // id of a scenario
	Folder string `json:"folder,omitempty"` // where; the agent chooses when it is empty
}

func (s *Server) runTest(c *call) error {
	req, err := decode[TestRequest](c)
	if err != nil {
		return err
	}
	if req.Folder != "" && !path.IsAbs(req.Folder) {
		return fault.New(fault.Invalid, "%q is not an absolute path", req.Folder)
	}
	if s.cfg.Backend.Tests == nil {
		return absent("detection tests")
	}
	return stream(s, c, func(yield func(drill.Run) error) error { return s.cfg.Backend.Tests.RunTest(c.r.Context(), req, yield) })
}

// Tests returns the detection tests that the agent can run.
func (c *Client) Tests(ctx context.Context) ([]drill.Scenario, error) {
	all, err := exchange[items[drill.Scenario]](ctx, c, http.MethodGet, "/v1/tests", nil)
	return all.Items, err
}

// RunTest runs a detection test and calls progress with its state, now and
// after every change, until it has ended.
func (c *Client) RunTest(ctx context.Context, req TestRequest, progress func(drill.Run) error) error {
	return followRequest(ctx, c, http.MethodPost, "/v1/tests", req, progress)
}
