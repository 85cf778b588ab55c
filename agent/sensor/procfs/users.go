package procfs

import (
	"bufio"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Account is a line of the passwd file.
type Account struct {
	Name string
	UID  uint32
	Home string
}

// Users names user ids by a passwd file, which it reads again when that
// changed. Accounts of other name services have no name.
type Users struct {
	file string

	mu      sync.Mutex
	checked time.Time
	changed time.Time
	names   map[uint32]string
}

// recheck is how often the passwd file's time is looked at.
const recheck = 5 * time.Second

// NewUsers returns the accounts of a passwd file.
func NewUsers(file string) *Users { return &Users{file: file} }

// Name returns the name of a user id, "" if it has none.
func (u *Users) Name(uid uint32) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	if now := time.Now(); now.Sub(u.checked) > recheck {
		u.checked = now
		u.refresh()
	}
	return u.names[uid]
}

func (u *Users) refresh() {
	info, err := os.Stat(u.file)
	if err != nil || info.ModTime().Equal(u.changed) && u.names != nil {
		return
	}
	u.changed = info.ModTime()
	u.names = map[uint32]string{}
	for _, a := range u.Accounts() {
		if _, ok := u.names[a.UID]; !ok { // the first line of an id names it
			u.names[a.UID] = a.Name
		}
	}
}

// Accounts reads the passwd file. Lines that are not understood are left out.
func (u *Users) Accounts() []Account {
	file, err := os.Open(u.file)
	if err != nil {
		return nil
	}
	defer file.Close()
	var all []Account
	lines := bufio.NewScanner(file)
	for lines.Scan() && len(all) < 100_000 {
		if a, ok := parseAccount(lines.Text()); ok {
			all = append(all, a)
		}
	}
	return all
}

func parseAccount(line string) (Account, bool) {
	fields := strings.Split(line, ":")
	if len(fields) < 6 || fields[0] == "" {
		return Account{}, false
	}
	uid, err := strconv.ParseUint(fields[2], 10, 32)
	if err != nil {
		return Account{}, false
	}
	return Account{Name: fields[0], UID: uint32(uid), Home: fields[5]}, true
}
