// Package azure reaches virtual machines of Azure: it lists them, runs scripts
// on them by the extension CustomScript, and checks the attested documents by
// which they say who they are.
package azure

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/arm"
	azcloud "github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v6"

	"komainu/control/connector/cloud"
	"komainu/deploy"
	"komainu/fault"
)

// Settings are the settings of a connector for Azure.
type Settings struct {
	TenantID       string   `json:"tenantId" maxLength:"36"`
	SubscriptionID string   `json:"subscriptionId" maxLength:"36"`
	ClientID       string   `json:"clientId,omitempty" maxLength:"36" doc:"of an app registration; left out: the managed identity of the control plane's own machine, where the installation allows that"`
	ResourceGroups []string `json:"resourceGroups,omitempty" maxItems:"100" doc:"all of the subscription when left out"`
	Cloud          string   `json:"cloud,omitempty" enum:"public,china,government" doc:"public when left out"`
	Certificates   string   `json:"certificates,omitempty" maxLength:"200000" doc:"PEM: the intermediate certificates of attested documents; machines enrol by them then, else by join tokens"`
}

// What becomes a part of an address has a strict form: settings must not lead
// the control plane to other hosts.
var (
	idForm    = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	groupForm = regexp.MustCompile(`^[\w.()-]{1,90}$`)
)

// Check says what is wrong with settings, and whether they want the client
// secret.
func (s *Settings) Check(secret string, o cloud.Options) (wanted bool, err error) {
	for name, id := range map[string]*string{"tenant": &s.TenantID, "subscription": &s.SubscriptionID, "client": &s.ClientID} {
		*id = strings.ToLower(strings.TrimSpace(*id))
		if !idForm.MatchString(*id) && (name != "client" || *id != "") {
			return false, fault.New(fault.Invalid, "%s ID %q: want one like 01234567-89ab-cdef-0123-456789abcdef", name, *id)
		}
	}
	for i := range s.ResourceGroups {
		s.ResourceGroups[i] = strings.TrimSpace(s.ResourceGroups[i])
		if !groupForm.MatchString(s.ResourceGroups[i]) {
			return false, fault.New(fault.Invalid, "resource group %q: that is no name of one", s.ResourceGroups[i])
		}
	}
	switch {
	case s.Cloud != "" && s.Cloud != "public" && s.Cloud != "china" && s.Cloud != "government":
		return false, fault.New(fault.Invalid, "cloud %q: want public, china or government", s.Cloud)
	case s.ClientID != "" && secret == "":
		return false, fault.New(fault.Invalid, "paste the client secret of %s", s.ClientID)
	case s.ClientID == "" && !o.OwnIdentity:
		return false, fault.New(fault.Invalid, "give a client ID; the managed identity of the control plane's own machine may be used after clouds.own_identity is switched on in its configuration")
	}
	if _, err := cloud.Certificates(s.Certificates); err != nil {
		return false, err
	}
	return s.ClientID != "", nil
}

// place is where the services of a cloud are.
func (s Settings) place(o cloud.Options) azcloud.Configuration {
	if e := o.Endpoints[cloud.Azure]; e != "" {
		return azcloud.Configuration{ActiveDirectoryAuthorityHost: e, Services: map[azcloud.ServiceName]azcloud.ServiceConfiguration{
			azcloud.ResourceManager: {Endpoint: e, Audience: "https://management.azure.com"},
		}}
	}
	switch s.Cloud {
	case "china":
		return azcloud.AzureChina
	case "government":
		return azcloud.AzureGovernment
	}
	return azcloud.AzurePublic
}

// Account is the way to a subscription's machines.
type Account struct {
	settings   Settings
	machines   *armcompute.VirtualMachinesClient
	extensions *armcompute.VirtualMachineExtensionsClient
}

// Open prepares the way.
func Open(s Settings, secret string, o cloud.Options) (*Account, error) {
	place := s.place(o)
	client := policy.ClientOptions{
		Cloud: place, Transport: o.HTTP(), Telemetry: policy.TelemetryOptions{ApplicationID: "komainu"},
		Retry: policy.RetryOptions{MaxRetries: 4, RetryDelay: 500 * time.Millisecond, MaxRetryDelay: 20 * time.Second},
	}
	var login azcore.TokenCredential
	var err error
	switch {
	case s.ClientID != "":
		login, err = azidentity.NewClientSecretCredential(s.TenantID, s.ClientID, secret, &azidentity.ClientSecretCredentialOptions{
			ClientOptions: client, DisableInstanceDiscovery: o.Endpoints[cloud.Azure] != "",
		})
	case o.OwnIdentity:
		login, err = azidentity.NewManagedIdentityCredential(nil)
	default:
		return nil, deploy.Fail(deploy.CloudCredential, "the installation does not allow connectors without a client ID")
	}
	if err != nil {
		return nil, deploy.Fail(deploy.CloudCredential, err.Error())
	}
	options := &arm.ClientOptions{ClientOptions: client, DisableRPRegistration: true}
	a := &Account{settings: s}
	if a.machines, err = armcompute.NewVirtualMachinesClient(s.SubscriptionID, login, options); err != nil {
		return nil, deploy.Fail(deploy.ConnectorFailed, err.Error())
	}
	if a.extensions, err = armcompute.NewVirtualMachineExtensionsClient(s.SubscriptionID, login, options); err != nil {
		return nil, deploy.Fail(deploy.ConnectorFailed, err.Error())
	}
	return a, nil
}

// explain is an error of Azure as a reason.
func explain(err error) *deploy.Failure {
	if f, ok := errors.AsType[*deploy.Failure](err); ok {
		return f
	}
	if login, ok := errors.AsType[*azidentity.AuthenticationFailedError](err); ok {
		return deploy.Fail(deploy.CloudCredential, cloud.Tail(login.Error()))
	}
	if answer, ok := errors.AsType[*azcore.ResponseError](err); ok {
		text := cloud.Tail(answer.ErrorCode + ": " + message(answer))
		switch answer.StatusCode {
		case http.StatusForbidden:
			return deploy.Fail(deploy.CloudDenied, text)
		case http.StatusUnauthorized:
			return deploy.Fail(deploy.CloudCredential, text)
		case http.StatusTooManyRequests:
			return deploy.Fail(deploy.CloudThrottled, text)
		}
		return deploy.Fail(deploy.CloudFailed, text)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return deploy.Fail(deploy.CloudFailed, "it did not answer in time")
	}
	return deploy.Fail(deploy.CloudFailed, cloud.Tail(err.Error()))
}

var messageForm = regexp.MustCompile(`(?s)"message":\s*"((?:[^"\\]|\\.)*)"`)

// message is what an error says of itself, without the dump of the answer.
func message(e *azcore.ResponseError) string {
	if m := messageForm.FindStringSubmatch(e.Error()); m != nil {
		return m[1]
	}
	return http.StatusText(e.StatusCode)
}

// intermediates are the certificates between the roots of this machine and
// those that sign attested documents.
func (s Settings) intermediates() (*x509.CertPool, int, error) {
	list, err := cloud.Certificates(s.Certificates)
	pool := x509.NewCertPool()
	for _, c := range list {
		pool.AddCert(c)
	}
	return pool, len(list), err
}

// within reports whether a resource group is one of the connector's.
func (s Settings) within(group string) bool {
	return len(s.ResourceGroups) == 0 || slices.ContainsFunc(s.ResourceGroups, func(g string) bool { return strings.EqualFold(g, group) })
}
