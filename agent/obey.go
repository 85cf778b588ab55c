package agent

import (
	"fmt"
	"time"

	"komainu/agent/ondemand"
	"komainu/agent/quarantine"
	"komainu/agent/schedule"
	"komainu/policy"
)

// openSchedule prepares the scans that policy wants at certain times.
func (w *worker) openSchedule() (*schedule.Scheduler, error) {
	return schedule.Open(schedule.Config{
		File: w.cfg.path("schedule"), Seed: string(w.deviceID()), Log: w.log.With("component", "schedule"),
		Schedules: func() []policy.Schedule {
			if now := w.settings.Now(); now.Licensed {
				return now.ScanSchedule
			}
			return nil
		},
		Start: func(s policy.Schedule) error {
			_, err := w.jobs.Start(ondemand.Request{Type: ondemand.Type(s.Kind), Path: s.Path})
			return err
		},
	})
}

// obey carries out the settings that no part looks up by itself. It is told
// of every change, in order.
func (w *worker) obey(e policy.Effective) {
	w.protect.history.Limit(quarantine.HistoryLimits{Items: e.ScanHistory, Age: time.Duration(e.QuarantineRetention) * 24 * time.Hour})
	if e.LogLevel != "" {
		if err := w.setLogLevel(e.LogLevel); err != nil {
			w.log.Warn("the log level of the policy is not known here", "error", err)
		}
	}
}

// mayDo refuses what policy does not let people on the device do about a
// threat: "allow" it, or "restore" it.
func mayDo(e policy.Effective, action string) error {
	if e.MayDo(action) {
		return nil
	}
	return managed(fmt.Sprintf("whether people on this device may %s threats", action))
}
