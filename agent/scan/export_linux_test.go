package scan

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Probe puts one restriction on this process, or none for "", and returns
// what is refused then.
func Probe(name string) (string, error) {
	var c Confinement
	for _, needed := range map[string][]string{
		"landlock": {"no_new_privs", "landlock"},
		"seccomp":  {"no_new_privs", "seccomp"},
	}[name] {
		if err := put(needed, &c); err != nil {
			return "", err
		}
	}
	if name != "" && name != "landlock" && name != "seccomp" {
		if err := put(name, &c); err != nil {
			return "", err
		}
	}
	var refused []string
	for _, a := range attempts {
		if err := a.try(); errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			refused = append(refused, a.name)
		}
	}
	return strings.Join(refused, ", "), nil
}

func put(name string, c *Confinement) error {
	i := slices.IndexFunc(steps, func(s step) bool { return s.name == name })
	if i < 0 {
		return fmt.Errorf("no restriction %q", name)
	}
	return steps[i].do(c)
}

// DataLimit is the hard limit of the scanner's memory.
const DataLimit = dataLimit
