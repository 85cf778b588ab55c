package connector

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"komainu/control/machine"
	"komainu/deploy"
	"komainu/deploy/remote"
	"komainu/fault"
)

// KindSSH is the kind of connectors that reach servers over SSH.
const KindSSH = "ssh"

// Ways to hold the credential of an SSH connector, the best first.
const (
	Push        = "push"        // komainuctl deploy, with the keys of the operator's workstation
	Certificate = "certificate" // the control plane issues one per login, good for minutes
	StoredKey   = "key"         // sealed at rest
)

// Ways to know the keys of hosts.
const (
	FirstUse = "first_use" // what is seen first is pinned
	Listed   = "listed"    // known hosts are listed, others refused
)

// certificateLife is how long an issued certificate is good for a login.
const certificateLife = 5 * time.Minute

// SSH are the settings of an SSH connector.
type SSH struct {
	Hosts      string `json:"hosts" maxLength:"4194304" doc:"a host per line, with ranges: web[01-20].example.net role=web"`
	User       string `json:"user" maxLength:"64" doc:"root when left out"`
	Port       int    `json:"port,omitempty" minimum:"0" maximum:"65535" doc:"22 when left out"`
	Jump       string `json:"jump,omitempty" maxLength:"1024" doc:"user@bastion:22; several, in the order that they are passed, separated by commas"`
	Sudo       string `json:"sudo" enum:"none,passwordless,password"`
	Credential string `json:"credential" enum:"push,certificate,key"`
	HostKeys   string `json:"hostKeys" enum:"first_use,listed"`
	KnownHosts string `json:"knownHosts,omitempty" maxLength:"4194304" doc:"lines of known_hosts, for hostKeys listed"`
}

// SSHView are the settings of an SSH connector as they are shown.
type SSHView struct {
	SSH
	CAPublicKey     string `json:"caPublicKey" doc:"for TrustedUserCAKeys of the hosts; of the credential certificate"`
	PublicKey       string `json:"publicKey" doc:"for authorized_keys of the hosts; of the credential key"`
	HasSecret       bool   `json:"hasSecret" doc:"whether a private key is stored"`
	HasSudoPassword bool   `json:"hasSudoPassword"`
}

// servers is the kind of connectors that reach servers over SSH.
type servers struct{ c *Connectors }

func (servers) settings(r *row) (s SSH, err error) {
	err = json.Unmarshal(r.Settings, &s)
	return s, err
}

func (k servers) apply(change Change, s *sealed) (any, error) {
	if change.SSH == nil {
		return nil, fault.New(fault.Invalid, "the settings of the connector are missing")
	}
	s.PrivateKey, s.Passphrase = cmp.Or(change.Secret.PrivateKey, s.PrivateKey), cmp.Or(change.Secret.Passphrase, s.Passphrase)
	if change.Secret.PrivateKey != "" {
		s.Passphrase = change.Secret.Passphrase
	}
	s.SudoPassword = cmp.Or(change.Secret.SudoPassword, s.SudoPassword)
	settings := *change.SSH
	settings.User = cmp.Or(strings.TrimSpace(settings.User), "root")
	return settings, k.check(settings, s)
}

func (k servers) show(v *Connector, r *row, s sealed) {
	settings, err := k.settings(r)
	if err != nil {
		return
	}
	v.SSH = &SSHView{SSH: settings, HasSecret: s.PrivateKey != "", HasSudoPassword: s.SudoPassword != "", CAPublicKey: public(s.CA, ""), PublicKey: public(s.PrivateKey, s.Passphrase)}
}

func (servers) described(settings json.RawMessage) (map[string]any, []string) {
	var s SSH
	_ = json.Unmarshal(settings, &s) // what apply has made
	list, _ := remote.ParseInventory(s.Hosts, s.Port)
	hosts := make([]string, len(list))
	for i, e := range list {
		hosts[i] = e.String()
	}
	return map[string]any{
		"hosts": len(hosts), "user": s.User, "port": cmp.Or(s.Port, 22), "jump": s.Jump, "sudo": s.Sudo, "credential": s.Credential, "hostKeys": s.HostKeys,
	}, hosts
}

func (k servers) inventory(_ context.Context, r *row, _ sealed) (machine.Inventory, *deploy.Failure) {
	s, err := k.settings(r)
	if err != nil {
		return machine.Inventory{}, deploy.Fail(deploy.ConnectorFailed, err.Error())
	}
	list, err := remote.ParseInventory(s.Hosts, s.Port)
	if err != nil {
		return machine.Inventory{}, deploy.Fail(deploy.ConnectorFailed, err.Error())
	}
	known := make([]machine.Known, len(list))
	for i, e := range list {
		known[i] = machine.Known{Key: e.Key(s.Port), Name: e.Name, Address: e.Address(s.Port), Login: e.User, System: "linux", Tags: tagsOf(e.Tags)}
	}
	return machine.Inventory{Machines: known, Place: remote.Place}, nil
}

func tagsOf(tags map[string]string) []machine.Tag {
	var list []machine.Tag
	for k, v := range tags {
		list = append(list, machine.Tag{Key: k, Value: v})
	}
	slices.SortFunc(list, func(a, b machine.Tag) int { return cmp.Compare(a.Key, b.Key) })
	return list
}

func (k servers) reach(ctx context.Context, r *row, secret sealed, m machine.Machine) (deploy.Host, error) {
	s, err := k.settings(r)
	if err != nil {
		return nil, deploy.Fail(deploy.ConnectorFailed, err.Error())
	}
	return k.dial(ctx, s, secret, m.Address, m.Login, &pins{c: k.c, connector: r.ID, policy: s})
}

// public is the public key of a private one, as it stands in authorized_keys.
func public(private, passphrase string) string {
	if private == "" {
		return ""
	}
	signer, err := remote.Key([]byte(private), passphrase)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(remote.AuthorizedKey(signer.PublicKey())) + " komainu"
}

// check says what is wrong with settings and their secrets, makes the CA that
// certificates need, and drops secrets that are not needed any more.
func (k servers) check(s SSH, secret *sealed) error {
	if _, err := remote.ParseInventory(s.Hosts, s.Port); err != nil {
		return fault.Wrap(fault.Invalid, err, "hosts")
	}
	if _, err := hops(s); err != nil {
		return err
	}
	if s.HostKeys == Listed {
		if _, err := parseKnownHosts(s.KnownHosts); err != nil {
			return err
		}
	}
	if s.Sudo != string(remote.WithPassword) {
		secret.SudoPassword = ""
	} else if secret.SudoPassword == "" && s.Credential != Push {
		return fault.New(fault.Invalid, "sudo wants a password: give it, or give the user NOPASSWD and choose passwordless")
	}
	if s.Credential != StoredKey {
		secret.PrivateKey, secret.Passphrase = "", ""
	}
	switch s.Credential {
	case StoredKey:
		if secret.PrivateKey == "" {
			return fault.New(fault.Invalid, "paste the private key that logs in to the machines")
		}
		if _, err := remote.Key([]byte(secret.PrivateKey), secret.Passphrase); err != nil {
			return err
		}
	case Certificate:
		if secret.CA == "" {
			ca, err := newCA()
			if err != nil {
				return err
			}
			secret.CA = ca
		}
	case Push:
	default:
		return fault.New(fault.Invalid, "credential %q: want push, certificate or key", s.Credential)
	}
	return nil
}

// hops are the jump hosts of a connector.
func hops(s SSH) ([]remote.Hop, error) {
	if strings.TrimSpace(s.Jump) == "" {
		return nil, nil
	}
	var all []remote.Hop
	for part := range strings.SplitSeq(s.Jump, ",") {
		list, err := remote.ParseInventory(strings.TrimSpace(part), 0)
		if err != nil || len(list) != 1 {
			return nil, fault.New(fault.Invalid, "jump host %q: want USER@HOST:PORT", strings.TrimSpace(part))
		}
		all = append(all, remote.Hop{Address: list[0].Address(0), User: cmp.Or(list[0].User, s.User)})
	}
	if len(all) > 4 {
		return nil, fault.New(fault.Invalid, "there are at most 4 jump hosts on a way")
	}
	return all, nil
}

func (k servers) dial(ctx context.Context, s SSH, secret sealed, address, login string, keys remote.HostKeys) (deploy.Host, error) {
	jump, err := hops(s)
	if err != nil {
		return nil, deploy.Fail(deploy.ConnectorFailed, err.Error())
	}
	target := remote.Hop{Address: address, User: cmp.Or(login, s.User)}
	if target.Auth, err = k.credential(s.Credential, secret, target.User, remote.ToRun); err != nil {
		return nil, err
	}
	for i := range jump {
		if jump[i].Auth, err = k.credential(s.Credential, secret, jump[i].User, remote.ToPass); err != nil {
			return nil, err
		}
	}
	sudo := remote.Sudo(s.Sudo)
	if target.User == "root" {
		sudo = remote.NoSudo
	}
	h, err := remote.Dial(ctx, remote.Config{Hop: target, Jump: jump, HostKeys: keys, Sudo: sudo, Password: secret.SudoPassword})
	if err != nil {
		return nil, err
	}
	return h, nil
}

// credential is what a connector logs in to a host with.
func (k servers) credential(kind string, s sealed, user string, purpose remote.Purpose) ([]ssh.AuthMethod, error) {
	switch kind {
	case StoredKey:
		signer, err := remote.Key([]byte(s.PrivateKey), s.Passphrase)
		if err != nil {
			return nil, deploy.Fail(deploy.ConnectorFailed, err.Error())
		}
		return []ssh.AuthMethod{ssh.PublicKeys(signer)}, nil
	case Certificate:
		ca, err := remote.Key([]byte(s.CA), "")
		if err != nil {
			return nil, deploy.Fail(deploy.ConnectorFailed, err.Error())
		}
		cert, err := remote.Issue(ca, purpose, user, certificateLife, k.c.cfg.Now())
		if err != nil {
			return nil, fmt.Errorf("issue a certificate: %w", err)
		}
		return []ssh.AuthMethod{ssh.PublicKeys(cert)}, nil
	}
	return nil, deploy.Fail(deploy.CredentialMissing, "")
}
