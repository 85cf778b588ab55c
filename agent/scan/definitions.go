package scan

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"komainu/content/definitions"
	"komainu/fault"
	"komainu/finding"
)

// Definitions is what the engine looks for. It is immutable.
//
// The text is made of lines. The first four are fixed:
//
//	komainu-definitions 1
//	version 1.0.20261123.1
//	updated 2026-11-23T00:00:00Z
//	count 3
//
// Then come count signatures; empty lines and those that begin with # are
// skipped. Bytes are hexadecimal, so that no scanner finds the definitions
// themselves.
//
//	hash SHA256 NAME       the file is exactly this
//	whole BYTES MAX NAME   the file is these bytes, and then white space, up to MAX bytes in all
//	find BYTES NAME        the file holds these bytes somewhere; 11 to 256 of them
type Definitions struct {
	version string
	updated time.Time
	count   int
	hashes  map[[32]byte]finding.ThreatName
	wholes  []whole
	finds   literals
}

// whole is a signature of a complete small file.
type whole struct {
	bytes []byte
	max   int64
	name  finding.ThreatName
}

// Bounds of the format. They keep a damaged or hostile file from taking more
// memory than definitions may have.
const (
	formatLine    = "komainu-definitions 1"
	maxLine       = 4096
	maxSignatures = 1 << 20
	maxWhole      = 512 // longest file that a whole signature describes
)

// Version returns the version, "1.0.20261123.1".
func (d *Definitions) Version() string { return d.version }

// Updated returns when the definitions were made.
func (d *Definitions) Updated() time.Time { return d.updated }

// Count returns the number of signatures.
func (d *Definitions) Count() int { return d.count }

// Embedded returns the definitions that the agent was built with.
var Embedded = sync.OnceValue(func() *Definitions {
	d, err := ReadDefinitions(bytes.NewReader(definitions.Base))
	if err != nil {
		panic("embedded definitions: " + err.Error()) // the build is broken; a test reads them
	}
	return d
})

// ReadDefinitions reads definitions. They are taken whole or not at all; the
// error names the line and has the kind Invalid, or Unsupported for a format
// of a newer version.
func ReadDefinitions(r io.Reader) (*Definitions, error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, maxLine), maxLine)
	p := parser{d: &Definitions{hashes: map[[32]byte]finding.ThreatName{}}}
	n := 0
	for lines.Scan() {
		n++
		if err := p.line(n, lines.Text()); err != nil {
			return nil, fault.New(fault.KindOf(err), "definitions, line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fault.New(fault.Invalid, "definitions, line %d: %w", n+1, err)
	}
	if p.seen != p.d.count || n < 4 {
		return nil, fault.New(fault.Invalid, "definitions: %d signatures, the head promises %d; the file is cut or damaged", p.seen, p.d.count)
	}
	p.d.finds.build()
	return p.d, nil
}

type parser struct {
	d    *Definitions
	seen int
}

func (p *parser) line(n int, text string) error {
	var err error
	switch n {
	case 1:
		if strings.HasPrefix(text, "komainu-definitions ") && text != formatLine {
			return fault.New(fault.Unsupported, "format %q: this agent reads %q; update the agent", text, formatLine)
		}
		if text != formatLine {
			return fault.New(fault.Invalid, "want %q", formatLine)
		}
	case 2:
		p.d.version, err = headValue(text, "version")
		if err == nil && !versionShape.MatchString(p.d.version) {
			err = fault.New(fault.Invalid, "version %q: want numbers with dots", p.d.version)
		}
		return err
	case 3:
		value, err := headValue(text, "updated")
		if err != nil {
			return err
		}
		if p.d.updated, err = time.Parse(time.RFC3339, value); err != nil {
			return fault.New(fault.Invalid, "updated: %w", err)
		}
	case 4:
		value, err := headValue(text, "count")
		if err != nil {
			return err
		}
		if p.d.count, err = strconv.Atoi(value); err != nil || p.d.count < 0 || p.d.count > maxSignatures {
			return fault.New(fault.Invalid, "count %q: want 0 to %d", value, maxSignatures)
		}
	default:
		if text == "" || text[0] == '#' {
			return nil
		}
		if p.seen++; p.seen > p.d.count {
			return fault.New(fault.Invalid, "more signatures than the %d of the head", p.d.count)
		}
		return p.signature(strings.Split(text, " "))
	}
	return nil
}

func headValue(text, key string) (string, error) {
	value, ok := strings.CutPrefix(text, key+" ")
	if !ok || value == "" {
		return "", fault.New(fault.Invalid, "want %q and a value", key)
	}
	return value, nil
}

var (
	versionShape = regexp.MustCompile(`^[0-9]{1,10}(\.[0-9]{1,10}){1,5}$`)
	// nameShape is CARO: Type:Platform/Family, then variants and a suffix.
	nameShape = regexp.MustCompile(`^[A-Z][A-Za-z]{1,31}:[A-Za-z0-9]{1,31}/[A-Za-z0-9_.!-]{1,95}$`)
)

func (p *parser) signature(fields []string) error {
	if len(fields) < 3 || len(fields) != map[string]int{"hash": 3, "whole": 4, "find": 3}[fields[0]] {
		return fault.New(fault.Invalid, "%q with %d fields is not a signature", fields[0], len(fields))
	}
	name := fields[len(fields)-1]
	if !nameShape.MatchString(name) {
		return fault.New(fault.Invalid, "name %q: want Type:Platform/Family", name)
	}
	text, err := hex.DecodeString(fields[1])
	if err != nil {
		return fault.New(fault.Invalid, "bytes: %w", err)
	}
	switch threat := finding.ThreatName(name); fields[0] {
	case "hash":
		if len(text) != 32 {
			return fault.New(fault.Invalid, "a SHA-256 has 32 bytes, this has %d", len(text))
		}
		p.d.hashes[[32]byte(text)] = threat
	case "whole":
		limit, err := strconv.Atoi(fields[2])
		if err != nil || limit < len(text) || limit > maxWhole || len(text) == 0 {
			return fault.New(fault.Invalid, "length %q: want %d to %d", fields[2], max(1, len(text)), maxWhole)
		}
		p.d.wholes = append(p.d.wholes, whole{bytes: text, max: int64(limit), name: threat})
	case "find":
		return p.d.finds.add(text, threat)
	}
	return nil
}

// threatType returns the first part of a CARO name in lower case.
func threatType(name finding.ThreatName) finding.ThreatType {
	typ, _, _ := strings.Cut(string(name), ":")
	return finding.ThreatType(strings.ToLower(typ))
}

// matchHash looks the file up by its SHA-256.
func (d *Definitions) matchHash(sum [32]byte) (finding.ThreatName, bool) {
	name, ok := d.hashes[sum]
	return name, ok
}

// matchWhole compares small files: head holds their first bytes, all of them
// when size is at most maxWhole.
func (d *Definitions) matchWhole(head []byte, size int64) (finding.ThreatName, bool) {
	for _, w := range d.wholes {
		if size <= w.max && bytes.HasPrefix(head, w.bytes) && blank(head[len(w.bytes):]) {
			return w.name, true
		}
	}
	return "", false
}

// blank reports whether text is only what the EICAR standard lets follow:
// space, tab, line ends and Ctrl-Z, which closed text files once.
func blank(text []byte) bool {
	return len(bytes.Trim(text, " \t\r\n\x1a")) == 0
}

// String names the definitions for logs.
func (d *Definitions) String() string {
	return fmt.Sprintf("%s (%d signatures, %s)", d.version, d.count, d.updated.Format(time.DateOnly))
}
