package agent

import (
	"bufio"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"os"
	"runtime"
	"strings"

	"komainu/wire"
)

// hostFacts tells what host this is. What cannot be read is left out.
func hostFacts() wire.Facts {
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	f := wire.Facts{Hostname: name, OS: runtime.GOOS, Arch: runtime.GOARCH, Kernel: kernelRelease(), BootID: bootID(), MachineID: machineID(), AgentVersion: Version}
	release := osRelease()
	f.Distribution, f.OSVersion, f.OSName = release["ID"], release["VERSION_ID"], release["PRETTY_NAME"]
	if f.OSName == "" {
		f.OSName = runtime.GOOS
	}
	f.IPAddresses, f.MACAddresses = addresses()
	return f
}

// osRelease reads os-release(5).
func osRelease() map[string]string {
	values := map[string]string{}
	for _, file := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			key, value, ok := strings.Cut(lines.Text(), "=")
			if ok && !strings.HasPrefix(key, "#") {
				values[key] = strings.Trim(value, `"'`)
			}
		}
		break
	}
	return values
}

func kernelRelease() string { return firstLine("/proc/sys/kernel/osrelease") }

func bootID() string { return firstLine("/proc/sys/kernel/random/boot_id") }

func firstLine(name string) string {
	text, err := os.ReadFile(name)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSpace(line)
}

// machineID is a keyed hash: machine-id(5) asks that the id itself does not
// leave the host.
func machineID() string {
	id := firstLine("/etc/machine-id")
	if id == "" {
		return ""
	}
	mac := hmac.New(sha256.New, []byte("komainu machine"))
	mac.Write([]byte(id))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// maxAddresses keeps a host with thousands of interfaces from filling frames.
const maxAddresses = 32

func addresses() (ips, macs []string) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, nil
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagLoopback != 0 || i.Flags&net.FlagUp == 0 {
			continue
		}
		if len(i.HardwareAddr) > 0 && len(macs) < maxAddresses {
			macs = append(macs, i.HardwareAddr.String())
		}
		list, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range list {
			if n, ok := a.(*net.IPNet); ok && !n.IP.IsLinkLocalUnicast() && len(ips) < maxAddresses {
				ips = append(ips, n.IP.String())
			}
		}
	}
	return ips, macs
}
