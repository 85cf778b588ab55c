package connector

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/uptrace/bun"
	"golang.org/x/crypto/ssh"

	"komainu/control/access"
	"komainu/control/db"
	"komainu/control/rest"
	"komainu/deploy"
	"komainu/deploy/remote"
	"komainu/fault"
)

type hostKey struct {
	bun.BaseModel `bun:"table:connector_host_keys"`

	ConnectorID string `bun:",pk"`
	Address     string `bun:",pk"`
	Key         string // as in authorized_keys
	FirstSeen   time.Time
	Offered     string
	OfferedAt   *time.Time
}

// Offered is a key that a host shows instead of the pinned one.
type Offered struct {
	Algorithm   string    `json:"algorithm"`
	Fingerprint string    `json:"fingerprint"`
	At          time.Time `json:"at"`
}

// HostKey is the pinned key of a host as it is shown.
type HostKey struct {
	Host        string    `json:"host" doc:"host:port"`
	Algorithm   string    `json:"algorithm"`
	Fingerprint string    `json:"fingerprint" doc:"SHA256:…"`
	FirstSeen   time.Time `json:"firstSeen"`
	Offered     *Offered  `json:"offered" doc:"the key that the host shows instead since then; it is not connected to"`
}

// HostKeys lists the pinned keys of a connector, those first whose host offers
// another one.
func (c *Connectors) HostKeys(ctx context.Context, organization string, q Query) (rest.List[HostKey], error) {
	if _, err := c.row(ctx, organization, q.ID); err != nil {
		return rest.List[HostKey]{}, err
	}
	offset, err := q.Offset()
	if err != nil {
		return rest.List[HostKey]{}, err
	}
	var rows []hostKey
	total, err := db.Page(ctx, c.cfg.DB.NewSelect().Model(&rows).Where("connector_id = ?", q.ID).OrderExpr("offered = '', address"), q.Limit, offset)
	if err != nil {
		return rest.List[HostKey]{}, err
	}
	items := []HostKey{}
	for _, k := range rows {
		v := HostKey{Host: k.Address, FirstSeen: k.FirstSeen}
		v.Algorithm, v.Fingerprint = named(k.Key)
		if k.Offered != "" {
			v.Offered = &Offered{At: *k.OfferedAt}
			v.Offered.Algorithm, v.Offered.Fingerprint = named(k.Offered)
		}
		items = append(items, v)
	}
	return rest.NewList(items, total, q.Next(offset, len(items), total)), nil
}

func named(line string) (algorithm, fingerprint string) {
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil {
		return "", ""
	}
	return key.Type(), ssh.FingerprintSHA256(key)
}

// Accept pins the key that a host offers now in the place of the one that it
// had. fingerprint is the one that somebody has compared.
func (c *Connectors) Accept(ctx context.Context, organization, id, host, fingerprint string) error {
	r, err := c.row(ctx, organization, id)
	if err != nil {
		return err
	}
	c.keys.Lock()
	defer c.keys.Unlock()
	return c.cfg.DB.RunInTx(ctx, nil, func(ctx context.Context, tx bun.Tx) error {
		var k hostKey
		err := tx.NewSelect().Model(&k).Where("connector_id = ? AND address = ?", id, host).Scan(ctx)
		if err := db.NotFound(err, "key of host", host); err != nil {
			return err
		}
		if _, offered := named(k.Offered); k.Offered == "" || offered != fingerprint {
			return fault.New(fault.Conflict, "%s does not offer a key with this fingerprint (any more); look at what it offers and compare again", host)
		}
		_, was := named(k.Key)
		k.Key, k.Offered, k.OfferedAt, k.FirstSeen = k.Offered, "", nil, c.now()
		if _, err := tx.NewUpdate().Model(&k).WherePK().Exec(ctx); err != nil {
			return err
		}
		return c.cfg.Record(ctx, tx, access.Change{Action: "connector.accept_host_key", Target: r.ID, Name: r.Name, Detail: map[string]string{"host": host, "was": was, "is": fingerprint}})
	})
}

// pins are the keys of the hosts of a connector; it is a remote.HostKeys.
type pins struct {
	c         *Connectors
	connector string
	policy    SSH
	// look is for what is not saved: no key is pinned or noted for it.
	look bool
}

// keyLimit bounds what a question to the database takes in a handshake, which
// knows no context.
const keyLimit = 10 * time.Second

// Check pins a key that is seen first, unless keys are listed.
func (p *pins) Check(address string, key ssh.PublicKey) error {
	if p.policy.HostKeys == Listed {
		return p.listed(address, key)
	}
	ctx, cancel := context.WithTimeout(context.Background(), keyLimit)
	defer cancel()
	p.c.keys.Lock()
	defer p.c.keys.Unlock()
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	known, err := p.pinned(ctx, address)
	if err != nil {
		return err
	}
	if known == nil && p.look {
		return nil
	}
	if known == nil {
		k := &hostKey{ConnectorID: p.connector, Address: address, Key: line, FirstSeen: p.c.now()}
		_, err := p.c.cfg.DB.NewInsert().Model(k).Exec(ctx)
		return err
	}
	if known.Key == line {
		return nil
	}
	if known.Offered != line && !p.look {
		known.Offered, known.OfferedAt = line, new(p.c.now())
		if _, err := p.c.cfg.DB.NewUpdate().Model(known).WherePK().Exec(ctx); err != nil {
			return err
		}
	}
	_, was := named(known.Key)
	return deploy.Failf(deploy.HostKeyChanged, "known is %s, it offers %s", was, ssh.FingerprintSHA256(key))
}

func (p *pins) pinned(ctx context.Context, address string) (*hostKey, error) {
	var keys []hostKey
	err := p.c.cfg.DB.NewSelect().Model(&keys).Where("connector_id = ? AND address = ?", p.connector, address).Scan(ctx)
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	return &keys[0], nil
}

func (p *pins) listed(address string, key ssh.PublicKey) error {
	list, err := parseKnownHosts(p.policy.KnownHosts)
	if err != nil {
		return deploy.Fail(deploy.ConnectorFailed, err.Error())
	}
	other := ""
	for _, k := range list {
		if k.revoked && bytes.Equal(k.key.Marshal(), key.Marshal()) {
			return deploy.Failf(deploy.HostKeyChanged, "%s is revoked in the list", ssh.FingerprintSHA256(key))
		}
	}
	for _, k := range list {
		if !k.is(address) {
			continue
		}
		if bytes.Equal(k.key.Marshal(), key.Marshal()) {
			return nil
		}
		other = ssh.FingerprintSHA256(k.key)
	}
	if other != "" {
		return deploy.Failf(deploy.HostKeyChanged, "listed is %s, it offers %s", other, ssh.FingerprintSHA256(key))
	}
	return deploy.Failf(deploy.HostKeyUnknown, "%s offers %s", address, ssh.FingerprintSHA256(key))
}

// Algorithms asks a host for the kind of key that it is known by: another kind
// of key would look like another host.
func (p *pins) Algorithms(address string) []string {
	var kinds []string
	if p.policy.HostKeys == Listed {
		list, _ := parseKnownHosts(p.policy.KnownHosts)
		for _, k := range list {
			if k.is(address) {
				kinds = append(kinds, k.key.Type())
			}
		}
	} else {
		ctx, cancel := context.WithTimeout(context.Background(), keyLimit)
		defer cancel()
		known, err := p.pinned(ctx, address)
		if err != nil || known == nil {
			return nil
		}
		kind, _ := named(known.Key)
		kinds = append(kinds, kind)
	}
	var algorithms []string
	for _, kind := range kinds {
		if kind == ssh.KeyAlgoRSA {
			algorithms = append(algorithms, ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256)
			continue
		}
		algorithms = append(algorithms, kind)
	}
	return algorithms
}

// knownHost is a line of known_hosts.
type knownHost struct {
	hosts   []string
	key     ssh.PublicKey
	revoked bool // nobody may show the key, whatever hosts the line names
}

func (k knownHost) is(address string) bool {
	_, wanted := remote.Place(address)
	return !k.revoked && slices.ContainsFunc(k.hosts, func(name string) bool {
		if !strings.HasPrefix(name, "[") {
			name = net.JoinHostPort(name, "22")
		}
		_, at := remote.Place(name)
		return at == wanted
	})
}

// parseKnownHosts reads lines as ssh-keyscan prints them.
func parseKnownHosts(text string) ([]knownHost, error) {
	var list []knownHost
	number, some := 0, false
	for line := range strings.Lines(text) {
		number++
		marker, hosts, key, _, _, err := ssh.ParseKnownHosts([]byte(line))
		if errors.Is(err, io.EOF) {
			continue // nothing is in it
		}
		if err != nil {
			return nil, fault.New(fault.Invalid, "known hosts: line %d cannot be read; paste what ssh-keyscan HOST prints", number)
		}
		for _, h := range hosts {
			if strings.HasPrefix(h, "|") {
				return nil, fault.New(fault.Invalid, "known hosts: names that are hashed cannot be matched with the list of hosts; paste what ssh-keyscan HOST prints")
			}
		}
		if marker == "" || marker == "revoked" {
			list = append(list, knownHost{hosts, key, marker != ""})
			some = some || marker == ""
		}
	}
	if !some {
		return nil, fault.New(fault.Invalid, "no host is listed; paste what ssh-keyscan HOST prints, or let the connector pin keys when it sees them first")
	}
	return list, nil
}

// newCA makes the key that signs the certificates of a connector.
func newCA() (string, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", err
	}
	block, err := ssh.MarshalPrivateKey(private, "komainu")
	if err != nil {
		return "", err
	}
	return string(pem.EncodeToMemory(block)), nil
}
