package gcp

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/api/compute/v1"

	"komainu/control/connector/cloud"
	"komainu/deploy"
)

// Bounds of an inventory.
const (
	perPage  = 500
	maxPages = 5000
)

// List asks for the instances of all zones at once. Zones that do not answer
// are named by Google beside those that do.
func (a *Account) List(ctx context.Context) (cloud.Inventory, error) {
	var found cloud.Inventory
	next := ""
	for n := 0; ; n++ {
		page, err := a.api.instances(ctx, a.settings.ProjectID, next)
		if err != nil {
			return cloud.Inventory{}, explain(err)
		}
		a.take(&found, page)
		switch {
		case page.NextPageToken == "":
			return found, nil
		case page.NextPageToken == next || n >= maxPages:
			return cloud.Inventory{}, explain(fmt.Errorf("the list does not end after %d pages", n+1))
		case len(found.Machines) > cloud.MaxMachines:
			return cloud.Inventory{}, explain(fmt.Errorf("the project names more than %d instances", cloud.MaxMachines))
		}
		next = page.NextPageToken
	}
}

// take adds what a page says.
func (a *Account) take(found *cloud.Inventory, page *compute.InstanceAggregatedList) {
	for _, where := range page.Unreachables {
		a.miss(found, where, "the zone is unreachable")
	}
	if w := page.Warning; w != nil && len(page.Unreachables) == 0 && partial(w.Code) {
		a.miss(found, "", w.Code+": "+w.Message)
	}
	for where, in := range page.Items {
		if in.Warning != nil && partial(in.Warning.Code) {
			a.miss(found, where, in.Warning.Code+": "+in.Warning.Message)
		}
		for _, i := range in.Instances {
			if m, ok := a.describe(i); ok {
				found.Machines = append(found.Machines, m)
			}
		}
	}
}

// partial reports whether a warning means that instances may be missing.
func partial(code string) bool { return code == "UNREACHABLE" || code == "PARTIAL_SUCCESS" }

// miss notes a zone that did not answer, once, or the whole project where
// Google does not say which one.
func (a *Account) miss(found *cloud.Inventory, where, why string) {
	zone := path.Base(where)
	holds := func(key string) bool { _, z, _ := parseKey(key); return z == zone }
	if !zoneForm.MatchString(zone) {
		zone, holds = a.settings.ProjectID, func(string) bool { return true }
	} else if !a.settings.within(zone) {
		return
	}
	if !slices.ContainsFunc(found.Missed, func(m cloud.Missed) bool { return m.Part == zone }) {
		found.Missed = append(found.Missed, cloud.Missed{Part: zone, Holds: holds, Reason: deploy.ReasonOf(deploy.CloudFailed, cloud.Tail(why))})
	}
}

// describe turns an instance into a machine; false for one that is not the
// connector's or is about to be deleted.
func (a *Account) describe(i *compute.Instance) (cloud.Machine, bool) {
	zone := path.Base(i.Zone)
	if i.Id == 0 || !zoneForm.MatchString(zone) || !a.settings.within(zone) {
		return cloud.Machine{}, false
	}
	m := cloud.Machine{Key: key(a.settings.ProjectID, zone, strconv.FormatUint(i.Id, 10)), Name: i.Name, Tags: map[string]string{}, Stopped: stopped(i.Status)}
	for k, v := range i.Labels {
		if k != label { // which is ours
			m.Tags[k] = v
		}
	}
	if len(i.NetworkInterfaces) > 0 {
		m.Address = i.NetworkInterfaces[0].NetworkIP
	}
	m.System, m.OS, m.Arch = system(i)
	if f := equipped(i); f != nil {
		m.Problem = &f.Reason
	}
	return m, true
}

// stopped reports whether a state is one in which nothing runs. Google says
// TERMINATED of an instance that is stopped.
func stopped(status string) bool {
	switch status {
	case "TERMINATED", "STOPPED", "STOPPING", "SUSPENDED", "SUSPENDING", "PENDING_STOP":
		return true
	}
	return false
}

// system says what an instance was started from: what the licences and the
// features of its boot disk tell.
func system(i *compute.Instance) (name, detail, arch string) {
	name = "linux"
	for _, d := range i.Disks {
		if !d.Boot {
			continue
		}
		switch d.Architecture {
		case "X86_64":
			arch = "amd64"
		case "ARM64":
			arch = "arm64"
		}
		for _, f := range d.GuestOsFeatures {
			if f.Type == "WINDOWS" {
				name = "windows"
			}
		}
		for _, l := range d.Licenses {
			if strings.Contains(l, "/windows-") {
				name = "windows"
			}
			if detail == "" {
				detail = path.Base(l)
			}
		}
	}
	return name, detail, arch
}

// equipped says why OS Config cannot run anything on an instance, as far as
// the instance itself tells.
func equipped(i *compute.Instance) *deploy.Failure {
	if len(i.ServiceAccounts) == 0 {
		return deploy.Fail(deploy.CloudAgent, "the instance has no service account, by which the OS Config agent and its identity token go")
	}
	return nil
}

// key names an instance by its number: its name would be that of another one
// after it was deleted and made again.
func key(project, zone, id string) string { return "gcp:" + project + ":" + zone + ":" + id }

func parseKey(key string) (project, zone, id string) {
	parts := strings.Split(key, ":")
	if len(parts) != 4 || parts[0] != "gcp" {
		return "", "", ""
	}
	return parts[1], parts[2], parts[3]
}
