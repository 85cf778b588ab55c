package main

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"komainu/event"
)

// settle compares, when all is quiet, what the oracle did with what the
// control plane holds.
func (s *soaker) settle(ctx context.Context) (string, error) {
	files := s.oracle.written()
	alerts, err := s.alertsOf(ctx, files)
	if err != nil {
		return "", err
	}
	stored, err := s.allEvents(ctx)
	if err != nil {
		return "", err
	}
	counts, err := s.account(stored)
	if err != nil {
		return "", err
	}
	o := s.oracle
	o.mu.Lock()
	defer o.mu.Unlock()
	return fmt.Sprintf("files=%d alerts=%d %s programs=%d claims=%d opens=%d worst_open_ms=%.0f starved=%d", len(files), alerts, counts, len(o.markers), o.claims, o.opens, ms(o.worst), o.starved), nil
}

// alertsOf waits until every file is told of, and then looks for one that is
// told of twice.
func (s *soaker) alertsOf(ctx context.Context, files []string) (int, error) {
	var told map[string]int
	missing := func() []string {
		return slices.DeleteFunc(slices.Clone(files), func(f string) bool { return told[f] > 0 })
	}
	err := waitFor(ctx, 90*time.Second, "every file with malware is an alert", func() (bool, error) {
		var err error
		if told, err = s.toldFiles(ctx); err != nil {
			return false, nil //nolint:nilerr // asked again
		}
		if len(missing()) > 0 {
			wait(ctx, 500*time.Millisecond)
			return false, nil
		}
		return true, nil
	})
	if err != nil {
		return 0, fmt.Errorf("%w; no alert for %v", err, missing())
	}
	for file, n := range told {
		if n > 1 {
			return 0, fmt.Errorf("%d alerts for %s", n, file)
		}
	}
	return len(told), nil
}

// toldFiles counts alerts by the file that they are about.
func (s *soaker) toldFiles(ctx context.Context) (map[string]int, error) {
	told := map[string]int{}
	cursor := ""
	for {
		var page struct {
			Items []struct{ Title, Summary string }
			Next  string
		}
		if err := s.api.call(ctx, "GET", "/alerts?limit=500&cursor="+url.QueryEscape(cursor), nil, &page); err != nil {
			return nil, err
		}
		for _, a := range page.Items {
			for word := range strings.FieldsSeq(a.Summary) {
				if word = strings.Trim(word, `".,:;`); strings.HasPrefix(word, s.stack.Demo()+"/eicar-") {
					told[word]++
					break
				}
			}
		}
		if cursor = page.Next; cursor == "" {
			return told, nil
		}
	}
}

// soakEvent is what is looked at here of an event.
type soakEvent struct {
	ID, Action string
	Process    *struct{ Args []string }
	Fields     map[string]string
}

// allEvents waits until the newest program is in the store, and reads all
// that is there of the device.
func (s *soaker) allEvents(ctx context.Context) ([]soakEvent, error) {
	id, err := s.stack.CLI(ctx, "health", "--field", "edr_machine_id")
	if err != nil {
		return nil, err
	}
	path := "/devices/" + strings.Trim(strings.TrimSpace(id), `"`) + "/timeline"
	last := "--komainu-soak-last"
	err = waitFor(ctx, 60*time.Second, "all events have arrived", func() (bool, error) {
		if err := runMarker(ctx, last); err != nil {
			return false, err
		}
		wait(ctx, 500*time.Millisecond)
		var page struct{ Items []soakEvent }
		err := s.api.call(ctx, "GET", path+"?limit=10&q="+last, nil, &page)
		return err == nil && len(page.Items) > 0, nil
	})
	if err != nil {
		return nil, err
	}
	var all []soakEvent
	for cursor := ""; ; {
		var page struct {
			Items []soakEvent
			Next  string
		}
		if err := s.api.call(ctx, "GET", path+"?limit=1000&cursor="+url.QueryEscape(cursor), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if cursor = page.Next; cursor == "" {
			return all, nil
		}
	}
}

// run of numbers of one source in one epoch.
type numbered struct {
	epoch  event.Epoch
	source event.Source
}

// account checks that no event is there twice, that every number that is
// missing was told to be lost, and that what ran in quiet times was seen.
func (s *soaker) account(stored []soakEvent) (string, error) {
	seen, programs := map[string]int{}, map[string]int{}
	count, highest := map[numbered]uint64{}, map[numbered]uint64{}
	told := map[event.Source]uint64{}
	for _, e := range stored {
		seen[e.ID]++
		if seen[e.ID] > 1 {
			return "", fmt.Errorf("event %s is stored twice", e.ID)
		}
		id, err := event.ParseID(e.ID)
		if err != nil {
			return "", err
		}
		of := numbered{id.Epoch, id.Source}
		count[of]++
		highest[of] = max(highest[of], id.Seq)
		if e.Action == string(event.EventsLost) {
			n, err := strconv.ParseUint(e.Fields["lost_count"], 10, 64)
			if err != nil {
				return "", fmt.Errorf("event %s: lost_count: %w", e.ID, err)
			}
			told[event.Source(e.Fields["lost_source"])] += n
		}
		if e.Action == string(event.ProcessCreated) && e.Process != nil {
			for _, arg := range e.Process.Args {
				programs[arg]++
			}
		}
	}
	missing := map[event.Source]uint64{}
	for of, top := range highest {
		missing[of.source] += top - count[of]
	}
	untold := uint64(0)
	for source, n := range missing {
		if n > told[source] {
			untold += n - told[source]
		}
	}
	if untold > told[""] { // losses that cannot be told by source
		return "", fmt.Errorf("numbers that are missing: %v; losses that were told: %v; epochs %d", missing, told, len(highest))
	}
	s.oracle.mu.Lock()
	defer s.oracle.mu.Unlock()
	unseen := 0
	for marker, quiet := range s.oracle.markers {
		switch n := programs[marker]; {
		case n > 1:
			return "", fmt.Errorf("the program with %s ran once and is there %d times", marker, n)
		case n == 0 && quiet && told[event.FromProcess] == 0:
			return "", fmt.Errorf("the program with %s ran in quiet times and is not there", marker)
		case n == 0:
			unseen++
		}
	}
	lost := uint64(0)
	for n := range maps.Values(told) {
		lost += n
	}
	return fmt.Sprintf("events=%d lost_told=%d unseen_while_broken=%d", len(stored), lost, unseen), nil
}
