package deploy

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Script is what is run on a host. Its head says how it is called and what it
// prints.
//
//go:embed script/host.sh
var Script string

// Facts are what the script says of a host.
type Facts struct {
	Hostname  string    `json:"hostname"`
	OS        string    `json:"os"` // ID of os-release(5), like debian
	OSVersion string    `json:"osVersion"`
	OSName    string    `json:"osName"`
	OSLike    string    `json:"osLike"`
	System    string    `json:"system"` // Linux
	Kernel    string    `json:"kernel"`
	Arch      string    `json:"arch"` // of the machine: x86_64, aarch64
	Init      string    `json:"init"`
	Container string    `json:"container"` // kind of container, none or empty
	Image     bool      `json:"image"`     // prepared to be copied
	Root      bool      `json:"root"`
	Memory    *int64    `json:"memory,omitempty"` // bytes; nil when it is not known, here and below
	RoomVar   *int64    `json:"roomVar,omitempty"`
	RoomUsr   *int64    `json:"roomUsr,omitempty"`
	Clock     time.Time `json:"clock"`
	Manager   string    `json:"manager"` // deb, rpm or tar: the form of package that the host takes
	Broken    string    `json:"broken"`  // what the package manager complains about
	Busy      string    `json:"busy"`    // who holds the package manager
	Others    string    `json:"others"`  // another product that decides on file accesses
	Package   string    `json:"package"` // state and version of our package
	Agent     string    `json:"agent"`   // version of the agent's binaries
	Service   string    `json:"service"` // active, inactive, failed…
	Device    string    `json:"device"`  // id of the device that the agent is enrolled as
	Reach     string    `json:"reach"`   // ok, unknown, or why the control plane cannot be reached
}

// Inspect looks at a host, and tries whether it reaches server (host:port)
// unless that is empty. It changes nothing.
func Inspect(ctx context.Context, h Host, server string) (Facts, error) {
	args := []string{"facts"}
	if server != "" {
		args = append(args, "server="+server)
	}
	var f Facts
	a := answer{fact: f.set}
	err := a.run(ctx, h, args, nil)
	return f, err
}

// set takes one fact. Hosts are not trusted: what makes no sense is left out.
func (f *Facts) set(name, value string) {
	kilobytes := func(to **int64) {
		if n, err := strconv.ParseInt(value, 10, 64); err == nil && n >= 0 && n < 1<<50 {
			*to = new(n << 10)
		}
	}
	texts := map[string]*string{
		"hostname": &f.Hostname, "os": &f.OS, "os_version": &f.OSVersion, "os_name": &f.OSName, "os_like": &f.OSLike, "system": &f.System, "kernel": &f.Kernel,
		"arch": &f.Arch, "init": &f.Init, "container": &f.Container, "manager": &f.Manager, "manager_broken": &f.Broken, "busy": &f.Busy, "others": &f.Others,
		"package": &f.Package, "agent": &f.Agent, "service": &f.Service, "device": &f.Device, "reach": &f.Reach,
	}
	switch name {
	case "uid":
		f.Root = value == "0"
	case "image":
		f.Image = value == "yes"
	case "memory_kb":
		kilobytes(&f.Memory)
	case "var_kb":
		kilobytes(&f.RoomVar)
	case "usr_kb":
		kilobytes(&f.RoomUsr)
	case "clock":
		if s, err := strconv.ParseInt(value, 10, 64); err == nil && s > 0 && s < 1<<40 {
			f.Clock = time.Unix(s, 0).UTC()
		}
	default:
		if to := texts[name]; to != nil {
			*to = value
		}
	}
}

// Installation says what the script installs.
type Installation struct {
	// Package is the form deb, rpm or tar; empty: only the service and the
	// enrolment are put right.
	Package string
	SHA256  string // hexadecimal
	Size    int64
	// URL is where the host gets the package; empty: Content is sent along.
	URL     string
	Content io.Reader
	// Token is the join token; empty: the agent keeps its identity.
	Token string
	// Take has an agent give up the identity that it has.
	Take bool
	// InArguments has the token sent as an argument, for hosts that take no
	// input: other users of the host may see it there.
	InArguments bool
	// Cloud has the host prove who it is by a document of its cloud instead of a
	// token, to the control plane at Server (host:port) whose CA has the pin.
	Cloud, Server, Pin string
	// Image keeps the token for the first boot of a copy.
	Image bool
}

// Installed is what an installation came to.
type Installed struct{ Version, Device string }

// InstallOn installs the agent on a host and enrols it. step is told of the
// steps that begin and, with a text, of what is waited for; it may be nil.
func InstallOn(ctx context.Context, h Host, i Installation, step func(s Step, waiting string)) (Installed, error) {
	args := []string{"install"}
	var in io.Reader = strings.NewReader("")
	enrol := "no"
	if i.Token != "" {
		enrol = "yes"
		if i.Take {
			enrol = "force"
		}
		if i.Image {
			enrol = "boot"
		}
		if i.InArguments {
			args = append(args, "token="+i.Token)
		} else {
			args = append(args, "token=-")
			in = strings.NewReader(i.Token + "\n")
		}
	}
	if i.Cloud != "" {
		enrol = "cloud"
		if i.Take {
			enrol = "cloudforce"
		}
		args = append(args, "cloud="+i.Cloud, "server="+i.Server, "pin="+i.Pin)
	}
	args = append(args, "enrol="+enrol)
	if i.Package != "" {
		args = append(args, "format="+i.Package, "sha256="+i.SHA256, "size="+strconv.FormatInt(i.Size, 10))
		switch {
		case i.URL != "":
			if u, err := url.Parse(i.URL); err != nil || u.Scheme != "https" {
				return Installed{}, fmt.Errorf("packages come over https, not from %q", i.URL)
			}
			args = append(args, "url="+i.URL)
		default:
			in = io.MultiReader(in, i.Content)
		}
	}
	a := answer{step: step}
	err := a.run(ctx, h, args, in)
	version, device, _ := strings.Cut(a.done, " ")
	return Installed{Version: version, Device: device}, err
}

// RemoveFrom removes the agent with everything that it keeps.
func RemoveFrom(ctx context.Context, h Host, step func(s Step, waiting string)) error {
	a := answer{step: step}
	return a.run(ctx, h, []string{"remove"}, nil)
}

// answer is what a run of the script says.
type answer struct {
	fact    func(name, value string)
	step    func(s Step, waiting string)
	at      Step
	failure *Failure
	ended   bool
	done    string
}

func (a *answer) run(ctx context.Context, h Host, args []string, stdin io.Reader) error {
	err := h.Run(ctx, Script, args, stdin, a.line)
	if a.failure != nil {
		return a.failure // the cause of whatever came after it
	}
	if exit, ok := errors.AsType[*Exit](err); ok {
		return Failf(OutputGarbled, "the script ended with code %d and gave no reason: %s", exit.Code, exit.Tail)
	}
	if err == nil && !a.ended {
		return Fail(OutputGarbled, "the script ended without an answer")
	}
	return err
}

// maxDetail bounds what a host says that is kept.
const maxDetail = 600

// proofFact is the one fact that is longer.
const proofFact = "proof"

func (a *answer) line(text string) {
	word, rest, _ := strings.Cut(text, " ")
	most := maxDetail
	if word == "fact" && strings.HasPrefix(rest, proofFact+" ") {
		most = len(proofFact+" ") + maxProof
	}
	if len(rest) > most {
		rest = rest[:most]
	}
	rest = strings.ToValidUTF8(strings.TrimSpace(rest), "?")
	switch word {
	case "fact":
		name, value, _ := strings.Cut(rest, " ")
		if a.fact != nil {
			a.fact(name, value)
		}
	case "step":
		a.at = Step(rest)
		if a.step != nil && (a.at == Transfer || a.at == Install || a.at == Enrol || a.at == Remove) {
			a.step(a.at, "")
		}
	case "wait":
		if a.step != nil {
			a.step(a.at, rest)
		}
	case "fail":
		id, detail, _ := strings.Cut(rest, " ")
		if a.failure == nil && Known(ReasonID(id)) {
			a.failure = Fail(ReasonID(id), detail)
		}
	case "done":
		a.ended, a.done = true, rest
	}
}

// ReadFacts reads what the script has printed, for a host that sends it
// itself.
func ReadFacts(r io.Reader) (Facts, error) {
	var f Facts
	a := answer{fact: f.set}
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if ours, ok := strings.CutPrefix(lines.Text(), Prefix); ok {
			a.line(ours)
		}
	}
	switch {
	case lines.Err() != nil:
		return f, fmt.Errorf("read the facts of a host: %w", lines.Err())
	case a.failure != nil:
		return f, a.failure
	case !a.ended:
		return f, errors.New("the facts of the host are cut off")
	}
	return f, nil
}
