package notify

import (
	"net/http"
	"testing"
	"time"

	"komainu/finding"
)

func TestOutcomeOfOneMessage(t *testing.T) {
	r := newReceiver(t, func(w http.ResponseWriter, got received) {
		if got.Title == "bad" {
			http.Error(w, "no", http.StatusBadRequest)
		}
	})
	b := newBench(t)
	of := func(title string) Outcome {
		t.Helper()
		m := alert(title, finding.High)
		m.Subject.ID = title
		o, err := b.Of(b.ctx, org, m, time.Now().Add(time.Minute))
		b.must(err)
		return o
	}
	if o := of("good"); o.Wanted != 0 {
		t.Errorf("with nobody to tell: %+v", o)
	}
	v := b.create(r.wanted("hook"))
	for _, title := range []string{"bad", "good"} {
		m := alert(title, finding.High)
		m.Subject.ID = title
		b.tell(m)
	}
	if o := of("good"); o.Wanted != 1 || o.Waiting != 1 || !o.At.IsZero() {
		t.Errorf("before it is delivered: %+v", o)
	}
	stop := b.run()
	b.until(v.ID, func(v Notification) bool { return v.Pending == 0 })
	stop()
	if o := of("good"); o.Wanted != 1 || o.Waiting != 0 || o.Failed != 0 || o.At.IsZero() {
		t.Errorf("delivered: %+v", o)
	}
	if o := of("bad"); o.Failed != 1 || o.Detail == "" {
		t.Errorf("refused: %+v", o)
	}
	m := alert("good", finding.High)
	if o, err := b.Of(b.ctx, org, m, time.Now().Add(-time.Hour)); err != nil || o.Wanted != 0 {
		t.Errorf("of before it was set up: %+v, %v", o, err)
	}
	if o, err := b.Of(b.ctx, "another", m, time.Now()); err != nil || o.Wanted != 0 {
		t.Errorf("of another organization: %+v, %v", o, err)
	}
}
