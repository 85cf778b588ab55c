package agent

import (
	"cmp"
	"fmt"
	"time"

	"komainu/agent/link"
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
	before := w.obeyed
	w.obeyed = &obeyed{logLevel: e.LogLevel, proxy: e.Proxy}
	if before == nil {
		before = &obeyed{proxy: e.Proxy}
		w.startLevel = levelName(w.cfg.Level)
	}
	if e.LogLevel != before.logLevel {
		// What was set until the next start only, holds until the level that
		// lasts is another one.
		if err := w.setLogLevel(cmp.Or(e.LogLevel, w.startLevel)); err != nil {
			w.log.Warn("the log level of the policy is not known here", "error", err)
		}
	}
	if e.Proxy != before.proxy {
		w.log.Info("connections to the control plane take another way", "proxy", e.Proxy)
		w.link.Reconnect()
	}
}

// obeyed is what was carried out at the last change.
type obeyed struct{ logLevel, proxy string }

// proxy is where connections to the control plane go through.
func (w *worker) proxy() link.Proxy {
	p, err := link.ParseProxy(w.settings.Now().Proxy)
	if err != nil { // it was checked when it was set
		w.log.Error("the proxy cannot be used; connections go without one", "error", err)
	}
	return p
}

// mayDo refuses what policy does not let people on the device do about a
// threat: "allow" it, or "restore" it.
func mayDo(e policy.Effective, action string) error {
	if e.MayDo(action) {
		return nil
	}
	return managed(e, "disallowedThreatActions", fmt.Sprintf("whether people on this device may %s threats", action))
}
