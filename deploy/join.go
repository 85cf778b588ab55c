package deploy

import (
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"strings"
	"sync"
	"text/template"
)

//go:embed script/install.sh
var installer string

//go:embed script/cloud-init.yaml
var cloudInit string

//go:embed script/ansible.yaml
var playbook string

// Installer returns the script for people: it installs the agent on the server
// that it runs on and enrols it with a join token. It holds Script, and the
// texts of all reasons.
var Installer = sync.OnceValue(func() string {
	return strings.NewReplacer("@HOST@\n", Script, "@REASONS@", reasonsForShell()).Replace(installer)
})

// byHand are the remedies that read differently for somebody who has run the
// installer on the server: nothing is tried again by itself there.
var byHand = map[ReasonID]string{
	NotRoot:            "run it with sudo",
	PackageManagerBusy: "run it again when that is done",
	Checksum:           "run it again; if it stays, look for what changes the data on the way",
	TransferFailed:     "check the room in /var/tmp and the network, and run it again",
	InstallFailed:      "the detail is what the package manager says; mend that and run it again",
	ConflictingAgent:   "remove the other product, or run it again with --despite-conflict",
	EnrolRefused:       "make a new join token on the page of the environment and run it again with that",
	EnrolFailed:        "the detail is what the agent says; mend that and run it again",
	EnrolledElsewhere:  "offboard it there, or run it again with --force",
	NoPackage:          "have an administrator add one with komainu-control content add",
}

// exitCodes are those of the commands, for reasons that have another than 1.
var exitCodes = map[ReasonID]int{
	NotRoot: 3, UnreachableControlPlane: 4, EnrolRefused: 6, EnrolledElsewhere: 6,
	OSUnsupported: 7, OSEnd: 7, KernelOld: 7, ArchUnsupported: 7, NoSystemd: 7, Container: 7, NoPackage: 7,
}

// reasonsForShell are the branches of a case over the names of reasons.
func reasonsForShell() string {
	var b strings.Builder
	for _, id := range ReasonIDs() {
		r := ReasonOf(id, "")
		if own := byHand[id]; own != "" {
			r.Remedy = own
		}
		code := max(exitCodes[id], 1)
		fmt.Fprintf(&b, "    %s) text=%s remedy=%s code=%d ;;\n", id, quote(r.Text), quote(r.Remedy), code)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// quote makes one word of a text for a shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// Join is what a server needs to enrol.
type Join struct {
	Server string // URL of the control plane
	CA     string // PEM of its CA
	Token  string // the join token
}

// Ways are texts that bring a join token to servers, each to be pasted as it
// is. The secret of the token is in all of them.
type Ways struct {
	Line      string `json:"shell" doc:"a command for one server"`
	CloudInit string `json:"cloudInit" doc:"user data for new servers"`
	Ansible   string `json:"ansible" doc:"a play; the token can be given to it from a vault"`
	Image     string `json:"image" doc:"a command for the machine of which an image is made"`
}

// Ways returns the texts.
func (j Join) Ways() Ways {
	return Ways{Line: j.line(""), CloudInit: j.fill("cloud-init", cloudInit), Ansible: j.fill("ansible", playbook), Image: j.line("--image ")}
}

// line fetches the CA, compares its hash, and fetches the installer from whom
// the CA vouches for, so that nobody on the way can put another one in its
// place. The token goes through a pipe, since lists of processes and the log of
// sudo show command lines; sudo asks for a password on the terminal. All of it
// is in a folder of its own that goes in the end.
//
// People paste it into whatever shell they have: echo is built into all of
// them, and an s that is empty vanishes in all of them.
func (j Join) line(options string) string {
	sum := sha256.Sum256([]byte(j.CA))
	return fmt.Sprintf(`(d=$(mktemp -d) && trap 'rm -rf "$d"' EXIT && cd "$d" && curl -fsSko ca.pem %s && echo "%s  ca.pem" | sha256sum -c && curl -fsSo install --cacert ca.pem --capath . %s && s=$([ "$(id -u)" = 0 ] || echo sudo) && echo %s | $s sh install %s--token-file -)`,
		quote(j.Server+"/ca.pem"), hex.EncodeToString(sum[:]), quote(j.Server+"/install"), quote(j.Token), options)
}

// fill fills a form whose values stand in lines of their own or in quotes.
func (j Join) fill(name, form string) string {
	funcs := template.FuncMap{
		"shell": quote,
		// yaml is a text as a scalar in single quotes.
		"yaml": func(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" },
		// lines indents every line of a text.
		"lines": func(indent int, text string) string {
			pad := strings.Repeat(" ", indent)
			return pad + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n"+pad)
		},
	}
	var b strings.Builder
	if err := template.Must(template.New(name).Funcs(funcs).Parse(form)).Execute(&b, j); err != nil {
		panic(err) // the forms are ours, and take any text
	}
	return b.String()
}
