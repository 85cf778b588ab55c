//go:build !linux

package agent

import "log/slog"

var brokerNeeds, workerNeeds []uintptr

// dropPrivileges has nothing to drop where there are no capabilities.
func dropPrivileges(*slog.Logger, []uintptr) {}
