//go:build !linux

package upgrade

import (
	"context"
	"time"

	"komainu/fault"
)

var errPlatform = fault.New(fault.Unsupported, "the agent upgrades itself on Linux only")

// Installed answers that there is nothing to upgrade with here.
func Installed(context.Context) (string, error) { return "", errPlatform }

// Form answers that no package is known here.
func Form(context.Context) string { return "" }

// ManagerOf answers that there is no package manager here.
func ManagerOf(string) (Manager, error) { return nil, errPlatform }

// ServiceNow answers that there is no service manager here.
func ServiceNow(context.Context) (Service, error) { return Service{}, errPlatform }

// StartService answers that there is no service manager here.
func StartService(context.Context) error { return errPlatform }

func (in *Installer) watchMain(ctx context.Context) { <-ctx.Done() }

func boottime() time.Duration { return 0 }

func bootID() string { return "unknown" }
