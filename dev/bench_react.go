package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"komainu/fault"
)

// reactRounds is how often EICAR is written.
const reactRounds = 50

// eicar is put together here: it stands whole in no file.
var eicar = []byte(`X5O!P%@AP[4\P` + `ZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*`)

// benchReact measures, from outside, how long it takes from the close of a
// file with EICAR until it is gone, and until the alert is in the API.
func benchReact(ctx context.Context, h *House) error {
	s, done, err := benchStack(ctx, h, 28443)
	if err != nil {
		return err
	}
	defer done()
	a, err := s.API(ctx)
	if err != nil {
		return err
	}
	var gone, alerted []time.Duration
	seen := map[string]bool{}
	for i := range reactRounds {
		q, al, err := reactOnce(ctx, a, filepath.Join(s.Demo(), fmt.Sprintf("eicar-%d.com", i)), seen)
		if err != nil {
			s.PrintLogs()
			return err
		}
		gone, alerted = append(gone, q), append(alerted, al)
	}
	h.Say("react rounds=%d quarantine_ms=%.1f alert_ms=%.1f quarantine_p50_ms=%.1f alert_p50_ms=%.1f", reactRounds,
		ms(percentile(gone, 95)), ms(percentile(alerted, 95)), ms(percentile(gone, 50)), ms(percentile(alerted, 50)))
	return nil
}

// reactOnce writes one file and waits for both reactions.
func reactOnce(ctx context.Context, a *api, name string, seen map[string]bool) (gone, alerted time.Duration, err error) {
	if err := os.WriteFile(name, eicar, 0o644); err != nil {
		return 0, 0, err
	}
	closed := time.Now()
	err = poll(ctx, 5*time.Second, 200*time.Microsecond, func() (bool, error) {
		_, err := os.Lstat(name)
		return os.IsNotExist(err), nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("%s is not quarantined: %w", name, err)
	}
	gone = time.Since(closed)
	err = poll(ctx, 10*time.Second, 2*time.Millisecond, func() (bool, error) {
		list, err := a.alerts(ctx, 5)
		if err != nil {
			return false, err
		}
		for _, x := range list {
			if !seen[x.ID] {
				seen[x.ID] = true
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil {
		return 0, 0, fmt.Errorf("no alert for %s: %w", name, err)
	}
	return gone, time.Since(closed), nil
}

// poll asks at a pace of its own, for what is timed.
func poll(ctx context.Context, limit, pace time.Duration, ok func() (bool, error)) error {
	deadline := time.Now().Add(limit)
	for {
		done, err := ok()
		if err != nil || done {
			return err
		}
		if time.Now().After(deadline) {
			return fault.New(fault.Unavailable, "waited %s", limit)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pace):
		}
	}
}

func percentile(list []time.Duration, p int) time.Duration {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[min(len(sorted)-1, len(sorted)*p/100)]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
