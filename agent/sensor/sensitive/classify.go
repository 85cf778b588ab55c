// Package sensitive notices opens of files that hold secrets: private keys,
// cloud credentials, password hashes, shell histories and the like.
//
// It has two notification-only fanotify groups. One holds marks on the files
// themselves; the other hears of names that are created or moved on a
// filesystem, so that a new secret is marked too. A notification group can
// hold nobody up, and ignore marks of other groups do not hide opens from it.
//
// A file is sensitive by its name and place, where only content tells (a
// ".pem" can be a public certificate) by content. Opens in order to write a
// secret are left out as far as the kernel tells them apart.
package sensitive

import (
	"bytes"
	"path"
	"slices"
	"strings"

	"komainu/event"
)

// named are the names that mean the same in every folder.
var named = map[string]event.Sensitivity{
	".bash_history":                        event.ShellHistory,
	".sh_history":                          event.ShellHistory,
	".ash_history":                         event.ShellHistory,
	".zsh_history":                         event.ShellHistory,
	".python_history":                      event.ShellHistory,
	".mysql_history":                       event.ShellHistory,
	".psql_history":                        event.ShellHistory,
	"fish_history":                         event.ShellHistory,
	".netrc":                               event.TokenStore,
	".git-credentials":                     event.TokenStore,
	".npmrc":                               event.TokenStore,
	".pypirc":                              event.TokenStore,
	".vault-token":                         event.TokenStore,
	".pgpass":                              event.DatabaseSecrets,
	".my.cnf":                              event.DatabaseSecrets,
	".mylogin.cnf":                         event.DatabaseSecrets,
	"id_rsa":                               event.SSHPrivateKey,
	"id_dsa":                               event.SSHPrivateKey,
	"id_ecdsa":                             event.SSHPrivateKey,
	"id_ed25519":                           event.SSHPrivateKey,
	"id_ecdsa_sk":                          event.SSHPrivateKey,
	"id_ed25519_sk":                        event.SSHPrivateKey,
	"kubeconfig":                           event.ClusterConfig,
	".env":                                 event.AppSecrets,
	"wp-config.php":                        event.AppSecrets,
	"secrets.yml":                          event.AppSecrets,
	"secrets.yaml":                         event.AppSecrets,
	"secring.gpg":                          event.KeyRing,
	"login.keyring":                        event.KeyRing,
	"accessTokens.json":                    event.CloudCredentials,
	"access_tokens.db":                     event.CloudCredentials,
	"adc.json":                             event.CloudCredentials,
	"credentials.db":                       event.CloudCredentials,
	"msal_token_cache.json":                event.CloudCredentials,
	"msal_token_cache.bin":                 event.CloudCredentials,
	"application_default_credentials.json": event.CloudCredentials,
}

// placed are names that mean something in one folder only; a folder of the
// path's last elements, then the name.
var placed = map[string]event.Sensitivity{
	".aws/credentials":                   event.CloudCredentials,
	".azure/azureProfile.json":           event.CloudCredentials,
	".docker/config.json":                event.TokenStore,
	".config/gh/hosts.yml":               event.TokenStore,
	".terraform.d/credentials.tfrc.json": event.TokenStore,
	".kube/config":                       event.ClusterConfig,
	"kubernetes/admin.conf":              event.ClusterConfig,
	"kubernetes/super-admin.conf":        event.ClusterConfig,
	"kubernetes/kubelet.conf":            event.ClusterConfig,
	"etc/shadow":                         event.PasswordHashes,
	"etc/shadow-":                        event.PasswordHashes,
	"etc/gshadow":                        event.PasswordHashes,
	"etc/gshadow-":                       event.PasswordHashes,
	"etc/master.passwd":                  event.PasswordHashes,
	"security/opasswd":                   event.PasswordHashes,
	"mysql/debian.cnf":                   event.DatabaseSecrets,
}

// folders are the folders of secrets, by their last elements: what is opened
// in them is looked at whatever its name.
var folders = []string{".ssh", ".aws", ".azure", ".config/gcloud", ".kube", ".docker", ".gnupg/private-keys-v1.d", ".local/share/keyrings"}

// templates are the endings of files like .env that hold no values.
var templates = []string{".dist", ".example", ".sample", ".template"}

// Classify returns the class of secret that a file holds by its absolute path.
// With byContent the class counts only if HoldsKey finds it in the content.
func Classify(file string) (class event.Sensitivity, byContent bool) {
	name := path.Base(file)
	if class, ok := named[name]; ok {
		return class, false
	}
	parent, rest := path.Base(path.Dir(file)), path.Dir(path.Dir(file))
	if class, ok := placed[parent+"/"+name]; ok {
		return class, false
	}
	if class, ok := placed[path.Base(rest)+"/"+parent+"/"+name]; ok {
		return class, false
	}
	switch {
	case parent == ".ssh" && strings.HasPrefix(name, "id_") && !strings.HasSuffix(name, ".pub"),
		parent == ".ssh" && name == "identity",
		strings.HasPrefix(name, "ssh_host_") && strings.HasSuffix(name, "_key"):
		return event.SSHPrivateKey, false
	case strings.HasPrefix(name, ".env.") && !slices.ContainsFunc(templates, func(t string) bool { return strings.HasSuffix(name, t) }):
		return event.AppSecrets, false
	case strings.HasSuffix(name, ".kubeconfig"):
		return event.ClusterConfig, false
	case parent == "private-keys-v1.d", strings.HasSuffix(name, ".kdbx"), strings.HasSuffix(name, ".keyring"):
		return event.KeyRing, false
	case strings.HasSuffix(name, ".p12"), strings.HasSuffix(name, ".pfx"):
		return event.TLSPrivateKey, false
	case strings.HasSuffix(name, ".pem"), strings.HasSuffix(name, ".key"):
		return event.TLSPrivateKey, true
	}
	return event.NotSensitive, false
}

// IsFolder reports whether a folder, by its path or its name alone, is one
// whose files are watched one and all.
func IsFolder(folder string) bool {
	return slices.ContainsFunc(folders, func(f string) bool {
		return folder == f || strings.HasSuffix(folder, "/"+f)
	})
}

// maybe reports whether a name alone can be that of a sensitive file or
// folder. It is asked for every name that is created on a filesystem.
func maybe(name string) bool {
	if name == "" {
		return false
	}
	if _, ok := named[name]; ok {
		return true
	}
	switch name {
	case "credentials", "config", "config.json", "hosts.yml", "credentials.tfrc.json", "azureProfile.json",
		"admin.conf", "super-admin.conf", "kubelet.conf", "shadow", "shadow-", "gshadow", "gshadow-", "master.passwd", "opasswd", "debian.cnf", "identity",
		".ssh", ".aws", ".azure", "gcloud", ".kube", ".docker", "private-keys-v1.d", "keyrings":
		return true
	}
	switch path.Ext(name) {
	case ".pem", ".key", ".p12", ".pfx", ".kdbx", ".keyring", ".kubeconfig":
		return true
	}
	return strings.HasPrefix(name, "id_") || strings.HasPrefix(name, "ssh_host_") || strings.HasPrefix(name, ".env.")
}

// sample is how much of a file is read to find a key in it.
const sample = 64 << 10

// HoldsKey reports whether the beginning of a file holds a private key in PEM
// form.
func HoldsKey(content []byte) bool {
	for rest := content; ; {
		i := bytes.Index(rest, []byte("-----BEGIN "))
		if i < 0 {
			return false
		}
		rest = rest[i+len("-----BEGIN "):]
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		if bytes.Contains(line, []byte("PRIVATE KEY-----")) {
			return true
		}
	}
}
