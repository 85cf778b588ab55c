package duckdb_test

import (
	"log/slog"
	"testing"

	"komainu/control/eventstore"
	"komainu/control/eventstore/duckdb"
	"komainu/control/eventstore/eventstoretest"
)

// open opens a store with little memory, so that tests notice what needs much.
func open(t testing.TB, dir string, decode eventstore.Decode) eventstore.Store {
	t.Helper()
	s, err := duckdb.Open(t.Context(), duckdb.Config{
		Dir: dir, Decode: decode, Memory: 256 << 20, Threads: 1, MinFree: -1,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	return s
}

func TestStore(t *testing.T) { eventstoretest.Run(t, open) }
