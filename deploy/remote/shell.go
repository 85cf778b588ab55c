package remote

import (
	"strings"

	"komainu/deploy"
)

// stage is what sh runs until it has the script. It has no single quote, no
// backslash, no exclamation mark and no line break in it, because the login
// shell reads it first, in single quotes: bash, dash, zsh, ksh, fish and csh
// agree on what everything else means there. BEGIN and END are replaced.
//
// A script whose end does not come is not run: with half of a script nobody
// knows what it does.
const stage = `LC_ALL=C; export LC_ALL; echo; echo BEGIN; komainu_n=$(echo; echo _); komainu_n=${komainu_n%_}; komainu_s=; ` +
	`while :; do IFS= read -r komainu_l || exit 97; [ "$komainu_l" = END ] && break; komainu_s=$komainu_s$komainu_l$komainu_n; done; eval "$komainu_s"`

// command is what sshd gives to the login shell. There is no exec before it,
// which restricted shells do not have, and no path.
func (r *run) command() string {
	c := r.host.cfg
	sh := "sh -c '" + strings.NewReplacer("BEGIN", r.begin, "END", r.end).Replace(stage) + "' komainu"
	switch {
	case !c.becomes():
		return sh
	case c.Sudo == Passwordless:
		return "env LC_ALL=C sudo -n -- " + sh
	}
	return "env LC_ALL=C sudo -S -p '" + r.prompt + "' -- " + sh
}

// What sudo says, that of the original and of sudo-rs, in the C locale.
var (
	wantsPassword = []string{"password is required", "no password was provided", "incorrect password", "terminal is required to read the password",
		"no askpass program", "interactive authentication is required", "authentication failed", "incorrect authentication"}
	refusesUser = []string{"not in the sudoers file", "not allowed to", "may not run sudo", "must have a tty", "sudo: command not found", "sudo: not found",
		"sudo: No such file", "Unknown command: sudo", "command not found: sudo", "‘sudo’: No such file", "'sudo': No such file", "account validation failure", "i'm afraid i can't do that"}
)

// notBegun says why sh did not come to be. r.mu is held.
func (r *run) notBegun() error {
	words := r.words()
	said := plain(words)
	if r.host.cfg.becomes() {
		switch {
		case contains(words, wantsPassword):
			return deploy.Fail(deploy.SudoPassword, said)
		case contains(words, refusesUser), strings.Contains(words, "sudo: "):
			return deploy.Fail(deploy.SudoRefused, said)
		}
	}
	if r.status == nil && said == "" {
		return deploy.Fail(deploy.ConnectionLost, "the session was closed before anything ran")
	}
	return deploy.Fail(deploy.NoShell, said)
}

func contains(text string, words []string) bool {
	text = strings.ToLower(text)
	for _, w := range words {
		if strings.Contains(text, strings.ToLower(w)) {
			return true
		}
	}
	return false
}
