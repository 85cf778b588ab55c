package rules

import (
	"path"
	"slices"
	"strings"

	"komainu/event"
)

// owners are the programs that a secret is for: that they open it says
// nothing. None of them prints or copies it by its own command line.
var owners = map[event.Sensitivity][]string{
	event.SSHPrivateKey:    {"autossh", "dropbear", "ssh", "ssh-add", "ssh-agent", "ssh-keygen", "ssh-keysign", "sshd", "sshd-auth", "sshd-session"},
	event.CloudCredentials: {"amazon-ssm-agent", "aws", "terraform"},
	event.PasswordHashes: {
		"accounts-daemon", "atd", "chage", "chpasswd", "chpwd", "cockpit-session", "cron", "crond", "gpasswd", "groupadd", "groupdel", "groupmod", "grpck",
		"login", "newgrp", "newusers", "nscd", "passwd", "polkitd", "pwck", "saslauthd", "sg", "sshd", "sshd-auth", "sshd-session", "su", "sudo", "systemd",
		"systemd-executor", "systemd-logind", "systemd-sysusers", "systemd-userdbd", "systemd-userwork", "unix_chkpwd", "useradd", "userdel", "usermod", "vsftpd",
	},
	event.ClusterConfig:   {"helm", "k3s", "k9s", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubeadm", "kubectl", "kubelet", "oc"},
	event.TLSPrivateKey:   {"apache2", "caddy", "dovecot", "envoy", "etcd", "haproxy", "httpd", "kube-apiserver", "kubelet", "mariadbd", "mosquitto", "mysqld", "nats-server", "nginx", "openvpn", "postgres", "redis-server", "slapd", "smtpd", "stunnel", "stunnel4", "tlsmgr", "traefik"},
	event.AppSecrets:      {"docker", "docker-compose", "systemd", "systemd-executor"},
	event.ShellHistory:    {"bash", "fish", "ksh", "mksh", "mysql", "psql", "zsh"},
	event.TokenStore:      {"buildah", "curl", "docker", "dockerd", "gh", "git", "git-credential-store", "git-remote-http", "git-remote-https", "podman", "skopeo", "terraform", "vault", "wget"},
	event.DatabaseSecrets: {"mariadb", "mariadb-admin", "mariadb-check", "mariadb-dump", "mysql", "mysqladmin", "mysqlcheck", "mysqldump", "pg_dump", "pg_dumpall", "pg_restore", "psql"},
	event.KeyRing:         {"gnome-keyring-daemon", "gpg", "gpg-agent", "gpg2", "gpgsm", "keepassxc", "kwalletd5", "kwalletd6"},
}

// copiers read every file of the folders that they are given, secrets among
// them: backups, copies of whole trees, integrity checks and virus scans.
var copiers = []string{
	"aide", "amandad", "bacula-fd", "bareos-fd", "borg", "borgbackup", "bsdtar", "burp", "clamd", "clamdscan", "clamscan", "cp", "dar", "dump", "duplicity",
	"kopia", "rdiff-backup", "restic", "rsnapshot", "rsync", "star", "tar", "tripwire", "updatedb", "updatedb.plocate", "veeamagent", "wazuh-syscheckd", "xfsdump",
}

// lists are options that name a file with the names to read, behind which a
// copier can be told to take secrets alone.
var lists = []string{"--exclude-from", "--file-list", "--files-from", "--include-from", "--merge", "--patterns-from"}

// managers bring a server into the state that is described for it, and read
// what they manage in order to compare it.
var managers = []string{
	"ansible-playbook", "ansible-pull", "cf-agent", "chef-client", "chef-solo", "cinc-client", "puppet", "puppet-agent", "salt-call", "salt-minion",
}

// trusted reports whether an open of a secret of this class by p is no sign of
// a search for secrets. DESIGN.md says why these and how each can be abused.
func (e *Engine) trusted(p *event.Process, class event.Sensitivity) bool {
	if protected(p.Path, p.Image) && slices.Contains(owners[class], tool(p)) {
		return true
	}
	name := e.program(p)
	if slices.Contains(copiers, name) && e.wholesale(p) {
		return true
	}
	return e.managed(p, name)
}

// wholesale reports whether a copier was told to read folders as they are: no
// argument points at a secret, and none at a list that could.
func (e *Engine) wholesale(p *event.Process) bool {
	if p.Truncated || len(p.Args) == 0 {
		return false
	}
	for _, a := range p.Args[1:] {
		option, value, _ := strings.Cut(a, "=")
		if slices.Contains(lists, option) || listed(tool(p), a) {
			return false
		}
		if !strings.HasPrefix(a, "-") {
			value = a
		}
		if slices.ContainsFunc(strings.Fields(value), func(word string) bool { return e.pointsAtSecret(p, word) }) {
			return false
		}
	}
	return true
}

// listed reports whether a is tar's short option for a list, which can stand
// among others. To other programs the letter means something else.
func listed(name, a string) bool {
	return strings.HasSuffix(name, "tar") && strings.HasPrefix(a, "-") && !strings.HasPrefix(a, "--") && strings.Contains(a, "T")
}

func (e *Engine) pointsAtSecret(p *event.Process, word string) bool {
	if !path.IsAbs(word) {
		word = path.Join(p.Cwd, word)
	}
	word = path.Clean(word)
	return e.cfg.Classify(word) != event.NotSensitive || e.cfg.SecretFolder(word) || e.cfg.SecretFolder(path.Dir(word))
}

// managed reports whether configuration management reads, as root: a manager
// or what it starts, or a module that was sent over.
func (e *Engine) managed(p *event.Process, name string) bool {
	if p.User.EUID != 0 {
		return false
	}
	if slices.Contains(managers, name) {
		return true
	}
	if protected(p.Path, p.Image) && isInterpreter(p) && strings.Contains(script(p), "/.ansible/tmp/ansible-tmp-") {
		return true
	}
	for _, above := range e.cfg.Tree.Ancestors(p.Key) {
		if above.User.EUID == 0 && slices.Contains(managers, e.program(&above)) {
			return true
		}
	}
	return false
}
