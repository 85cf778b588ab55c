//go:build !linux

package sensor

import (
	"context"

	"komainu/event"
	"komainu/fault"
)

// Sensor has no back end on this platform.
type Sensor struct{}

// Open answers fault.Unsupported on this platform.
func Open(Config) (*Sensor, error) {
	return nil, fault.New(fault.Unsupported, "the sensor has no back end for this platform in this version")
}

// Snapshot returns nothing.
func (s *Sensor) Snapshot() []event.Process { return nil }

// Run waits for the end of ctx.
func (s *Sensor) Run(ctx context.Context, _ func(*event.Event)) error {
	<-ctx.Done()
	return nil
}

// SetFilesystems does nothing.
func (s *Sensor) SetFilesystems([]string) {}

// Status says that nothing is available.
func (s *Sensor) Status() Status {
	return Status{Subsystem: Unavailable, Reason: "no back end for this platform in this version"}
}

// Close does nothing.
func (s *Sensor) Close() error { return nil }
