package duckdb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unicode/utf8"
	"unsafe"

	driver "github.com/duckdb/duckdb-go/v2"
	"github.com/duckdb/duckdb-go/v2/mapping"
)

// writer is the one connection that writes. It speaks the engine's C interface
// rather than database/sql, because that hands over whole chunks of columns:
// a value costs a copy, not a call. See DESIGN.md for the numbers.
type writer struct {
	db   mapping.Database
	conn mapping.Connection
}

// openWriter joins the database that a driver.Connector has open under the
// same name with the same settings.
func openWriter(path string, settings map[string]string) (*writer, error) {
	var config mapping.Config
	if mapping.CreateConfig(&config) == mapping.StateError {
		return nil, errors.New("make a configuration")
	}
	defer mapping.DestroyConfig(&config)
	for name, value := range settings {
		if mapping.SetConfig(config, name, value) == mapping.StateError {
			return nil, fmt.Errorf("set %s to %s", name, value)
		}
	}
	w := &writer{}
	var message string
	if mapping.GetOrCreateFromCache(driver.GetInstanceCache(), path, &w.db, config, &message) == mapping.StateError {
		return nil, errors.New(message)
	}
	if mapping.Connect(w.db, &w.conn) == mapping.StateError {
		mapping.Close(&w.db)
		return nil, errors.New("connect")
	}
	return w, nil
}

// exec runs statements that return nothing.
func (w *writer) exec(query string) error {
	var result mapping.Result
	defer mapping.DestroyResult(&result)
	if mapping.Query(w.conn, query, &result) == mapping.StateError {
		return errors.New(mapping.ResultError(&result))
	}
	return nil
}

func (w *writer) close() {
	mapping.Disconnect(&w.conn)
	mapping.Close(&w.db)
}

// kind is how a column is laid out in memory.
type kind struct {
	sql string
	id  mapping.Type
}

var (
	kindText = kind{"VARCHAR", mapping.TypeVarchar}
	kindBlob = kind{"BLOB", mapping.TypeBlob}
	kindTime = kind{"TIMESTAMP_NS", mapping.TypeTimestampNS}
	kindI64  = kind{"BIGINT", mapping.TypeBigInt}
	kindU64  = kind{"UBIGINT", mapping.TypeUBigInt}
	kindU32  = kind{"UINTEGER", mapping.TypeUInteger}
	kindU16  = kind{"USMALLINT", mapping.TypeUSmallInt}
)

// chunkRows is how many rows the engine takes at once.
const chunkRows = 2048

// maxArena bounds the text of one chunk: records can be large.
const maxArena = 8 << 20

// chunk is a block of rows on their way into a table, laid out by column.
type chunk struct {
	appender mapping.Appender
	chunk    mapping.DataChunk
	columns  []vector
	arena    arena
	rows     int
}

// vector is a column of a chunk: the engine's own memory.
type vector struct {
	data  unsafe.Pointer
	valid *[chunkRows / 64]uint64 // a bit per row; 0 is NULL
}

// openChunk starts appending to a table. What it holds goes into the
// transaction that the writer has open when flush is called.
func (w *writer) openChunk(table string, kinds []kind) (*chunk, error) {
	c := &chunk{columns: make([]vector, len(kinds))}
	if mapping.AppenderCreateExt(w.conn, "", "", table, &c.appender) == mapping.StateError {
		err := fmt.Errorf("append to %s: %s", table, mapping.AppenderError(c.appender))
		mapping.AppenderDestroy(&c.appender)
		return nil, err
	}
	types := make([]mapping.LogicalType, len(kinds))
	for i, k := range kinds {
		types[i] = mapping.CreateLogicalType(k.id)
		defer mapping.DestroyLogicalType(&types[i])
	}
	c.chunk = mapping.CreateDataChunk(types)
	c.reset()
	return c, nil
}

// reset makes the chunk empty. The engine may have given its vectors other
// memory.
func (c *chunk) reset() {
	mapping.DataChunkReset(c.chunk)
	for i := range c.columns {
		v := mapping.DataChunkGetVector(c.chunk, mapping.IdxT(i))
		mapping.VectorEnsureValidityWritable(v)
		c.columns[i] = vector{
			data:  mapping.VectorGetData(v),
			valid: (*[chunkRows / 64]uint64)(mapping.VectorGetValidity(v)),
		}
		for k := range c.columns[i].valid {
			c.columns[i].valid[k] = ^uint64(0)
		}
	}
	c.arena.reset()
	c.rows = 0
}

// push hands the rows so far to the engine, which copies them.
func (c *chunk) push() error {
	if c.rows == 0 {
		return nil
	}
	mapping.DataChunkSetSize(c.chunk, mapping.IdxT(c.rows))
	if mapping.AppendDataChunk(c.appender, c.chunk) == mapping.StateError {
		return errors.New(mapping.AppenderError(c.appender))
	}
	c.reset()
	return nil
}

// flush moves everything into the open transaction.
func (c *chunk) flush() error {
	if err := c.push(); err != nil {
		return err
	}
	if mapping.AppenderFlush(c.appender) == mapping.StateError {
		return errors.New(mapping.AppenderError(c.appender))
	}
	return nil
}

// close forgets what was not flushed.
func (c *chunk) close() {
	mapping.AppenderClear(c.appender)
	mapping.AppenderDestroy(&c.appender)
	mapping.DestroyDataChunk(&c.chunk)
	c.arena.free()
}

func (v vector) null(row int) { v.valid[row/64] &^= 1 << (row % 64) }

// set writes a number in the width of the column.
func set[T int64 | uint64 | uint32 | uint16](v vector, row int, n T) {
	*(*T)(unsafe.Add(v.data, uintptr(row)*unsafe.Sizeof(n))) = n
}

// inline is how long a string can be to lie within its 16 bytes.
const inline = 12

// text writes a string, NULL for an empty one. What is not UTF-8, which the
// engine must never see, is replaced.
func (c *chunk) text(v vector, row int, s string) {
	if s == "" {
		v.null(row)
		return
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "�")
	}
	c.bytes(v, row, unsafe.Slice(unsafe.StringData(s), len(s)))
}

// bytes writes a value in the layout of duckdb_string_t: the length, then
// either the bytes themselves, padded with zeros, or the first four of them
// and the address of all.
func (c *chunk) bytes(v vector, row int, b []byte) {
	cell := (*[16]byte)(unsafe.Add(v.data, row*16))
	*cell = [16]byte{}
	binary.NativeEndian.PutUint32(cell[:4], uint32(len(b)))
	if len(b) <= inline {
		copy(cell[4:], b)
		return
	}
	copy(cell[4:8], b)
	*(*uintptr)(unsafe.Pointer(&cell[8])) = c.arena.put(b)
}

// arena holds the long values of a chunk until the engine has copied them.
// Its blocks are pinned, so that their addresses may lie in the engine's
// memory, and are used again by the next chunk.
type arena struct {
	blocks [][]byte
	at     int // the block that is being filled
	used   int // bytes in all
	pins   runtime.Pinner
}

const arenaBlock = 256 << 10

// put copies b and returns the address of the copy.
func (a *arena) put(b []byte) uintptr {
	for a.at < len(a.blocks) && cap(a.blocks[a.at])-len(a.blocks[a.at]) < len(b) {
		a.at++
	}
	if a.at == len(a.blocks) {
		block := make([]byte, 0, max(arenaBlock, len(b)))
		a.pins.Pin(unsafe.SliceData(block))
		a.blocks = append(a.blocks, block)
	}
	block := &a.blocks[a.at]
	start := len(*block)
	*block = append(*block, b...)
	a.used += len(b)
	return uintptr(unsafe.Pointer(&(*block)[start]))
}

// reset makes the arena empty and keeps a usual chunk's worth of blocks.
func (a *arena) reset() {
	const keep = maxArena / arenaBlock
	if len(a.blocks) > keep {
		a.free()
	}
	for i := range a.blocks {
		a.blocks[i] = a.blocks[i][:0]
	}
	a.at, a.used = 0, 0
}

func (a *arena) free() {
	a.pins.Unpin()
	a.blocks, a.at, a.used = nil, 0, 0
}
