package access

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"komainu/fault"
)

func TestAGuessedNameIsLockedForStrangers(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, name := range []string{"admin", "nobody-of-this-name"} {
		l := newLimiter(func() time.Time { return now })
		l.succeeded(name, "10.0.0.1")
		for i := range freeByAccount {
			address := fmt.Sprintf("192.0.2.%d", i)
			if err := l.check(name, address); err != nil {
				t.Fatalf("guess %d: %v", i, err)
			}
			l.failed(strings.ToUpper(name), address) // the same name to the database
		}
		err := l.check(name, "198.51.100.7")
		if !fault.Is(err, fault.Exhausted) || !strings.Contains(err.Error(), "for this name; try again in 15s, or ask an administrator") {
			t.Errorf("%s from a new address: %v", name, err)
		}
		if err := l.check(name, "10.0.0.1"); err != nil {
			t.Errorf("%s from where its user is: %v", name, err)
		}
		if err := l.check("somebody-else", "198.51.100.7"); err != nil {
			t.Errorf("another name: %v", err)
		}
		l.forgive(name)
		if err := l.check(name, "198.51.100.7"); err != nil {
			t.Errorf("%s when it was unlocked: %v", name, err)
		}
	}
	l := newLimiter(func() time.Time { return now })
	for i := range freeByAddress {
		l.failed(fmt.Sprint("name", i), "192.0.2.1")
	}
	if err := l.check("another", "192.0.2.1"); !fault.Is(err, fault.Exhausted) {
		t.Errorf("many names from one address: %v", err)
	}
}
