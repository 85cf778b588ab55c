package quarantine

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"komainu/fault"
	"komainu/finding"
)

func openHistory(t testing.TB, file string, l HistoryLimits) *History {
	t.Helper()
	h, err := OpenHistory(file, l)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func threat(id string, at time.Time) Threat {
	return Threat{ID: finding.ID(id), Name: "Test:Any/Sample", Type: "test", Severity: finding.Low, State: finding.Detected, Time: at}
}

func TestHistory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "history")
	h := openHistory(t, file, HistoryLimits{})
	now := time.Now().UTC()
	for i := range 3 {
		if err := h.Add(threat(fmt.Sprint(i), now.Add(time.Duration(i)*time.Second))); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.SetState("1", finding.Quarantined, "because"); err != nil {
		t.Fatal(err)
	}
	if err := h.SetState("none", finding.Removed, ""); !fault.Is(err, fault.NotFound) {
		t.Errorf("%v", err)
	}
	for _, h := range []*History{h, openHistory(t, file, HistoryLimits{})} {
		list := h.List()
		if len(list) != 3 || list[0].ID != "2" || list[2].ID != "0" {
			t.Errorf("newest first: %+v", list)
		}
		if got, ok := h.Get("1"); !ok || got.State != finding.Quarantined || got.Reason != "because" || got.Severity != finding.Low {
			t.Errorf("%+v", got)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// TestDamagedHistory: what can be read is kept, what cannot is counted.
func TestDamagedHistory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "history")
	h := openHistory(t, file, HistoryLimits{})
	for i := range 2 {
		if err := h.Add(threat(fmt.Sprint(i), time.Now())); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	first, second, _ := strings.Cut(string(text), "\n")
	damaged := first + "\nnonsense\n" + strings.Repeat("x", 2*maxLine) + "\n" + second + `{"id":"cut off`
	if err := os.WriteFile(file, []byte(damaged), 0o600); err != nil {
		t.Fatal(err)
	}
	h = openHistory(t, file, HistoryLimits{})
	if len(h.List()) != 2 || h.Damaged() != 3 {
		t.Errorf("%v, %d damaged", h.List(), h.Damaged())
	}
	if err := h.Add(threat("after", time.Now())); err != nil {
		t.Fatal(err)
	}
	if h = openHistory(t, file, HistoryLimits{}); len(h.List()) != 3 || h.Damaged() != 0 {
		t.Errorf("%v, %d damaged", h.List(), h.Damaged())
	}
}

func TestHistoryIsBounded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "history")
	h := openHistory(t, file, HistoryLimits{Items: 10, Age: time.Hour})
	now := time.Now()
	if err := h.Add(threat("old", now.Add(-2*time.Hour))); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := h.Add(threat(fmt.Sprint(i), now.Add(time.Duration(i)*time.Millisecond))); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			if err := h.SetState(finding.ID(fmt.Sprint(i)), finding.Blocked, ""); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(h.List()); n > 11 {
			t.Fatalf("%d entries", n)
		}
		if text, _ := os.ReadFile(file); strings.Count(string(text), "\n") > 21 {
			t.Fatalf("%d lines", strings.Count(string(text), "\n"))
		}
	}
	if _, ok := h.Get("99"); !ok {
		t.Error("the newest is gone")
	}
	if _, ok := openHistory(t, file, HistoryLimits{Items: 10, Age: time.Hour}).Get("old"); ok {
		t.Error("what is too old is kept")
	}
}

func FuzzHistory(f *testing.F) {
	f.Add([]byte(`{"id":"a","severity":"Low","time":"2026-01-01T00:00:00Z"}` + "\n" + `{"id":`))
	f.Add([]byte("\n\n\x00\n{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		file := filepath.Join(t.TempDir(), "history")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		before := openHistory(t, file, HistoryLimits{Items: 5}).List()
		h := openHistory(t, file, HistoryLimits{Items: 5})
		if len(h.List()) != len(before) || len(before) > 5 || h.Damaged() != 0 {
			t.Errorf("%v, then %v, %d damaged", before, h.List(), h.Damaged())
		}
	})
}
