package content

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"komainu/fault"
)

// removedFile remembers what somebody has removed: the folder that the
// repository is filled from at each start may have it still. It is neither
// signed nor served.
const removedFile = "removed.json"

// removal is a package that was removed.
type removal struct {
	SHA256    string    `json:"sha256"`
	RemovedAt time.Time `json:"removedAt"`
}

// removed returns what was removed and has not come back, by target.
func (r *Repository) removed() (map[string]removal, error) {
	list := map[string]removal{}
	text, err := r.dir.ReadFile(removedFile)
	if errors.Is(err, fs.ErrNotExist) {
		return list, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &list); err != nil || list == nil {
		return nil, fault.Wrap(fault.Invalid, err, "%s is damaged, so that it is not known which packages were removed; delete it, and remove again what is not to be offered", filepath.Join(r.cfg.Dir, removedFile))
	}
	return list, nil
}

func (r *Repository) putRemoved(list map[string]removal) error {
	text, err := json.MarshalIndent(list, "", "\t")
	if err != nil {
		return err
	}
	return r.write(removedFile, text)
}

// remember notes what is about to be removed, and returns how to take that
// back. What was noted before is lost when it cannot be read: that must not
// keep anybody from removing a version that does harm.
func (r *Repository) remember(gone []Package) (undo func(), err error) {
	before, err := r.removed()
	if fault.Is(err, fault.Invalid) {
		r.cfg.Log.Error("what was removed before is forgotten", "error", err)
		before = map[string]removal{}
	} else if err != nil {
		return nil, err
	}
	after := map[string]removal{}
	maps.Copy(after, before)
	for _, p := range gone {
		after[p.Target] = removal{p.SHA256, r.now()}
	}
	return func() {
		if err := r.putRemoved(before); err != nil {
			r.cfg.Log.Warn("a removal that failed could not be forgotten", "error", err)
		}
	}, r.putRemoved(after)
}

// tookBack forgets that packages were removed: somebody has added them.
func (r *Repository) tookBack(staged []*Staged) {
	list, err := r.removed()
	known := len(list)
	for _, s := range staged {
		delete(list, s.Target)
	}
	if err == nil && len(list) < known {
		err = r.putRemoved(list)
	}
	if err != nil {
		r.cfg.Log.Warn("that a package was removed before could not be forgotten; if its file is lost it is not filled in again", "error", err)
	}
}

// leftOut reports whether a file is a package that was removed.
func leftOut(file string, removed map[string]removal) (bool, error) {
	p, _ := Describe(file)
	was, ok := removed[p.Target]
	if !ok {
		return false, nil
	}
	sum, err := sumOf(os.Open(file))
	return sum == was.SHA256, err
}
