//go:build !linux

package realtime

import (
	"context"
	"log/slog"
	"os/exec"

	"komainu/fault"
)

// GuardConfig says how the guardian starts the other roles.
type GuardConfig struct {
	Command func(role string) *exec.Cmd
	GiveUp  func(exit int) error
	Log     *slog.Logger
}

// errPlatform is what everything answers here.
var errPlatform = fault.New(fault.Unsupported, "real-time protection is not available on this platform in this version")

// Guard answers fault.Unsupported on this platform.
func Guard(context.Context, GuardConfig) error { return errPlatform }

// RunBroker answers fault.Unsupported on this platform.
func RunBroker(context.Context, *slog.Logger) error { return errPlatform }

// Attach answers fault.Unsupported on this platform.
func Attach(*slog.Logger) (*Handle, error) { return nil, errPlatform }

// Mounts answers fault.Unsupported on this platform.
func Mounts() ([]Mount, error) { return nil, errPlatform }

// Handle does not exist on this platform: Attach gives none.
type Handle struct{}

// OwnPID does nothing.
func (h *Handle) OwnPID(int, int) {}

// Stats returns nothing.
func (h *Handle) Stats() Stats { return Stats{} }

// Run answers fault.Unsupported.
func (h *Handle) Run(context.Context, Judge) error { return errPlatform }

// Invalidate answers fault.Unsupported.
func (h *Handle) Invalidate() error { return errPlatform }

// SetMarks answers fault.Unsupported.
func (h *Handle) SetMarks(context.Context, []Mark) error { return errPlatform }
