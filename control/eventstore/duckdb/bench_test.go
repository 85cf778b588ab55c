package duckdb_test

import (
	"context"
	"database/sql"
	sqldriver "database/sql/driver"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	driver "github.com/duckdb/duckdb-go/v2"

	"komainu/control/eventstore"
	"komainu/control/eventstore/duckdb"
	"komainu/event"
	"komainu/wire"
)

// The benchmark's size, and what one Append holds while a backlog is worked
// off: 64 batches of the queue.
const (
	benchEvents = 400_000
	benchBatch  = 16_000
)

// fleet makes events as a fleet of servers sends them: 200 devices, a few
// hundred programs with a long tail, paths and addresses that repeat and some
// that do not.
type fleet struct {
	r        *rand.Rand
	zipf     *rand.Zipf
	programs []*event.Process
	seq      map[event.ID]uint64
	at       time.Time
}

func newFleet() *fleet {
	f := &fleet{r: rand.New(rand.NewPCG(1, 2)), seq: map[event.ID]uint64{}, at: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	f.zipf = rand.NewZipf(f.r, 1.2, 3, 399)
	for i := range 400 {
		path := fmt.Sprintf("/usr/%s/program-%d", []string{"bin", "sbin", "lib/systemd", "local/bin"}[i%4], i)
		f.programs = append(f.programs, &event.Process{
			Path: path, Name: filepath.Base(path), Cwd: "/var/lib/service",
			Image: &event.File{Path: path, Size: int64(f.r.IntN(1 << 22)), Mode: 0o100755, Inode: uint64(f.r.IntN(1 << 20)), Hashes: event.Hashes{SHA256: f.hash()}},
		})
	}
	return f
}

func (f *fleet) hash() string {
	return fmt.Sprintf("%016x%016x%016x%016x", f.r.Uint64(), f.r.Uint64(), f.r.Uint64(), f.r.Uint64())
}

func (f *fleet) process(device int) *event.Process {
	p := *f.programs[f.zipf.Uint64()]
	pid := uint32(f.r.IntN(40_000) + 300)
	user := []string{"root", "www-data", "postgres", "deploy"}[f.r.IntN(4)]
	boot := event.BootID(fmt.Sprintf("7d0b3c52-6f3e-4a0b-9a6e-%012d", device))
	p.Key = event.ProcessKey{Boot: boot, PID: event.PID(pid), Start: uint64(pid) * 7_919_000_123}
	p.Parent = event.ProcessKey{Boot: boot, PID: event.PID(pid / 3), Start: uint64(pid/3) * 7_919_000_123}
	p.User = event.User{UID: uint32(len(user)), EUID: uint32(len(user)), Name: user}
	p.Args = []string{p.Path, "--config", "/etc/service/main.yaml"}
	if f.r.IntN(3) == 0 {
		p.Args = append(p.Args, fmt.Sprintf("--id=%x", f.r.Uint32()))
	}
	p.Started = f.at.Add(-time.Duration(pid) * time.Second)
	return &p
}

func (f *fleet) next() *event.Event {
	device := f.r.IntN(200)
	f.at = f.at.Add(time.Duration(f.r.IntN(400_000)) * time.Nanosecond)
	e := &event.Event{Time: f.at, Initiator: f.process(device)}
	switch x := f.r.IntN(100); {
	case x < 25:
		e.Action, e.Process = event.ProcessCreated, f.process(device)
	case x < 40:
		e.Action, e.Process, e.Initiator = event.ProcessTerminated, f.process(device), nil
	case x < 67:
		e.Action = []event.Action{event.FileCreated, event.FileModified, event.FileDeleted}[f.r.IntN(3)]
		e.File = &event.File{Path: fmt.Sprintf("/var/lib/service/%d/%x.log", f.r.IntN(500), f.r.Uint32()), Size: int64(f.r.IntN(1 << 20)), Inode: f.r.Uint64() >> 40}
	case x < 94:
		e.Action = event.ConnectionSuccess
		e.Network = &event.Network{
			Protocol: "tcp", Direction: event.Outbound, LocalIP: netip.AddrFrom4([4]byte{10, 0, byte(device), 5}), LocalPort: uint16(f.r.IntN(30_000) + 32_000),
			RemoteIP: netip.AddrFrom4([4]byte{198, 51, byte(f.zipf.Uint64()), byte(f.r.IntN(40))}), RemotePort: []uint16{443, 443, 53, 5432}[f.r.IntN(4)],
		}
	default:
		e.Action, e.Initiator = event.LogonSuccess, nil
		e.Logon = &event.Logon{Type: "RemoteInteractive", Protocol: "ssh", RemoteIP: netip.AddrFrom4([4]byte{192, 0, 2, byte(f.r.IntN(200))}), RemotePort: uint16(f.r.IntN(60_000))}
		e.Account = &event.Account{User: event.User{Name: "deploy"}}
	}
	id := event.ID{Device: event.DeviceID(fmt.Sprintf("dev-%016x", device*7919)), Epoch: event.Epoch(device) + 1_770_000_000_000, Source: e.Action.Source()}
	f.seq[id]++
	e.ID = id
	e.ID.Seq = f.seq[id]
	return e
}

func decodeRecord(device event.DeviceID, record []byte) (*event.Event, error) {
	r, err := wire.DecodeRecord(device, record)
	return r.Event, err
}

// cpu is the processor time of this process, the engine's threads included.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func size(b *testing.B, dir string) (n int64) {
	b.Helper()
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				n += info.Size()
			}
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkIngest measures what one core stores in a second, everything
// included until the file is merged and closed, beside the same columns
// through the engine's own row appender without identity, ranges or guarantee
// per batch. `go run ./dev bench ingest` prints its metrics.
func BenchmarkIngest(b *testing.B) {
	f := newFleet()
	var all []benchRecord
	var bytes int
	for range benchEvents {
		e := f.next()
		record, err := wire.EncodeEvent(e)
		if err != nil {
			b.Fatal(err)
		}
		bytes += len(record)
		all = append(all, benchRecord{e.ID.Device, record, f.at})
	}
	for b.Loop() {
		dir := b.TempDir()
		var decode time.Duration
		ours := cpu()
		s, err := duckdb.Open(b.Context(), duckdb.Config{Dir: dir, Decode: decodeRecord, Threads: 1, MinFree: -1, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			b.Fatal(err)
		}
		for batch := range slices.Chunk(all, benchBatch) {
			entries, took := entriesOf(b, batch)
			decode += took
			if _, err := s.Append(b.Context(), entries); err != nil {
				b.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		ours = cpu() - ours
		raw := rawAppend(b, all)

		perCore := func(d time.Duration) float64 { return benchEvents / d.Seconds() }
		b.ReportMetric(perCore(ours-decode), "events_core_s")
		b.ReportMetric(perCore(raw), "raw_events_core_s")
		b.ReportMetric(perCore(ours-decode)/perCore(raw), "raw_ratio")
		b.ReportMetric(perCore(ours), "decoded_events_core_s")
		b.ReportMetric(float64(size(b, dir))/benchEvents, "bytes_event")
		b.ReportMetric(float64(bytes)/benchEvents, "record_bytes_event")
	}
}

// benchRecord is an event as it arrives. The benchmark holds encoded events
// only, so that the collector has as little to look at as in the product.
type benchRecord struct {
	device   event.DeviceID
	record   []byte
	received time.Time
}

// entriesOf decodes a batch and says what processor time that took.
func entriesOf(b *testing.B, batch []benchRecord) ([]eventstore.Entry, time.Duration) {
	b.Helper()
	start := cpu()
	entries := make([]eventstore.Entry, len(batch))
	for i, r := range batch {
		e, err := decodeRecord(r.device, r.record)
		if err != nil {
			b.Fatal(err)
		}
		entries[i] = eventstore.Entry{Organization: "org-1", Event: e, Record: r.record, Received: r.received}
	}
	return entries, cpu() - start
}

// rawAppend stores the same columns through the engine's driver as its manual
// says, in transactions of the same size, and returns the processor time.
func rawAppend(b *testing.B, all []benchRecord) time.Duration {
	var decode time.Duration
	b.Helper()
	dir := b.TempDir()
	start := cpu()
	connector, err := driver.NewConnector(filepath.Join(dir, "raw.duckdb")+"?threads=1&memory_limit=1GB&checkpoint_threshold=128MB&storage_compatibility_version=v1.5.0",
		func(sqldriver.ExecerContext) error { return nil })
	if err != nil {
		b.Fatal(err)
	}
	db := sql.OpenDB(connector)
	conn, err := db.Conn(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	err = conn.Raw(func(c any) error {
		exec := func(query string) {
			if _, err := c.(sqldriver.ExecerContext).ExecContext(context.Background(), query, nil); err != nil {
				b.Fatal(err)
			}
		}
		exec(duckdb.EventsTable())
		appender, err := driver.NewAppenderFromConn(c.(sqldriver.Conn), "", "events")
		if err != nil {
			return err
		}
		for batch := range slices.Chunk(all, benchBatch) {
			entries, took := entriesOf(b, batch)
			decode += took
			exec("BEGIN TRANSACTION")
			for k := range entries {
				if err := appender.AppendRow(duckdb.Values(&entries[k])...); err != nil {
					return err
				}
			}
			if err := appender.Flush(); err != nil {
				return err
			}
			exec("COMMIT")
		}
		return appender.Close()
	})
	if err != nil {
		b.Fatal(err)
	}
	if err := conn.Close(); err != nil {
		b.Fatal(err)
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
	return cpu() - start - decode
}

// BenchmarkTimeline measures what a person waits for: the first page of one
// device out of two hundred, a later page, and a search, over a million
// events.
func BenchmarkTimeline(b *testing.B) {
	s, err := duckdb.Open(b.Context(), duckdb.Config{Dir: b.TempDir(), Decode: decodeRecord, MinFree: -1, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	f := newFleet()
	var device event.DeviceID
	for range 50 {
		var entries []eventstore.Entry
		for range 20_000 {
			e := f.next()
			record, err := wire.EncodeEvent(e)
			if err != nil {
				b.Fatal(err)
			}
			entries, device = append(entries, eventstore.Entry{Organization: "org-1", Event: e, Record: record, Received: f.at}), e.ID.Device
		}
		if _, err := s.Append(b.Context(), entries); err != nil {
			b.Fatal(err)
		}
	}
	first := eventstore.Query{Organization: "org-1", Device: device}
	page, err := s.Timeline(b.Context(), first)
	if err != nil {
		b.Fatal(err)
	}
	later, search := first, first
	later.Cursor = page.Next
	search.Text = "no such text"
	for name, q := range map[string]eventstore.Query{"first_page": first, "later_page": later, "search": search} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := s.Timeline(b.Context(), q); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
