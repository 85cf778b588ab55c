package control

import (
	"context"
	"slices"
	"time"

	"github.com/uptrace/bun"

	"komainu/control/content"
	"komainu/control/device"
	"komainu/control/notify"
	"komainu/control/policies"
	"komainu/control/upgrade"
	"komainu/deploy"
	"komainu/event"
	"komainu/finding"
	"komainu/policy"
)

// upgradeConfig joins upgrades with what they are about.
func (o *onboarding) upgradeConfig(n neighbours) upgrade.Config {
	tier := o.tier(n.plans)
	return upgrade.Config{
		DB: n.state, Log: part(n.log, "upgrade"), Record: n.trail.Record,
		Devices: func(organization string) (list []upgrade.Device) {
			now := time.Now()
			for _, m := range n.devices.Members() {
				if m.Organization == organization && tier(m.Environment, m.ID) != policy.Off {
					list = append(list, o.upgradable(n, m, now))
				}
			}
			return list
		},
		Newest: func() string {
			if list := o.repository.List(); len(list) > 0 {
				return list[0].Version
			}
			return ""
		},
		Offers: func(version, form, arch string) bool {
			return slices.ContainsFunc(o.repository.List(), func(p content.Package) bool {
				return p.Version == version && (form == "" || p.Format == form) && (arch == "" || p.Arch == arch)
			})
		},
		Send: func(ctx context.Context, id event.DeviceID, u deploy.Upgrade) error {
			return n.agents.Upgrade(ctx, id, u)
		},
		Halted: func(ctx context.Context, tx bun.IDB, organization, rollout, version string, why deploy.Reason) error {
			summary := why.Text
			if why.Detail != "" {
				summary += ": " + why.Detail
			}
			return n.notices.Enqueue(ctx, tx, organization, notify.Message{
				Event: "upgrade.halted", Severity: finding.Medium, Title: "the upgrade of the agents to " + version, Summary: summary, Status: "Halted",
				Subject: notify.Subject{Kind: "upgrade", ID: rollout}, Link: n.address + "/upgrades",
			})
		},
		Changed: func(organization string) {
			n.notices.Wake()
			n.changes.publish(organization, topicUpgrade, "")
		},
	}
}

func (o *onboarding) upgradable(n neighbours, m device.Member, now time.Time) upgrade.Device {
	s, _ := n.devices.State(m.ID)
	window := o.engine.Settings(m.Environment).Window
	member := policies.Device(m)
	return upgrade.Device{
		ID: m.ID, Name: m.Name, Version: s.Version, Form: s.Form, Arch: s.Arch, Groups: n.rules.GroupsOf(&member), Connected: s.Connected, LastSeen: s.LastSeen,
		Healthy: s.Healthy, Reported: s.Reported, Problem: s.Problem, Open: window == nil || window.Open(now),
	}
}

// given returns the package that a host is to have, whoever brings it there. A
// host whose agent is a device keeps the version that it has until its rollout
// comes to it; why says then what keeps it from a newer one. Others get what
// new machines get.
func (o *onboarding) given(organization string, id event.DeviceID, has, format, arch string) (p content.Package, ok bool, why string) {
	if id == "" || has == "" {
		p, ok = o.wanted(organization, format, arch)
		return p, ok, ""
	}
	version, why := o.rollouts.Due(organization, id, has)
	p, ok = o.repository.Find(version, format, arch)
	return p, ok, why
}

// wanted returns the package that a new machine gets: the version that was
// rolled out last, never one whose rollout was halted or taken back.
func (o *onboarding) wanted(organization, format, arch string) (content.Package, bool) {
	version, avoid := o.rollouts.Wanted(organization)
	if p, ok := o.repository.Find(version, format, arch); ok {
		return p, true
	}
	for _, p := range o.repository.List() {
		if p.Format == format && p.Arch == arch && !slices.Contains(avoid, p.Version) {
			return p, true
		}
	}
	return content.Package{}, false
}
