package agent

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"strings"

	"komainu/agent/link"
	"komainu/fault"
)

// Where a machine says which one it is: the first is what an image carries
// along unless somebody clears it, the second comes from whoever runs the
// machine.
const (
	machineIDFile = "/etc/machine-id"
	productFile   = "/sys/class/dmi/id/product_uuid"
)

// fingerprint tells machines apart. Each part is a keyed hash, "" where this
// host does not say.
type fingerprint struct{ machine, product string }

func (f fingerprint) String() string {
	if f.machine == "" && f.product == "" {
		return ""
	}
	return f.machine + ":" + f.product
}

func parseFingerprint(s string) (f fingerprint) {
	f.machine, f.product, _ = strings.Cut(s, ":")
	return f
}

// another reports whether two fingerprints are of two machines. What one of
// them does not say decides nothing.
func (f fingerprint) another(g fingerprint) bool {
	differ := func(a, b string) bool { return a != "" && b != "" && a != b }
	return differ(f.machine, g.machine) || differ(f.product, g.product)
}

func thisMachine() fingerprint {
	return fingerprintOf(firstLine(machineIDFile), firstLine(productFile))
}

func fingerprintOf(machine, product string) fingerprint {
	hash := func(what, s string) string {
		if s == "" {
			return ""
		}
		mac := hmac.New(sha256.New, []byte("komainu "+what))
		mac.Write([]byte(strings.ToLower(s)))
		return hex.EncodeToString(mac.Sum(nil)[:16])
	}
	return fingerprint{hash("machine fingerprint", machine), hash("product fingerprint", product)}
}

// image is what a golden image says of itself: deploy/script/host.sh leaves the
// two ids of the machine that it was prepared on.
func imageOf(text string) fingerprint {
	machine, product, _ := strings.Cut(text, "\n")
	return fingerprintOf(strings.TrimSpace(machine), strings.TrimSpace(product))
}

// isImage reports whether this is the machine that a golden image was prepared
// on, and not a copy of it. A marker without ids says nothing: the image was
// prepared with a stopped agent, and whoever starts is taken for a copy.
func isImage(file string, here fingerprint) (bool, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	was := imageOf(string(text))
	return was.String() != "" && !was.another(here), nil
}

// tellCopy looks whether the identity in the state folder was given to this
// machine. One that was given to another is put away: two with one identity
// would push each other off the control plane for ever. It returns the identity
// that was put away, also by an earlier start as long as there is no other one,
// and whether that was done now.
func tellCopy(dir string, here fingerprint) (was *link.Identity, now bool, err error) {
	id, err := link.Load(dir)
	if fault.Is(err, fault.NotFound) {
		if id, err = link.Away(dir); err == nil {
			return &id, false, nil
		}
	}
	if err != nil {
		return nil, false, nil // there is none, or none that can be used
	}
	if id.Machine == "" {
		return nil, false, id.Claim(dir, here.String()) // of a version that did not note it
	}
	if !parseFingerprint(id.Machine).another(here) {
		return nil, false, nil
	}
	return &id, true, link.PutAway(dir)
}
