package azure

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v6"

	"komainu/control/connector/cloud"
	"komainu/deploy"
)

// pollEvery is how often Azure is asked how far an extension is.
const pollEvery = 2 * time.Second

type host struct {
	account     *Account
	group, name string
	location    string
	limits      deploy.Limits
}

// Reach returns the way to a machine after Azure has said that its agent is
// ready. The machine that has the name now has to be the one that is meant.
func (a *Account) Reach(ctx context.Context, id, address string) (deploy.Host, error) {
	r, err := arm.ParseResourceID(address)
	if err != nil || !strings.EqualFold(r.SubscriptionID, a.settings.SubscriptionID) || r.ResourceGroupName == "" || r.Name == "" {
		return nil, deploy.Failf(deploy.ConnectorFailed, "%q is no machine of the subscription", address)
	}
	v, err := a.machines.Get(ctx, r.ResourceGroupName, r.Name, &armcompute.VirtualMachinesClientGetOptions{Expand: new(armcompute.InstanceViewTypesInstanceView)})
	if err != nil {
		return nil, explain(err)
	}
	if v.Properties == nil || key(r.SubscriptionID, text(v.Properties.VMID)) != id {
		return nil, deploy.Fail(deploy.ConnectorFailed, "another machine has the name now; the inventory is read again in a few minutes")
	}
	if f := online(v.Properties.InstanceView); f != nil {
		return nil, f
	}
	h := &host{account: a, group: r.ResourceGroupName, name: r.Name, location: text(v.Location), limits: deploy.Limits{NoInput: true}}
	if a.settings.Certificates != "" {
		h.limits.Cloud = cloud.Azure
	}
	return h, nil
}

func (h *host) Limits() deploy.Limits { return h.limits }

func (h *host) Close() error { return nil }

// Run puts the script into the extension and waits until it has run. What is
// in protected settings is encrypted for the machine alone. The extension of
// a machine that the agent was removed from is removed too.
func (h *host) Run(ctx context.Context, script string, args []string, stdin io.Reader, line func(string)) error {
	if !cloud.Empty(stdin) {
		return errors.New("an extension gives a script no input")
	}
	packed, err := pack(cloud.Text(script, args))
	if err != nil {
		return err
	}
	clients := h.account.extensions
	begun, err := clients.BeginCreateOrUpdate(ctx, h.group, h.name, deploy.Extension, armcompute.VirtualMachineExtension{
		Location: &h.location,
		Properties: &armcompute.VirtualMachineExtensionProperties{
			Publisher: new("Microsoft.Azure.Extensions"), Type: new("CustomScript"), TypeHandlerVersion: new("2.1"), AutoUpgradeMinorVersion: new(true),
			ForceUpdateTag: new(rand.Text()), // else the same script would not run again
			Settings:       map[string]any{}, ProtectedSettings: map[string]any{"script": packed},
		},
	}, nil)
	if err != nil {
		return h.ended(ctx, err)
	}
	_, failed := begun.PollUntilDone(ctx, &runtime.PollUntilDoneOptions{Frequency: pollEvery})
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// Whether it went well or not: what the script has printed is there.
	got, err := clients.Get(ctx, h.group, h.name, deploy.Extension, &armcompute.VirtualMachineExtensionsClientGetOptions{Expand: new("instanceView")})
	if err != nil {
		return h.ended(ctx, err)
	}
	err = outcome(got.Properties, failed, line)
	if err == nil && len(args) > 0 && args[0] == "remove" {
		_, err = clients.BeginDelete(ctx, h.group, h.name, deploy.Extension, nil)
		return h.ended(ctx, err)
	}
	return err
}

// ended is an error, or why nobody waits any more.
func (h *host) ended(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return explain(err)
}

// pack is a script as the extension takes it.
func pack(script string) (string, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(script)); err != nil {
		return "", err
	}
	if err := z.Close(); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(b.Bytes()), nil
}

var exitForm = regexp.MustCompile(`exit status=(\d{1,3})`)

// outcome reads what a script came to from the status of the extension:
// "Enable succeeded: \n[stdout]\n…\n[stderr]\n…".
func outcome(p *armcompute.VirtualMachineExtensionProperties, failed error, line func(string)) error {
	if p == nil || p.InstanceView == nil || len(p.InstanceView.Statuses) == 0 || p.InstanceView.Statuses[0] == nil {
		if failed != nil {
			return explain(failed)
		}
		return deploy.Fail(deploy.CloudFailed, "the extension does not say what became of it")
	}
	message := text(p.InstanceView.Statuses[0].Message)
	_, output, _ := strings.Cut(message, "[stdout]")
	output, _, _ = strings.Cut(output, "[stderr]")
	cloud.Lines(output, deploy.Prefix, line)
	if m := exitForm.FindStringSubmatch(message); m != nil {
		code, _ := strconv.Atoi(m[1]) // digits
		return &deploy.Exit{Code: code, Tail: cloud.Tail(message)}
	}
	if failed != nil {
		return explain(failed)
	}
	return nil
}
