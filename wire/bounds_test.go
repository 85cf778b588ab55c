package wire_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"

	"komainu/event"
	"komainu/finding"
	"komainu/wire"
)

// draw fills a value at random: pointers may be nil, lists empty.
func draw(t *rapid.T, v reflect.Value) {
	switch x := v.Addr().Interface().(type) {
	case *time.Time:
		if rapid.Bool().Draw(t, "known time") {
			*x = time.Unix(0, rapid.Int64Range(math.MinInt64+1, math.MaxInt64).Draw(t, "time")).UTC()
		}
		return
	case *netip.Addr:
		b := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address")
		*x, _ = netip.AddrFromSlice(b[:rapid.SampledFrom([]int{0, 4, 16}).Draw(t, "family")])
		return
	case *event.DeviceID:
		*x = "dev"
		return
	case *finding.Severity:
		*x = finding.Severity(rapid.IntRange(1, 4).Draw(t, "severity"))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(rapid.String().Draw(t, "text"))
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "flag"))
	case reflect.Int32, reflect.Int64:
		v.SetInt(rapid.Int64Range(math.MinInt32, math.MaxInt32).Draw(t, "number"))
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(rapid.Uint64().Draw(t, "number") >> (64 - v.Type().Bits()))
	case reflect.Float64:
		v.SetFloat(rapid.Float64Range(0, 8).Draw(t, "fraction"))
	case reflect.Pointer:
		if rapid.Bool().Draw(t, "there") {
			v.Set(reflect.New(v.Type().Elem()))
			draw(t, v.Elem())
		}
	case reflect.Slice:
		n := rapid.IntRange(0, 3).Draw(t, "length")
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			draw(t, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(rapid.MapOfN(rapid.String(), rapid.String(), 0, 3).Draw(t, "map")))
	case reflect.Struct:
		for _, field := range v.Fields() {
			draw(t, field)
		}
	default:
		panic("draw does not know " + v.Type().String())
	}
}

var same = cmp.Options{addrs, cmpopts.EquateEmpty()}

func TestRandomRecordsTravel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := new(event.Event)
		draw(t, reflect.ValueOf(e).Elem())
		e.ID.Seq, e.ID.Source = e.ID.Seq|1, "s"
		b, err := wire.EncodeEvent(e)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.DecodeRecord("dev", b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(e, got.Event, same); d != "" {
			t.Fatal(d)
		}
	})
}

func TestRandomFindingsTravel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := new(finding.Finding)
		draw(t, reflect.ValueOf(f).Elem())
		f.ID = "f"
		b, err := wire.EncodeFinding(f)
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.DecodeRecord("dev", b)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(f, got.Finding, same); d != "" {
			t.Fatal(d)
		}
	})
}

func TestTimesTravel(t *testing.T) {
	last := time.Unix(0, math.MaxInt64).UTC()
	for sent, want := range map[time.Time]time.Time{
		{}:                       {},
		time.Unix(0, 0).UTC():    time.Unix(0, 0).UTC(),
		time.Unix(0, 1).UTC():    time.Unix(0, 1).UTC(),
		time.Unix(-1, 0).UTC():   time.Unix(-1, 0).UTC(),
		time.Unix(1<<40, 0):      last,
		time.Unix(-(1 << 40), 0): time.Unix(0, math.MinInt64+1).UTC(),
	} {
		b, err := wire.EncodeEvent(&event.Event{ID: event.ID{Source: "file", Seq: 1}, File: &event.File{ModTime: sent}})
		if err != nil {
			t.Fatal(err)
		}
		got, err := wire.DecodeRecord("d", b)
		if err != nil || got.Event.File.ModTime != want {
			t.Errorf("%v arrives as %v, %v", sent, got.Event.File.ModTime, err)
		}
	}
}

// TestLongListsAreCut: what was encoded can always be decoded.
func TestLongListsAreCut(t *testing.T) {
	many := slices.Repeat([]string{"x"}, 5000)
	e := &event.Event{
		ID: event.ID{Source: "s", Seq: 1}, Process: &event.Process{Args: many}, DNS: &event.DNS{Answers: many}, Account: &event.Account{Groups: many},
		Fields: map[string]string{},
	}
	for i := range 5000 {
		e.Fields[fmt.Sprintf("%04d", i)] = "x"
	}
	f := &finding.Finding{ID: "f", Severity: finding.Low, Techniques: many}
	for range 500 {
		f.Tree, f.Evidence, f.Events = append(f.Tree, event.Process{}), append(f.Evidence, finding.Evidence{}), append(f.Events, event.Event{})
	}
	h := &wire.Hello{Facts: wire.Facts{Hostname: strings.Repeat("日", 1000), IPAddresses: many}, Capabilities: many}
	one, err := wire.EncodeEvent(e)
	if err != nil {
		t.Fatal(err)
	}
	got, err := wire.DecodeRecord("d", one)
	if err != nil {
		t.Fatal(err)
	}
	if p := got.Event.Process; len(p.Args) != 4096 || !p.Truncated {
		t.Errorf("%d arguments, truncated %v", len(p.Args), p.Truncated)
	}
	if n := len(got.Event.Fields); n != 256 || got.Event.Fields["fields_truncated"] != "true" {
		t.Errorf("%d fields, and nobody says that some are missing", n)
	}
	two, err := wire.EncodeFinding(f)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := wire.DecodeRecord("d", two); err != nil || len(got.Finding.Tree) != 256 {
		t.Error(err)
	}
	three, err := wire.Encode(h)
	if err != nil {
		t.Fatal(err)
	}
	m, err := wire.Decode(three)
	if err != nil {
		t.Fatal(err)
	}
	if got := m.(*wire.Hello); len(got.Facts.Hostname) != 1023 || len(got.Facts.IPAddresses) != 256 {
		t.Errorf("host name of %d bytes, %d addresses", len(got.Facts.Hostname), len(got.Facts.IPAddresses))
	}
}

// empties is a message within a frame or record: one field with n empty
// elements of a list.
func empties(outer, list protowire.Number, n int) []byte {
	inner := bytes.Repeat(protowire.AppendBytes(protowire.AppendTag(nil, list, protowire.BytesType), nil), n)
	return protowire.AppendBytes(protowire.AppendTag(nil, outer, protowire.BytesType), inner)
}

// TestSmallFramesStaySmall: an empty element takes two bytes, and what it
// becomes takes hundreds.
func TestSmallFramesStaySmall(t *testing.T) {
	const n = 200_000
	for name, try := range map[string]func() error{
		"records of a batch": func() error { _, err := wire.Decode(empties(3, 3, n)); return err },
		"capabilities":       func() error { _, err := wire.Decode(empties(1, 7, n)); return err },
		"batches in a frame": func() error {
			_, err := wire.Decode(bytes.Repeat([]byte{0x1a, 0}, n))
			return err
		},
		"tree of a finding":   func() error { _, err := wire.DecodeRecord("d", empties(2, 13, n)); return err },
		"events of a finding": func() error { _, err := wire.DecodeRecord("d", empties(2, 14, n)); return err },
		"evidence":            func() error { _, err := wire.DecodeRecord("d", empties(2, 12, n)); return err },
		"fields of an event":  func() error { _, err := wire.DecodeRecord("d", empties(1, 21, n)); return err },
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := try()
		runtime.ReadMemStats(&after)
		if !errors.Is(err, wire.ErrFrame) {
			t.Errorf("%s: %v", name, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > 4<<20 {
			t.Errorf("%s: %d bytes were taken for %d", name, took, 2*n)
		}
	}
}

func TestUnknownIsToldFromMalformed(t *testing.T) {
	newer := protowire.AppendBytes(protowire.AppendTag(nil, 99, protowire.BytesType), []byte("from the future"))
	if _, err := wire.Decode(newer); !errors.Is(err, wire.ErrUnknown) || !errors.Is(err, wire.ErrFrame) {
		t.Errorf("a message of the future: %v", err)
	}
	if _, err := wire.DecodeRecord("d", newer); !errors.Is(err, wire.ErrUnknown) {
		t.Errorf("a record of the future: %v", err)
	}
	if _, err := wire.Decode([]byte("garbage")); errors.Is(err, wire.ErrUnknown) {
		t.Error("garbage counts as a message of the future")
	}
	// A field of the future within a message that is known.
	b, err := wire.Encode(&wire.Ack{Epoch: 1, ID: 2})
	if err != nil {
		t.Fatal(err)
	}
	ack := append([]byte{b[0], b[1] + byte(len(newer))}, append(b[2:], newer...)...)
	if m, err := wire.Decode(ack); err != nil || *m.(*wire.Ack) != (wire.Ack{Epoch: 1, ID: 2}) {
		t.Errorf("an ack with a new field: %+v, %v", m, err)
	}
}

func TestCommandsAreAListOfTheirOwn(t *testing.T) {
	for name, want := range map[string]bool{wire.CommandPing: true, wire.CommandRenew: true, wire.CommandResyncPolicy: true, wire.CommandUpgrade: true, "": false, "sh": false} {
		if got := wire.KnownCommand(name); got != want {
			t.Errorf("command %q: %v", name, got)
		}
	}
}
