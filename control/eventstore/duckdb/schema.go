package duckdb

import (
	"fmt"
	"strings"

	"komainu/control/eventstore"
)

// format numbers the schema; a file with another number is refused, and left
// as it is for the version that knows it.
const format = 1

// Names of the tables.
const (
	eventsTable = "events"
	rangesTable = "ranges"
	lossesTable = "losses"
)

// prepared is an entry on its way into the columns.
type prepared struct {
	entry    *eventstore.Entry
	row      eventstore.Row
	nanos    int64
	received int64
}

// column is one column of the events table: how it is declared and where its
// value comes from. Exactly one of the functions is set.
type column struct {
	name string
	kind kind
	// always says that an empty value is a value: part of the identity.
	always bool
	text   func(*prepared) string
	blob   func(*prepared) []byte
	num    func(*prepared) uint64
}

func text(name string, f func(*prepared) string) column {
	return column{name: name, kind: kindText, text: f}
}

func num(name string, k kind, f func(*prepared) uint64) column {
	return column{name: name, kind: k, num: f}
}

func identity(c column) column {
	c.always = true
	return c
}

// columns is the events table. The names are those of the hunting columns in
// snake case, shortened where they are long.
var columns = []column{
	identity(num("ts", kindTime, func(p *prepared) uint64 { return uint64(p.nanos) })),
	identity(num("received", kindTime, func(p *prepared) uint64 { return uint64(p.received) })),
	text("organization", func(p *prepared) string { return p.entry.Organization }),
	text("device", func(p *prepared) string { return string(p.entry.Event.ID.Device) }),
	identity(num("epoch", kindU64, func(p *prepared) uint64 { return uint64(p.entry.Event.ID.Epoch) })),
	text("source", func(p *prepared) string { return string(p.entry.Event.ID.Source) }),
	identity(num("seq", kindU64, func(p *prepared) uint64 { return p.entry.Event.ID.Seq })),
	text("action", func(p *prepared) string { return p.row.Action }),
	text("hunting_table", func(p *prepared) string { return p.row.Table }),

	text("process_boot", func(p *prepared) string { return p.row.Boot }),
	num("process_pid", kindU32, func(p *prepared) uint64 { return uint64(p.row.PID) }),
	num("process_start", kindU64, func(p *prepared) uint64 { return p.row.Start }),
	text("process_path", func(p *prepared) string { return p.row.Path }),
	text("process_name", func(p *prepared) string { return p.row.Name }),
	text("process_cmdline", func(p *prepared) string { return p.row.Cmdline }),
	text("process_sha256", func(p *prepared) string { return p.row.SHA256 }),
	text("process_user", func(p *prepared) string { return p.row.User }),

	text("initiating_boot", func(p *prepared) string { return p.row.InitBoot }),
	num("initiating_pid", kindU32, func(p *prepared) uint64 { return uint64(p.row.InitPID) }),
	num("initiating_start", kindU64, func(p *prepared) uint64 { return p.row.InitStart }),
	text("initiating_path", func(p *prepared) string { return p.row.InitPath }),
	text("initiating_name", func(p *prepared) string { return p.row.InitName }),
	text("initiating_cmdline", func(p *prepared) string { return p.row.InitCmdline }),
	text("initiating_sha256", func(p *prepared) string { return p.row.InitSHA256 }),
	text("initiating_user", func(p *prepared) string { return p.row.InitUser }),
	num("initiating_parent_pid", kindU32, func(p *prepared) uint64 { return uint64(p.row.InitParent) }),

	text("file_path", func(p *prepared) string { return p.row.FilePath }),
	text("file_previous_path", func(p *prepared) string { return p.row.FilePrevious }),
	text("file_sha256", func(p *prepared) string { return p.row.FileSHA256 }),
	num("file_size", kindU64, func(p *prepared) uint64 { return p.row.FileSize }),
	text("sensitive", func(p *prepared) string { return p.row.Sensitive }),

	text("protocol", func(p *prepared) string { return p.row.Protocol }),
	text("local_ip", func(p *prepared) string { return p.row.LocalIP }),
	num("local_port", kindU16, func(p *prepared) uint64 { return uint64(p.row.LocalPort) }),
	text("remote_ip", func(p *prepared) string { return p.row.RemoteIP }),
	num("remote_port", kindU16, func(p *prepared) uint64 { return uint64(p.row.RemotePort) }),
	text("url", func(p *prepared) string { return p.row.URL }),

	text("logon_type", func(p *prepared) string { return p.row.LogonType }),
	text("account", func(p *prepared) string { return p.row.Account }),
	text("object", func(p *prepared) string { return p.row.Object }),
	text("object_path", func(p *prepared) string { return p.row.ObjectPath }),
	text("threat_name", func(p *prepared) string { return p.row.Threat }),
	text("threat_id", func(p *prepared) string { return p.row.ThreatID }),

	{name: "record", kind: kindBlob, always: true, blob: func(p *prepared) []byte { return p.entry.Record }},
}

// textColumns are the columns of eventstore.Row.Texts.
var textColumns = []string{
	"process_path", "process_name", "process_cmdline", "process_sha256", "process_user",
	"initiating_path", "initiating_name", "initiating_cmdline", "initiating_sha256", "initiating_user",
	"file_path", "file_previous_path", "file_sha256",
	"local_ip", "remote_ip", "url", "account", "object", "object_path", "threat_name", "action",
}

var (
	eventKinds = func() (kinds []kind) {
		for _, c := range columns {
			kinds = append(kinds, c.kind)
		}
		return kinds
	}()
	// organization, device, epoch, source, first, last, stored, from, to, received
	rangeKinds = []kind{kindText, kindText, kindU64, kindText, kindU64, kindU64, kindU64, kindI64, kindI64, kindI64}
	// organization, device, epoch, source, where, count, received
	lossKinds = []kind{kindText, kindText, kindU64, kindText, kindText, kindU64, kindI64}
)

// schema returns the statements that make an empty database.
func schema() string {
	var b strings.Builder
	fmt.Fprintf(&b, "CREATE TABLE meta (format INTEGER NOT NULL);\nINSERT INTO meta VALUES (%d);\n", format)
	fmt.Fprintf(&b, "CREATE TABLE %s (", eventsTable)
	for i, c := range columns {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %s", c.name, c.kind.sql)
		if c.kind == kindBlob {
			// Neighbouring records are much alike; this compresses them
			// together.
			b.WriteString(" USING COMPRESSION zstd")
		}
	}
	b.WriteString(");\n")
	fmt.Fprintf(&b, "CREATE TABLE %s (organization VARCHAR, device VARCHAR, epoch UBIGINT, source VARCHAR, first_seq UBIGINT, last_seq UBIGINT, stored UBIGINT, from_ns BIGINT, to_ns BIGINT, received_ns BIGINT);\n", rangesTable)
	fmt.Fprintf(&b, "CREATE TABLE %s (organization VARCHAR, device VARCHAR, epoch UBIGINT, source VARCHAR, place VARCHAR, lost UBIGINT, received_ns BIGINT);\n", lossesTable)
	return b.String()
}
