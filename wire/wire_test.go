package wire_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"komainu/event"
	"komainu/finding"
	"komainu/policy"
	"komainu/wire"
)

var update = flag.Bool("update", false, "write the golden samples of this protocol version")

// fill gives every field of a struct a value of its own, so that a field that
// the mapping forgets makes the round trip fail. It knows the few types that
// have no fields to fill.
func fill(v reflect.Value, n *int) {
	*n++
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		*x = time.Unix(1_700_000_000+int64(*n), int64(*n)).UTC()
		return
	case *netip.Addr:
		*x = netip.AddrFrom4([4]byte{10, 0, byte(*n >> 8), byte(*n)})
		return
	case *event.DeviceID:
		*x = "dev"
		return
	case *finding.Severity:
		*x = finding.Severity(*n%4 + 1)
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.Type().Name() + string(rune('a'+*n%26)) + string(rune('a'+*n/26%26)))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(int64(*n))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n))
	case reflect.Float64:
		v.SetFloat(float64(*n) / 4)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i), n)
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"one": "1", "two": "2"}))
	case reflect.Struct:
		for _, field := range v.Fields() {
			fill(field, n)
		}
	default:
		panic("fill does not know " + v.Type().String())
	}
}

func filled[T any]() *T {
	v, n := new(T), 0
	fill(reflect.ValueOf(v).Elem(), &n)
	return v
}

var addrs = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestEveryFieldOfAnEventTravels(t *testing.T) {
	want := filled[event.Event]()
	b, err := wire.EncodeEvent(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := wire.DecodeRecord("dev", b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got.Event, addrs); d != "" {
		t.Error(d)
	}
	golden(t, "event", b)
}

func TestEveryFieldOfAFindingTravels(t *testing.T) {
	want := filled[finding.Finding]()
	b, err := wire.EncodeFinding(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := wire.DecodeRecord("dev", b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got.Finding, addrs); d != "" {
		t.Error(d)
	}
	golden(t, "finding", b)
}

func TestEveryMessageTravels(t *testing.T) {
	for _, want := range []wire.Message{
		filled[wire.Hello](), filled[wire.Welcome](), filled[wire.Batch](), filled[wire.Ack](), filled[wire.PolicyPush](),
		filled[wire.PolicyResult](), filled[wire.Heartbeat](), filled[wire.Command](), filled[wire.CommandResult](), filled[wire.Goodbye](),
		filled[wire.TestRun](), filled[wire.TestStages](), filled[wire.UpgradeStatus](),
	} {
		b, err := wire.Encode(want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.Decode(b)
		if err != nil {
			t.Fatalf("%T: %v", want, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%T:\n%s", want, d)
		}
		golden(t, strings.ToLower(reflect.TypeOf(want).Elem().Name()), b)
	}
}

// golden compares with the sample of this protocol version: what was once
// sent must stay what is sent, or the protocol number has to rise.
func golden(t *testing.T, name string, b []byte) {
	t.Helper()
	file := filepath.Join("testdata", fmt.Sprintf("v%d", wire.Protocol), name+".bin")
	if *update {
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, b) {
		t.Errorf("%s differs from the sample of protocol %d; add a line to the ledger and new samples", name, wire.Protocol)
	}
}

// TestSamplesOfEveryVersionMeanTheSame decodes what was ever sent and compares
// with what it meant then, kept as JSON beside it.
func TestSamplesOfEveryVersionMeanTheSame(t *testing.T) {
	samples, err := filepath.Glob("testdata/v*/*.bin")
	if err != nil {
		t.Fatal(err)
	}
	for v := wire.Oldest; v <= wire.Protocol; v++ {
		if !slices.ContainsFunc(samples, func(name string) bool { return filepath.Base(filepath.Dir(name)) == fmt.Sprintf("v%d", v) }) {
			t.Errorf("no samples of protocol %d", v)
		}
	}
	for _, name := range samples {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var decoded any
		switch strings.TrimSuffix(filepath.Base(name), ".bin") {
		case "event", "finding":
			decoded, err = wire.DecodeRecord("dev", b)
		default:
			decoded, err = wire.Decode(b)
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		text, err := json.MarshalIndent(decoded, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		meaning := strings.TrimSuffix(name, ".bin") + ".json"
		if *update && strings.Contains(name, fmt.Sprintf("v%d/", wire.Protocol)) {
			if err := os.WriteFile(meaning, append(text, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(meaning)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(want), string(text)+"\n"); d != "" {
			t.Errorf("%s means something else now:\n%s", name, d)
		}
	}
}

func TestDeviceComesFromTheReceiver(t *testing.T) {
	e := &event.Event{ID: event.ID{Device: "victim", Epoch: 1, Source: event.FromAgent, Seq: 1}, Action: event.AgentStarted}
	b, err := wire.EncodeEvent(e)
	if err != nil {
		t.Fatal(err)
	}
	got, err := wire.DecodeRecord("sender", b)
	if err != nil || got.Event.ID.Device != "sender" {
		t.Errorf("device %q, %v", got.Event.ID.Device, err)
	}
}

func TestPathsThatAreNotUTF8AreEscaped(t *testing.T) {
	e := &event.Event{ID: event.ID{Source: event.FromFile, Seq: 1}, File: &event.File{Path: "/tmp/\xff日\xc3"}}
	b, err := wire.EncodeEvent(e)
	if err != nil {
		t.Fatal(err)
	}
	got, err := wire.DecodeRecord("d", b)
	if err != nil || got.Event.File.Path != `/tmp/\xff日\xc3` {
		t.Errorf("path %q, %v", got.Event.File.Path, err)
	}
}

func TestRefused(t *testing.T) {
	big := &wire.PolicyPush{Signed: policy.Signed{Payload: make([]byte, wire.MaxFrame)}}
	if _, err := wire.Encode(big); err == nil {
		t.Error("an oversized frame was encoded")
	}
	for name, b := range map[string][]byte{
		"empty": nil, "garbage": []byte("GET / HTTP/1.1\r\n"), "oversized": make([]byte, wire.MaxFrame+1), "cut": {0x1a, 0x05, 0x09},
	} {
		if _, err := wire.Decode(b); !errors.Is(err, wire.ErrFrame) {
			t.Errorf("%s: %v", name, err)
		}
	}
	anonymous, err := wire.EncodeEvent(&event.Event{Action: event.AgentStarted})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wire.DecodeRecord("d", anonymous); !errors.Is(err, wire.ErrFrame) {
		t.Errorf("an event without identity: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	samples, err := filepath.Glob("testdata/v*/*.bin")
	if err != nil || len(samples) == 0 {
		f.Fatal("no samples", err)
	}
	for _, name := range samples {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(b[:len(b)/2])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := wire.Decode(b); err == nil {
			again, err := wire.Encode(m)
			if err != nil {
				t.Fatalf("decoded %T cannot be encoded: %v", m, err)
			}
			if m2, err := wire.Decode(again); err != nil || !cmp.Equal(m, m2) {
				t.Fatalf("%T changed on its second trip: %v", m, err)
			}
		}
		if r, err := wire.DecodeRecord("d", b); err == nil && r.Event == nil && r.Finding == nil {
			t.Fatal("an empty record without an error")
		}
	})
}
