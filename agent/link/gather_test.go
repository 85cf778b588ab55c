package link

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"komainu/wire"
)

// TestRecordsGather reads a spool to which a small record comes every 10 ms:
// the first leaves at once, the others together, and none waits longer than
// said. A backlog leaves without a pause.
func TestRecordsGather(t *testing.T) {
	const gather = 200 * time.Millisecond
	for name, c := range map[string]struct {
		size    int
		batches int // in a second, less a little
	}{"small": {100, 5}, "backlog": {wire.MaxBatch / 2, 100}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, stop := context.WithTimeout(t.Context(), 995*time.Millisecond)
				defer stop()
				began := time.Now()
				next := func(ctx context.Context, after uint64, _ int) (Batch, error) {
					// Record n is there after n times 10 ms.
					select {
					case <-time.After(time.Until(began.Add(time.Duration(after) * 10 * time.Millisecond))):
					case <-ctx.Done():
						return Batch{}, ctx.Err()
					}
					b := Batch{First: after + 1}
					for b.last() < uint64(time.Since(began)/(10*time.Millisecond))+1 {
						b.Records = append(b.Records, make([]byte, c.size))
					}
					return b, nil
				}
				batches := make(chan Batch)
				s := &session{done: make(chan struct{})}
				go s.read(ctx, Source{Next: next, Gather: gather}, batches)
				var sent []Batch
				for ctx.Err() == nil {
					select {
					case b := <-batches:
						if len(sent) == 0 && time.Since(began) != 0 {
							t.Errorf("the first record waited for %s", time.Since(began))
						}
						if oldest := time.Since(began) - time.Duration(b.First-1)*10*time.Millisecond; oldest > gather {
							t.Errorf("record %d waited for %s", b.First, oldest)
						}
						sent = append(sent, b)
					case <-ctx.Done():
					}
				}
				if len(sent) != c.batches {
					t.Errorf("%d batches, want %d", len(sent), c.batches)
				}
			})
		})
	}
}
