package ingest

import (
	"testing"

	"komainu/event"
	"komainu/wire"
)

// FuzzDecode decodes messages of the queue: each record comes out, or is
// named as one that cannot.
func FuzzDecode(f *testing.F) {
	record, err := wire.EncodeEvent(&event.Event{ID: event.ID{Epoch: 1, Source: event.FromAgent, Seq: 1}, Action: event.AgentStarted})
	if err != nil {
		f.Fatal(err)
	}
	good, err := wire.Encode(&wire.Batch{Epoch: 1, ID: 1, Records: [][]byte{record, []byte("x")}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, payload []byte) {
		records, err := decode(Message{Device: "d", Payload: payload})
		if err != nil && len(records) == 0 {
			return
		}
		for _, r := range records {
			if r.Event != nil && r.Event.ID.Device != "d" || r.Finding != nil && r.Finding.Device != "d" {
				t.Fatal("a record of another device")
			}
		}
	})
}
