package deploy

import (
	"strconv"
	"strings"
	"time"
)

// What a host needs. The agent keeps to 50 MB of memory in peace and 150 MB in
// a storm; its package unpacks to 30 MB, its spool and quarantine grow later.
const (
	minMemory = 400 << 20
	minRoom   = 300 << 20
	maxSkew   = 5 * time.Minute // as the agent checks it against the control plane
)

// oldestKernel is the first that the agent is built for: fanotify marks of
// whole filesystems with permission events, and what static Go needs.
var oldestKernel = [2]int{4, 18}

// oldest says from which version on distributions are supported. What is not
// listed is taken when one of its relatives is.
var oldest = map[string]float64{
	"debian": 11, "ubuntu": 20.04, "rhel": 8, "centos": 8, "rocky": 8, "almalinux": 8, "ol": 8, "fedora": 38, "amzn": 2023, "sles": 15, "opensuse-leap": 15,
	"opensuse-tumbleweed": 0, "arch": 0,
}

// verified are the distributions that releases are tried on.
var verified = map[string]bool{"debian": true}

// Verified reports whether releases are tried on the distribution of a host.
// For others the label "not verified" is shown.
func (f Facts) Verified() bool { return verified[f.OS] }

// Architecture returns the name that Go and Debian have for the processor, ""
// when there is no agent for it.
func (f Facts) Architecture() string {
	switch f.Arch {
	case "x86_64", "amd64":
		return "amd64"
	case "aarch64", "arm64":
		return "arm64"
	}
	return ""
}

// Requirements are what a preflight checks beside the host itself.
type Requirements struct {
	Now time.Time // here, when the facts were asked for
	// Despite has another product's presence passed over.
	Despite bool
}

// Check says why a host cannot get the agent, nil when it can. It is the
// first reason of the most lasting kind: what cannot be mended comes before
// what waits.
func (f Facts) Check(r Requirements) *Failure {
	switch {
	case f.System != "" && f.System != "Linux":
		return Fail(OSUnsupported, f.System)
	case f.Architecture() == "":
		return Fail(ArchUnsupported, f.Arch)
	case f.Init != "systemd" && f.Container != "" && f.Container != "none":
		return Fail(Container, f.Container)
	case f.Init != "systemd":
		return Fail(NoSystemd, f.Init)
	case !f.Root:
		return Fail(NotRoot, "")
	case f.Image:
		return Fail(Image, "/etc/komainu/image is there")
	}
	if problem := f.checkSystem(); problem != nil {
		return problem
	}
	switch {
	case f.Broken != "":
		return Fail(PackageManagerBroken, f.Broken)
	case f.Others != "" && !r.Despite:
		return Fail(ConflictingAgent, f.Others)
	case less(f.Memory, minMemory):
		return Failf(MemoryLow, "it has %d MB", *f.Memory>>20)
	case less(f.RoomVar, minRoom):
		return Failf(DiskFull, "%d MB are free below /var", *f.RoomVar>>20)
	case less(f.RoomUsr, minRoom):
		return Failf(DiskFull, "%d MB are free below /usr", *f.RoomUsr>>20)
	}
	if skew := f.Clock.Sub(r.Now); !f.Clock.IsZero() && skew.Abs() > maxSkew {
		word := "ahead"
		if skew < 0 {
			word = "behind"
		}
		return Failf(ClockOff, "it is %s %s", skew.Abs().Round(time.Second), word)
	}
	if f.Reach != "" && f.Reach != "ok" && f.Reach != "unknown" {
		return Fail(UnreachableControlPlane, f.Reach)
	}
	return nil
}

// less reports whether a host is known to have less than it needs. Nothing at
// all is known, too: df says 0 when only the reserve of root is left.
func less(has *int64, needs int64) bool { return has != nil && *has < needs }

// checkSystem looks at distribution and kernel.
func (f Facts) checkSystem() *Failure {
	name := f.OSName
	if name == "" {
		name = strings.TrimSpace(f.OS + " " + f.OSVersion)
	}
	least, listed := oldest[f.OS]
	if !listed {
		for like := range strings.FieldsSeq(f.OSLike) {
			if _, ok := oldest[like]; ok {
				listed, least = true, 0 // a relative numbers its versions by itself
				break
			}
		}
	}
	if !listed {
		return Fail(OSUnsupported, name)
	}
	if version, err := strconv.ParseFloat(f.OSVersion, 64); err == nil && version < least {
		return Failf(OSEnd, "%s; version %v is the oldest", name, least)
	}
	if major, minor, ok := kernelVersion(f.Kernel); ok && (major < oldestKernel[0] || major == oldestKernel[0] && minor < oldestKernel[1]) {
		return Fail(KernelOld, f.Kernel)
	}
	return nil
}

// kernelVersion reads the beginning of a release like 6.1.0-18-cloud-amd64.
func kernelVersion(release string) (major, minor int, ok bool) {
	first, rest, _ := strings.Cut(release, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		rest = rest[:end]
	}
	major, err := strconv.Atoi(first)
	minor, err2 := strconv.Atoi(rest)
	return major, minor, err == nil && err2 == nil
}
