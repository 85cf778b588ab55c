package connector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"komainu/control/connector/aws"
	"komainu/control/connector/azure"
	"komainu/control/connector/cloud"
	"komainu/control/connector/gcp"
	"komainu/control/machine"
	"komainu/deploy"
	"komainu/fault"
)

// kind is one way to machines.
type kind interface {
	// apply takes settings and secrets of a change over, says what is wrong
	// with them, and drops secrets that are not needed any more.
	apply(change Change, s *sealed) (settings any, err error)
	// show adds settings to a view, without what is secret.
	show(v *Connector, r *row, s sealed)
	// described is what the audit log keeps of settings, and the hosts that
	// they name; nil where a cloud knows them.
	described(settings json.RawMessage) (fields map[string]any, hosts []string)
	// inventory asks for the machines. With a failure, what it could learn is
	// returned all the same.
	inventory(ctx context.Context, r *row, s sealed) (machine.Inventory, *deploy.Failure)
	// reach returns the way to one machine.
	reach(ctx context.Context, r *row, s sealed, m machine.Machine) (deploy.Host, error)
	// testable says why something cannot be tried.
	testable(t trial) error
	// try looks without changing anything.
	try(ctx context.Context, t trial) (Report, error)
}

// recognizer is a kind whose machines can prove who they are.
type recognizer interface {
	// recognize returns the key of the machine that evidence is about.
	recognize(ctx context.Context, r *row, e cloud.Evidence) (key string, err error)
}

// clouds is the kind of connectors for a cloud whose settings are an S.
type clouds[S any] struct {
	name string
	// settings and secret point to where a change has them.
	settings func(*Change) *S
	secret   func(*Secret) *string
	// check says what is wrong, and whether the settings want a secret.
	check     func(s *S, secret string, o cloud.Options) (wanted bool, err error)
	open      func(ctx context.Context, s S, secret string, o cloud.Options) (cloud.Account, error)
	view      func(v *Connector, s S, hasSecret bool)
	describe  func(s S) map[string]any
	identify  func(ctx context.Context, s S, e cloud.Evidence, o cloud.Options) (string, error)
	options   cloud.Options
	unchecked string // the label
}

// AWSView are the settings of an AWS connector as they are shown.
type AWSView struct {
	aws.Settings
	HasSecret bool `json:"hasSecret" doc:"whether a secret access key is stored"`
}

func awsKind(c *Connectors) kind {
	return clouds[aws.Settings]{
		name: cloud.AWS, options: c.cfg.Clouds, unchecked: cloud.Unverified,
		settings: func(c *Change) *aws.Settings { return c.AWS },
		secret:   func(s *Secret) *string { return &s.SecretAccessKey },
		check:    func(s *aws.Settings, secret string, o cloud.Options) (bool, error) { return s.Check(secret, o) },
		open: func(ctx context.Context, s aws.Settings, secret string, o cloud.Options) (cloud.Account, error) {
			return aws.Open(ctx, s, secret, o)
		},
		view: func(v *Connector, s aws.Settings, has bool) { v.AWS = &AWSView{s, has} },
		describe: func(s aws.Settings) map[string]any {
			return map[string]any{"regions": s.Regions, "role": s.RoleARN, "accessKey": s.AccessKeyID}
		},
		identify: func(_ context.Context, s aws.Settings, e cloud.Evidence, o cloud.Options) (string, error) {
			return s.Identify(e, o)
		},
	}
}

// AzureView are the settings of an Azure connector as they are shown.
type AzureView struct {
	azure.Settings
	HasSecret bool `json:"hasSecret" doc:"whether a client secret is stored"`
}

func azureKind(c *Connectors) kind {
	return clouds[azure.Settings]{
		name: cloud.Azure, options: c.cfg.Clouds, unchecked: cloud.Unverified,
		settings: func(c *Change) *azure.Settings { return c.Azure },
		secret:   func(s *Secret) *string { return &s.ClientSecret },
		check:    func(s *azure.Settings, secret string, o cloud.Options) (bool, error) { return s.Check(secret, o) },
		open: func(_ context.Context, s azure.Settings, secret string, o cloud.Options) (cloud.Account, error) {
			return azure.Open(s, secret, o)
		},
		view: func(v *Connector, s azure.Settings, has bool) { v.Azure = &AzureView{s, has} },
		describe: func(s azure.Settings) map[string]any {
			return map[string]any{"tenant": s.TenantID, "subscription": s.SubscriptionID, "client": s.ClientID, "resourceGroups": s.ResourceGroups}
		},
		identify: func(_ context.Context, s azure.Settings, e cloud.Evidence, o cloud.Options) (string, error) {
			return s.Identify(e, o)
		},
	}
}

// GCPView are the settings of a Google Cloud connector as they are shown.
type GCPView struct {
	gcp.Settings
	HasSecret bool `json:"hasSecret" doc:"whether the key of a service account is stored"`
}

func gcpKind(c *Connectors) kind {
	keys := gcp.NewKeys(c.cfg.Clouds) // of Google: the same for all connectors
	return clouds[gcp.Settings]{
		name: cloud.GCP, options: c.cfg.Clouds, unchecked: cloud.Unverified,
		settings: func(c *Change) *gcp.Settings { return c.GCP },
		secret:   func(s *Secret) *string { return &s.ServiceAccountKey },
		check:    func(s *gcp.Settings, secret string, o cloud.Options) (bool, error) { return s.Check(secret, o) },
		open: func(ctx context.Context, s gcp.Settings, secret string, o cloud.Options) (cloud.Account, error) {
			return gcp.Open(ctx, s, secret, o)
		},
		view: func(v *Connector, s gcp.Settings, has bool) { v.GCP = &GCPView{s, has} },
		describe: func(s gcp.Settings) map[string]any {
			return map[string]any{"project": s.ProjectID, "zones": s.Zones, "serviceAccount": s.ServiceAccount}
		},
		identify: func(ctx context.Context, s gcp.Settings, e cloud.Evidence, o cloud.Options) (string, error) {
			return s.Identify(ctx, e, o, keys)
		},
	}
}

func (k clouds[S]) of(settings json.RawMessage) (s S, err error) {
	err = json.Unmarshal(settings, &s)
	return s, err
}

func (k clouds[S]) apply(change Change, s *sealed) (any, error) {
	settings := k.settings(&change)
	if settings == nil {
		return nil, fault.New(fault.Invalid, "the settings of the connector are missing")
	}
	secret := *k.secret(&s.Secret)
	if text := strings.TrimSpace(*k.secret(change.Secret)); text != "" {
		secret = text
	}
	wanted, err := k.check(settings, secret, k.options)
	if err != nil {
		return nil, err
	}
	*s = sealed{} // of this kind there is one secret
	if wanted {
		*k.secret(&s.Secret) = secret
	}
	return settings, nil
}

func (k clouds[S]) show(v *Connector, r *row, s sealed) {
	v.Verified = k.unchecked
	if settings, err := k.of(r.Settings); err == nil {
		k.view(v, settings, *k.secret(&s.Secret) != "")
	}
}

func (k clouds[S]) described(settings json.RawMessage) (map[string]any, []string) {
	s, err := k.of(settings)
	if err != nil {
		return map[string]any{}, nil
	}
	return k.describe(s), nil
}

func (k clouds[S]) account(ctx context.Context, r *row, s sealed) (cloud.Account, error) {
	settings, err := k.of(r.Settings)
	if err != nil {
		return nil, deploy.Fail(deploy.ConnectorFailed, err.Error())
	}
	return k.open(ctx, settings, *k.secret(&s.Secret), k.options)
}

func (k clouds[S]) list(ctx context.Context, r *row, s sealed) (cloud.Inventory, *deploy.Failure) {
	account, err := k.account(ctx, r, s)
	if err != nil {
		return cloud.Inventory{}, failure(err)
	}
	found, err := account.List(ctx)
	if err != nil {
		return cloud.Inventory{}, failure(err)
	}
	return found, nil
}

// inventory asks the cloud. Where only a part of an account answers, the
// machines of the others stay as they were.
func (k clouds[S]) inventory(ctx context.Context, r *row, s sealed) (machine.Inventory, *deploy.Failure) {
	found, failed := k.list(ctx, r, s)
	if failed != nil {
		return machine.Inventory{}, failed
	}
	i := machine.Inventory{Missed: func(key string) bool {
		return slices.ContainsFunc(found.Missed, func(m cloud.Missed) bool { return m.Holds(key) })
	}}
	seen := map[string]bool{}
	for _, m := range found.Machines {
		if !seen[m.Key] && len(i.Machines) < cloud.MaxMachines {
			seen[m.Key] = true
			i.Machines = append(i.Machines, known(m))
		}
	}
	if len(found.Missed) == 0 {
		return i, nil
	}
	var parts []string
	for _, m := range found.Missed {
		parts = append(parts, m.Part+": "+m.Reason.Text+" ("+m.Reason.Detail+")")
	}
	return i, deploy.Fail(deploy.InventoryPartial, plain(strings.Join(parts, "; "), 600))
}

func (k clouds[S]) reach(ctx context.Context, r *row, s sealed, m machine.Machine) (deploy.Host, error) {
	account, err := k.account(ctx, r, s)
	if err != nil {
		return nil, err
	}
	return account.Reach(ctx, m.ExternalID, m.Address)
}

// testable is always so: the secret of a cloud goes to that cloud alone.
func (clouds[S]) testable(trial) error { return nil }

// try lists the machines and says which of them the cloud can run something
// on. It runs nothing.
func (k clouds[S]) try(ctx context.Context, t trial) (Report, error) {
	ctx, cancel := context.WithTimeout(ctx, askedLimit)
	defer cancel()
	found, failed := k.list(ctx, t.row, t.secret)
	if failed != nil {
		return Report{Hosts: []Tried{{Name: t.Name, Reason: &failed.Reason}}}, nil
	}
	report := Report{Total: len(found.Machines), Hosts: []Tried{}}
	for _, m := range found.Missed {
		report.Hosts = append(report.Hosts, Tried{Name: m.Part, Reason: &m.Reason})
	}
	report.Total += len(report.Hosts)
	for _, m := range found.Machines[:min(len(found.Machines), maxTried)] {
		named := known(m)
		t := Tried{Name: named.Name, Address: named.Address, Reason: m.Problem, Facts: &deploy.Facts{OSName: named.OS, Arch: named.Arch}}
		switch {
		case m.System == "windows":
			t.Reason = new(deploy.ReasonOf(deploy.Windows, ""))
		case m.Stopped:
			t.Reason = new(deploy.ReasonOf(deploy.Stopped, ""))
		}
		t.OK = t.Reason == nil
		report.Hosts = append(report.Hosts, t)
	}
	return report, nil
}

func (k clouds[S]) recognize(ctx context.Context, r *row, e cloud.Evidence) (string, error) {
	settings, err := k.of(r.Settings)
	if err != nil {
		return "", err
	}
	return k.identify(ctx, settings, e, k.options)
}

// known takes over what a cloud says of a machine. Names and tags are what
// anybody with access to the account has written.
func known(m cloud.Machine) machine.Known {
	k := machine.Known{
		Key: m.Key, Name: plain(m.Name, 253), Address: plain(m.Address, 512), System: plain(m.System, 40), OS: plain(m.OS, 200), Arch: plain(m.Arch, 40), Stopped: m.Stopped,
	}
	if k.Name == "" {
		k.Name = plain(m.Key, 253)
	}
	for _, t := range tagsOf(m.Tags) {
		t.Key, t.Value = plain(t.Key, 128), plain(t.Value, 256)
		if t.Key != "" && len(k.Tags) < 64 {
			k.Tags = append(k.Tags, t)
		}
	}
	return k
}

// plain makes one short line of a text.
func plain(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "")
	}
	return strings.TrimSpace(text)
}

// failure is an error as a reason.
func failure(err error) *deploy.Failure {
	if f, ok := errors.AsType[*deploy.Failure](err); ok {
		return f
	}
	return deploy.Fail(deploy.ConnectorFailed, fmt.Sprint(err))
}
