package gcp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/api/compute/v1"
	"google.golang.org/api/osconfig/v1"

	"komainu/control/connector/cloud"
	"komainu/deploy"
)

// label is set on an instance while something is run there: OS Config aims at
// labels, not at instances. Its value is made anew for every run.
const label = "komainu-run"

// Bounds of a run.
const (
	takenLimit = 6 * time.Minute // until the OS Config agent has reported
	sweepLimit = 30 * time.Second
	firstSweep = 2 // of the pauses in between
	// stale is when an assignment that was left behind does nothing any more.
	stale = time.Hour
	// relabels is how often labels are set again that somebody else changed
	// meanwhile.
	relabels = 4
)

type host struct {
	account           *Account
	project, zone, id string
}

// Reach returns the way to an instance after Google has said that it runs and
// that its OS Config agent has reported.
func (a *Account) Reach(ctx context.Context, key, _ string) (deploy.Host, error) {
	project, zone, id := parseKey(key)
	if project != a.settings.ProjectID || !zoneForm.MatchString(zone) || !numberForm.MatchString(id) {
		return nil, deploy.Failf(deploy.ConnectorFailed, "%q is no instance of the project", key)
	}
	h := &host{a, project, zone, id}
	i, err := h.get(ctx)
	if err != nil {
		return nil, explain(err)
	}
	if stopped(i.Status) {
		return nil, deploy.Fail(deploy.Stopped, "")
	}
	if f := equipped(i); f != nil {
		return nil, f
	}
	_, err = a.api.inventory(ctx, h.location()+"/instances/"+id+"/inventory")
	if gone(err) {
		return nil, deploy.Fail(deploy.CloudAgent, "OS Config does not know the instance: its OS Config agent does not run, or enable-osconfig is not TRUE in the metadata")
	}
	if err != nil {
		return nil, explain(err)
	}
	return h, nil
}

func (h *host) location() string { return "projects/" + h.project + "/locations/" + h.zone }

// mine begins the names of the assignments for the instance.
func (h *host) mine() string { return "komainu-" + h.id + "-" }

func (h *host) Limits() deploy.Limits { return deploy.Limits{NoInput: true, Cloud: cloud.GCP} }

func (h *host) Close() error { return nil }

// Run has OS Config run a script by an assignment of an OS policy that is aimed
// at a label of the instance. Both are removed afterwards, also what a control
// plane that was ended in between has left.
func (h *host) Run(ctx context.Context, script string, args []string, stdin io.Reader, line func(string)) error {
	if !cloud.Empty(stdin) {
		return errors.New("OS Config gives a script no input")
	}
	run := "k" + strings.ToLower(rand.Text())
	policy, err := policyOf(run, cloud.Text(script, args), time.Now().Add(stale))
	if err != nil {
		return err
	}
	defer h.sweep(context.WithoutCancel(ctx))
	output, err := h.run(ctx, run, policy)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return explain(err)
	}
	return outcome(run, output, line)
}

func (h *host) run(ctx context.Context, run string, policy *osconfig.OSPolicy) (string, error) {
	if _, err := h.unassign(ctx); err != nil {
		return "", err
	}
	if err := h.mark(ctx, run); err != nil {
		return "", err
	}
	_, err := h.account.api.assign(ctx, h.location(), h.mine()+run, &osconfig.OSPolicyAssignment{
		Description: "Komainu installs, checks or removes its agent on one instance. It is deleted afterwards.",
		OsPolicies:  []*osconfig.OSPolicy{policy},
		InstanceFilter: &osconfig.OSPolicyAssignmentInstanceFilter{
			InclusionLabels: []*osconfig.OSPolicyAssignmentLabelSet{{Labels: map[string]string{label: run}}},
		},
		Rollout: &osconfig.OSPolicyAssignmentRollout{DisruptionBudget: &osconfig.FixedOrPercent{Fixed: 1}, MinWaitDuration: "0s"},
	})
	if err != nil && !answered(err, http.StatusConflict) { // of that name there is only ours
		return "", err
	}
	return h.wait(ctx, run)
}

// sweep removes what a run needs. What cannot be removed now is by the next
// run, and does nothing after a while.
func (h *host) sweep(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, sweepLimit)
	defer cancel()
	_ = h.mark(ctx, "")
	for asked := firstSweep; ; asked++ {
		if refused, err := h.unassign(ctx); err != nil || refused == 0 {
			return
		}
		select { // an assignment that is on its way to machines may have to arrive first
		case <-ctx.Done():
			return
		case <-time.After(cloud.Pause(asked)):
		}
	}
}

// unassign deletes the assignments for the instance, and returns how many
// Google does not delete now.
func (h *host) unassign(ctx context.Context) (refused int, err error) {
	next := ""
	for range maxPages {
		page, err := h.account.api.assignments(ctx, h.location(), next)
		if err != nil {
			return refused, err
		}
		for _, a := range page.OsPolicyAssignments {
			name := path.Base(a.Name)
			if a.Deleted || !strings.HasPrefix(name, h.mine()) {
				continue
			}
			_, err := h.account.api.unassign(ctx, h.location()+"/osPolicyAssignments/"+name)
			switch {
			case answered(err, http.StatusConflict, http.StatusBadRequest):
				refused++
			case err != nil && !gone(err):
				return refused, err
			}
		}
		if next = page.NextPageToken; next == "" {
			return refused, nil
		}
	}
	return refused, fmt.Errorf("the list of assignments has more than %d pages", maxPages)
}

func (h *host) get(ctx context.Context) (*compute.Instance, error) {
	i, err := h.account.api.instance(ctx, h.project, h.zone, h.id)
	if gone(err) || err == nil && strconv.FormatUint(i.Id, 10) != h.id {
		return nil, deploy.Fail(deploy.ConnectorFailed, "the instance is not there any more; the inventory is read again in a few minutes")
	}
	return i, err
}

// mark sets the label of an instance, or removes it. The other labels stay:
// Google refuses the change when somebody has changed one since they were read.
func (h *host) mark(ctx context.Context, value string) error {
	for n := 1; ; n++ {
		i, err := h.get(ctx)
		if err != nil || i.Labels[label] == value {
			return err
		}
		labels := map[string]string{}
		maps.Copy(labels, i.Labels)
		if labels[label] = value; value == "" {
			delete(labels, label)
		}
		change := &compute.InstancesSetLabelsRequest{Labels: labels, LabelFingerprint: i.LabelFingerprint, ForceSendFields: []string{"Labels"}}
		begun, err := h.account.api.setLabels(ctx, h.project, h.zone, h.id, change)
		if answered(err, http.StatusPreconditionFailed) && n < relabels {
			continue
		}
		if err != nil {
			return err
		}
		return h.done(ctx, begun)
	}
}

// done waits until an operation on the instance has ended.
func (h *host) done(ctx context.Context, o *compute.Operation) error {
	for o.Status != "DONE" {
		var err error
		if o, err = h.account.api.operation(ctx, h.project, h.zone, o.Name); err != nil {
			return err
		}
	}
	if o.Error != nil && len(o.Error.Errors) > 0 {
		return deploy.Fail(deploy.CloudFailed, cloud.Tail(o.Error.Errors[0].Code+": "+o.Error.Errors[0].Message))
	}
	return nil
}

// wait asks until the instance has reported what the script came to, and
// returns what it has printed.
func (h *host) wait(ctx context.Context, run string) (string, error) {
	start := time.Now()
	name := h.location() + "/instances/" + h.id + "/osPolicyAssignments/" + h.mine() + run + "/report"
	for asked := 0; ; asked++ {
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(2 * cloud.Pause(asked)): // it takes minutes rather than seconds
		}
		report, err := h.account.api.report(ctx, name)
		if err != nil && !gone(err) {
			return "", err
		}
		if err == nil {
			if output, done, err := reported(report, run); done || err != nil {
				return output, err
			}
		}
		if time.Since(start) > takenLimit {
			return "", deploy.Failf(deploy.CloudAgent, "the OS Config agent has not reported for %s", takenLimit)
		}
	}
}

// reported reads the report of an instance; done is false while there is
// nothing in it yet.
func reported(r *osconfig.OSPolicyAssignmentReport, run string) (output string, done bool, err error) {
	at := slices.IndexFunc(r.OsPolicyCompliances, func(c *osconfig.OSPolicyAssignmentReportOSPolicyCompliance) bool {
		return c != nil && c.OsPolicyId == run
	})
	if at < 0 {
		return "", false, nil
	}
	policy := r.OsPolicyCompliances[at]
	var problems []string
	for _, resource := range policy.OsPolicyResourceCompliances {
		if resource == nil || resource.OsPolicyResourceId != resourceID {
			continue
		}
		if o := resource.ExecResourceOutput; o != nil && o.EnforcementOutput != "" {
			return o.EnforcementOutput, true, nil
		}
		for _, s := range resource.ConfigSteps {
			if s != nil && s.ErrorMessage != "" {
				problems = append(problems, s.ErrorMessage)
			}
		}
	}
	switch reason := policy.ComplianceStateReason; {
	case reason == "os-policy-execution-pending" || policy.ComplianceState == "" || policy.ComplianceState == "UNKNOWN" && reason == "":
		return "", false, nil
	case reason == "vm-not-running":
		return "", true, deploy.Fail(deploy.Stopped, "")
	case reason == "no-agent-detected" || reason == "os-policies-not-supported-by-agent":
		return "", true, deploy.Fail(deploy.CloudAgent, "OS Config: "+reason)
	case reason == "task-timeout":
		return "", true, deploy.Fail(deploy.TimedOut, "OS Config has ended the script")
	case policy.ComplianceState == "COMPLIANT":
		return "", true, deploy.Fail(deploy.CloudFailed, "OS Config says that the script did not have to run: is the clock of the machine right?")
	default:
		return "", true, deploy.Fail(deploy.CloudFailed, cloud.Tail("OS Config: "+policy.ComplianceState+" "+reason+" "+strings.Join(problems, "; ")))
	}
}
