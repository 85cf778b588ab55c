package control

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"komainu/control/access"
	"komainu/fault"
)

// Topics of the stream.
const (
	topicDevice   = "device"
	topicAlert    = "alert"
	topicIncident = "incident"
	topicPlan     = "plan"
	topicPolicy   = "policy"
	topicGroup    = "group"
	topicRun      = "run" // of a detection test
	topicNotice   = "notification"
	topicMachine  = "machine"
	topicWay      = "connector"
	topicOnboard  = "onboarding"
	topicUpgrade  = "upgrade"
)

type change struct{ topic, id string }

// hub tells pages what changed. Publish never blocks: a subscriber keeps a
// set of changes, so that a thousand changes of one device are one, and when
// there are too many of a topic they become one without an id.
type hub struct {
	mu   sync.Mutex
	subs map[*subscriber]bool
}

type subscriber struct {
	organization string
	pending      map[change]bool
	wake         chan struct{} // capacity 1, sent to when pending is not empty
}

// Bounds of the stream.
const (
	maxPending     = 500
	maxSubscribers = 1000
	batchEvery     = 200 * time.Millisecond
	checkEvery     = 15 * time.Second // credentials, and a sign of life
)

func newHub() *hub { return &hub{subs: map[*subscriber]bool{}} }

// publish tells the pages of an organization. Nobody else hears of it, not
// even that something changed.
func (h *hub) publish(organization, topic, id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		if s.organization != organization || s.pending[change{topic, ""}] {
			continue
		}
		id := id
		if len(s.pending) >= maxPending {
			for c := range s.pending {
				if c.topic == topic {
					delete(s.pending, c)
				}
			}
			id = ""
		}
		s.pending[change{topic, id}] = true
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

func (h *hub) subscribe(organization string) (*subscriber, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.subs) >= maxSubscribers {
		return nil, fault.New(fault.Exhausted, "%d pages are connected already; close some", maxSubscribers)
	}
	s := &subscriber{organization: organization, pending: map[change]bool{}, wake: make(chan struct{}, 1)}
	h.subs[s] = true
	return s, nil
}

func (h *hub) unsubscribe(s *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subs, s)
}

func (h *hub) take(s *subscriber) map[change]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	taken := s.pending
	s.pending = map[change]bool{}
	return taken
}

// stream answers GET /stream with server-sent events until the client goes,
// the server stops or the credentials end.
func (a *api) stream(w http.ResponseWriter, r *http.Request) {
	s, err := a.hub.subscribe(access.ActorOf(r.Context()).Organization)
	if err != nil {
		a.refuse(w, err)
		return
	}
	defer a.hub.unsubscribe(s)
	out := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	if _, err := fmt.Fprint(w, "retry: 3000\n\n"); err != nil || out.Flush() != nil {
		return
	}
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-a.stopping:
			return
		case <-check.C:
			if !a.access.Still(r.Context()) {
				return
			}
			if _, err := fmt.Fprint(w, ": alive\n\n"); err != nil || out.Flush() != nil {
				return
			}
		case <-s.wake:
			for c := range a.hub.take(s) {
				// Topics and ids are ours and hold neither quotes nor newlines.
				if _, err := fmt.Fprintf(w, "event: %s\ndata: {\"id\":%q}\n\n", c.topic, c.id); err != nil {
					return
				}
			}
			if out.Flush() != nil {
				return
			}
			select {
			case <-time.After(batchEvery):
			case <-r.Context().Done():
				return
			case <-a.stopping:
				return
			}
		}
	}
}
