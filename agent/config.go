// Package agent is the agent of a protected server: it joins the parts, which
// do not know each other, and plays the roles that the process re-executes
// itself for.
package agent

import (
	"log/slog"
	"path/filepath"

	"komainu/agent/localapi"
)

// Version of the agent. Releases set it when they link.
var Version = "0.1.0-dev"

// DefaultState is where an installed agent keeps its state.
const DefaultState = "/var/lib/komainu/agent"

// Config says how an agent runs on its host. What it protects is policy.
type Config struct {
	State  string // folder; made if it does not exist
	Socket string // of the local API
	Log    *slog.Logger
	Level  *slog.LevelVar // of Log, changed by `log level set`
	// NoGuardian is why the guardian does not run, nil when it does.
	NoGuardian error
}

// socketFor returns where the local API listens: an agent whose state was
// moved has its socket there, so that several can run on one host.
func socketFor(state string) string {
	if state == DefaultState {
		return localapi.DefaultSocket
	}
	return filepath.Join(state, "agent.sock")
}

// path names something in the state folder.
func (c Config) path(name string) string { return filepath.Join(c.State, name) }
