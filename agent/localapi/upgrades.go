package localapi

import (
	"context"
	"net/http"
	"path"
	"strings"

	"komainu/deploy"
	"komainu/fault"
)

// Upgrades replaces the agent by another version.
type Upgrades interface {
	// Upgrade says which version runs and how the last upgrade went.
	Upgrade(ctx context.Context) (Upgrade, error)
	// CheckUpgrade asks a source of the signed repository, the control plane
	// when it is "", which versions there are. Errors: fault.Unauthentic for a
	// repository that is not believed, fault.Unavailable, fault.NotFound.
	CheckUpgrade(ctx context.Context, from string) (Offer, error)
	// ApplyUpgrade begins an upgrade, to the newest version when none is named.
	// Errors: fault.Conflict for a version that runs, or is older and was not
	// asked for as a downgrade, and while another upgrade goes on;
	// fault.Unsupported where the agent cannot upgrade itself.
	ApplyUpgrade(ctx context.Context, req UpgradeRequest) (deploy.UpgradeStatus, error)
}

// Upgrade is which version runs and how the last upgrade went.
type Upgrade struct {
	Running string                `json:"running"`
	Last    *deploy.UpgradeStatus `json:"last,omitempty"`
}

// Offer is what a repository has for this host.
type Offer struct {
	Running  string   `json:"running"`
	Versions []string `json:"versions"` // the newest first
	Form     string   `json:"form,omitempty"`
	Note     string   `json:"note,omitempty"` // why this agent does not upgrade itself
}

// UpgradeRequest asks for an upgrade.
type UpgradeRequest struct {
	Version   string `json:"version,omitempty"`
	From      string `json:"from,omitempty"`
	Downgrade bool   `json:"downgrade,omitempty"`
}

type fromBody struct {
	From string `json:"from,omitempty"`
}

// checkFrom refuses a source that is none before anything is begun.
func checkFrom(from string) error {
	if from == "" || path.IsAbs(from) || strings.HasPrefix(from, "https://") || strings.HasPrefix(from, "http://") {
		return nil
	}
	return fault.New(fault.Invalid, "%q is neither an absolute path nor the address of a mirror", from)
}

func (s *Server) getUpgrade(c *call) error {
	if s.cfg.Backend.Upgrades == nil {
		return absent("upgrades")
	}
	return answer(c)(s.cfg.Backend.Upgrades.Upgrade(c.r.Context()))
}

func (s *Server) checkUpgrade(c *call) error {
	body, err := decode[fromBody](c)
	if err != nil {
		return err
	}
	if err := checkFrom(body.From); err != nil {
		return err
	}
	if s.cfg.Backend.Upgrades == nil {
		return absent("upgrades")
	}
	return answer(c)(s.cfg.Backend.Upgrades.CheckUpgrade(c.r.Context(), body.From))
}

func (s *Server) applyUpgrade(c *call) error {
	req, err := decode[UpgradeRequest](c)
	if err != nil {
		return err
	}
	if err := checkFrom(req.From); err != nil {
		return err
	}
	if s.cfg.Backend.Upgrades == nil {
		return absent("upgrades")
	}
	return answer(c)(s.cfg.Backend.Upgrades.ApplyUpgrade(c.r.Context(), req))
}

// Upgrade returns which version runs and how the last upgrade went.
func (c *Client) Upgrade(ctx context.Context) (Upgrade, error) {
	return get[Upgrade](ctx, c, "/v1/upgrade")
}

// CheckUpgrade asks which versions there are.
func (c *Client) CheckUpgrade(ctx context.Context, from string) (Offer, error) {
	return exchange[Offer](ctx, c, http.MethodPost, "/v1/upgrade/check", fromBody{from})
}

// ApplyUpgrade begins an upgrade.
func (c *Client) ApplyUpgrade(ctx context.Context, req UpgradeRequest) (deploy.UpgradeStatus, error) {
	return exchange[deploy.UpgradeStatus](ctx, c, http.MethodPost, "/v1/upgrade", req)
}
