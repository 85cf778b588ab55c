package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"komainu/dev/browser"
)

// portalRounds is how often every room is gone to.
const portalRounds = 7

// firstLoad adds up what came over the wire, as the browser counts it.
const firstLoad = `performance.getEntries().filter(e => e.entryType === 'navigation' || e.entryType === 'resource')
  .filter(e => !e.name.includes('/api/')).reduce((sum, e) => sum + (e.encodedBodySize ?? 0), 0)`

// goTo clicks on a room in the menu and says how many milliseconds pass until
// its title is there and has been painted.
const goTo = `(async (room) => {
  const before = location.pathname
  const began = performance.now()
  document.querySelector('[data-testid="' + room + '"]').click()
  await new Promise((done, failed) => {
    const look = () => {
      if (location.pathname !== before && document.querySelector('[data-testid="page-title"]')) return done()
      if (performance.now() - began > 10000) return failed(new Error('no page after ' + room))
      requestAnimationFrame(look)
    }
    requestAnimationFrame(look)
  })
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))
  return performance.now() - began
})('%s')`

// benchPortal measures the portal as a person meets it: what the first visit
// loads, and how long it takes to go from room to room.
func benchPortal(ctx context.Context, h *House) error {
	if err := h.Install(ctx, browserTools...); err != nil {
		return err
	}
	s, end, err := benchControl(ctx, h)
	if err != nil {
		return err
	}
	defer end()
	profile := filepath.Join(s.dir, "browser")
	if err := os.MkdirAll(profile, 0o700); err != nil {
		return err
	}
	page, err := browser.Open(ctx, browser.Options{Portal: h.Path("portal"), Dir: profile, Language: "en"})
	if err != nil {
		return err
	}
	defer page.Close()
	return measurePortal(ctx, h, page, s)
}

func measurePortal(ctx context.Context, h *House, page *browser.Browser, s *Stack) error {
	var loaded float64
	err := all(
		func() error { return page.Goto(s.URL) },
		func() error { return signInFirst(page, s.Password) },
		func() error { return page.Wait(browser.ID("page-title"), pageLimit) },
		func() error { return page.Evaluate(firstLoad, &loaded) },
	)
	if err != nil {
		return err
	}
	rooms := []string{"nav-devices", "nav-incidents", "nav-alerts", "nav-environments", "nav-home"}
	first, again := map[string]float64{}, map[string][]float64{}
	for round := range portalRounds {
		for _, room := range rooms {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			var took float64
			if err := page.Evaluate(fmt.Sprintf(goTo, room), &took); err != nil {
				return err
			}
			if round == 0 {
				first[room] = took
			} else {
				again[room] = append(again[room], took)
			}
			wait(ctx, 300*time.Millisecond) // lists arrive, the next click does not compete
		}
	}
	worst, worstFirst := 0.0, 0.0
	for _, room := range rooms {
		slices.Sort(again[room])
		median := again[room][len(again[room])/2]
		h.Say("%-18s first visit %.0f ms, later %.0f ms (median of %d)", room, first[room], median, len(again[room]))
		worst, worstFirst = max(worst, median), max(worstFirst, first[room])
	}
	h.Say("portal first_load_kb=%.0f route_ms=%.0f first_visit_ms=%.0f", loaded/1000, worst, worstFirst)
	return nil
}
