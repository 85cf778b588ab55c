package cloudtest

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"
)

// Azure is a pretend Azure: the login, the Resource Manager of one
// subscription, and the metadata service of one machine.
type Azure struct {
	URL, Metadata           string
	Tenant, Sub, ID, Secret string
	Transport               http.RoundTripper
	Roots                   *x509.CertPool
	Certificates            string // PEM of the intermediate
	Page                    int

	t      testing.TB
	server *httptest.Server
	key    *rsa.PrivateKey
	leaf   *x509.Certificate

	pretend
	extensions map[string]*azureExtension
}

type azureExtension struct {
	ran  Ran
	asks int
}

// NewAzure starts a pretend Azure.
func NewAzure(t testing.TB, machines ...*Instance) *Azure {
	t.Helper()
	a := &Azure{
		t: t, Tenant: "11111111-1111-1111-1111-111111111111", Sub: "22222222-2222-2222-2222-222222222222", ID: "33333333-3333-3333-3333-333333333333", Secret: "client-secret~text",
		Page: 100, pretend: begin(machines), extensions: map[string]*azureExtension{},
	}
	a.server = httptest.NewTLSServer(http.HandlerFunc(a.serve))
	meta := httptest.NewServer(http.HandlerFunc(a.metadata))
	t.Cleanup(a.server.Close)
	t.Cleanup(meta.Close)
	a.URL, a.Metadata, a.Transport = a.server.URL, meta.URL, a.server.Client().Transport
	a.chain("metadata.azure.com")
	return a
}

// chain makes a root, an intermediate, and a certificate with a name.
func (a *Azure) chain(name string) {
	issue := func(serial int64, name string, ca bool, by *x509.Certificate, with *rsa.PrivateKey) (*x509.Certificate, *rsa.PrivateKey) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			a.t.Fatal(err)
		}
		c := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0), IsCA: ca, BasicConstraintsValid: true,
			KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		}
		if !ca {
			c.DNSNames = []string{name}
		}
		if by == nil {
			by, with = c, key
		}
		raw, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), with)
		if err != nil {
			a.t.Fatal(err)
		}
		made, err := x509.ParseCertificate(raw)
		if err != nil {
			a.t.Fatal(err)
		}
		return made, key
	}
	root, rootKey := issue(1, "pretend root", true, nil, nil)
	between, betweenKey := issue(2, "pretend intermediate", true, root, rootKey)
	a.leaf, a.key = issue(3, name, false, between, betweenKey)
	a.Roots = x509.NewCertPool()
	a.Roots.AddCert(root)
	a.Certificates = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: between.Raw}))
}

// Named has documents signed with a certificate of another name, of the same
// authorities in kind.
func (a *Azure) Named(name string) { a.chain(name) }

var (
	azureLogin = regexp.MustCompile(`^/([^/]+)/(v2\.0/\.well-known/openid-configuration|oauth2/v2\.0/token)$`)
	azureList  = regexp.MustCompile(`^/subscriptions/([^/]+)/providers/Microsoft\.Compute/virtualMachines$`)
	azureVM    = regexp.MustCompile(`^/subscriptions/([^/]+)/resourceGroups/([^/]+)/providers/Microsoft\.Compute/virtualMachines/([^/]+)(?:/extensions/([^/]+))?$`)
	azureDone  = regexp.MustCompile(`^/operations/(.+)$`)
)

// AzureError answers with an error as the Resource Manager does.
func AzureError(w http.ResponseWriter, status int, code, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]string{"code": code, "message": text}})
}

func (a *Azure) serve(w http.ResponseWriter, r *http.Request) {
	what := r.Method
	login, list, vm, done := azureLogin.FindStringSubmatch(r.URL.Path), azureList.FindStringSubmatch(r.URL.Path), azureVM.FindStringSubmatch(r.URL.Path), azureDone.FindStringSubmatch(r.URL.Path)
	switch {
	case login != nil:
		what += " login"
	case list != nil:
		what += " machines"
	case vm != nil && vm[4] != "":
		what += " extension"
	case vm != nil:
		what += " machine"
	case done != nil:
		what += " operation"
	}
	if a.answered(w, what) {
		return
	}
	if login != nil {
		a.login(w, r, login[1], strings.HasSuffix(r.URL.Path, "token"))
		return
	}
	if r.Header.Get("Authorization") != "Bearer a-token" {
		AzureError(w, 401, "AuthenticationFailed", "Authentication failed.")
		return
	}
	switch {
	case list != nil && list[1] == a.Sub:
		a.list(w, r)
	case vm != nil && vm[1] == a.Sub && vm[4] != "":
		a.extension(w, r, vm[3], vm[4])
	case vm != nil && vm[1] == a.Sub:
		if i := a.find(vm[3]); i != nil {
			reply(w, 200, a.machine(*i, true, true))
			return
		}
		AzureError(w, 404, "ResourceNotFound", "not found")
	case done != nil:
		a.operation(w, done[1])
	default:
		AzureError(w, 403, "AuthorizationFailed", "The client does not have authorization to perform action over scope.")
	}
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func (a *Azure) login(w http.ResponseWriter, r *http.Request, tenant string, token bool) {
	if !token {
		base := a.URL + "/" + tenant
		reply(w, 200, map[string]string{"token_endpoint": base + "/oauth2/v2.0/token", "authorization_endpoint": base + "/oauth2/v2.0/authorize", "issuer": base + "/v2.0"})
		return
	}
	if tenant != a.Tenant || r.FormValue("client_id") != a.ID || r.FormValue("client_secret") != a.Secret {
		reply(w, 401, map[string]any{"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided.", "error_codes": []int{7000215}})
		return
	}
	reply(w, 200, map[string]any{"token_type": "Bearer", "expires_in": 3600, "ext_expires_in": 3600, "access_token": "a-token"})
}

func (a *Azure) find(name string) *Instance {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, i := range a.machines {
		if strings.EqualFold(i.Name, name) {
			return i
		}
	}
	return nil
}

// Resource is the resource ID of a machine; its region is the resource group.
func (a *Azure) Resource(i Instance) string {
	return "/subscriptions/" + a.Sub + "/resourceGroups/" + i.Region + "/providers/Microsoft.Compute/virtualMachines/" + i.Name
}

func (a *Azure) machine(i Instance, model, view bool) map[string]any {
	system := "Linux"
	if i.Windows {
		system = "Windows"
	}
	p := map[string]any{"vmId": i.ID, "provisioningState": "Succeeded"}
	if model {
		p["storageProfile"] = map[string]any{"osDisk": map[string]string{"osType": system}, "imageReference": map[string]string{"publisher": "debian", "offer": "debian-12", "sku": "12"}}
	}
	if view {
		p["instanceView"] = map[string]any{
			"statuses": []map[string]string{{"code": "ProvisioningState/succeeded"}, {"code": "PowerState/" + i.State}},
			"vmAgent":  map[string]any{"vmAgentVersion": "2.9", "statuses": []map[string]string{{"displayStatus": i.Agent, "message": "Guest Agent"}}},
		}
	}
	return map[string]any{"id": a.Resource(i), "name": i.Name, "type": "Microsoft.Compute/virtualMachines", "location": "westeurope", "tags": i.Tags, "properties": p}
}

func (a *Azure) list(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	from := 0
	_, _ = fmt.Sscan(r.URL.Query().Get("$skiptoken"), &from)
	status := r.URL.Query().Get("statusOnly") == "true"
	value := []any{}
	for _, i := range a.machines[min(from, len(a.machines)):min(from+a.Page, len(a.machines))] {
		value = append(value, a.machine(*i, !status, status))
	}
	answer := map[string]any{"value": value}
	if from+a.Page < len(a.machines) {
		q := r.URL.Query()
		q.Set("$skiptoken", fmt.Sprint(from+a.Page))
		answer["nextLink"] = a.URL + r.URL.Path + "?" + q.Encode()
	}
	reply(w, 200, answer)
}

// extension is the only one that a machine has; what it is made with runs at
// once, and the operation says so when it is asked the second time.
func (a *Azure) extension(w http.ResponseWriter, r *http.Request, machine, name string) {
	at := a.find(machine)
	if at == nil {
		AzureError(w, 404, "ParentResourceNotFound", "not found")
		return
	}
	switch r.Method {
	case http.MethodPut:
		var in struct {
			Properties struct {
				Publisher         string
				Type              string
				ForceUpdateTag    string            `json:"forceUpdateTag"`
				ProtectedSettings map[string]string `json:"protectedSettings"`
			}
		}
		body, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(body, &in); err != nil || in.Properties.Publisher != "Microsoft.Azure.Extensions" || in.Properties.Type != "CustomScript" || in.Properties.ForceUpdateTag == "" {
			AzureError(w, 400, "InvalidParameter", "the extension makes no sense")
			return
		}
		packed, _ := base64.StdEncoding.DecodeString(in.Properties.ProtectedSettings["script"])
		z, err := gzip.NewReader(bytes.NewReader(packed))
		if err != nil {
			AzureError(w, 400, "InvalidParameter", "the script is not packed")
			return
		}
		script, _ := io.ReadAll(z)
		a.mu.Lock()
		run := a.run
		a.mu.Unlock()
		ran := Ran{}
		if run != nil {
			ran = run(*at, string(script))
		}
		a.mu.Lock()
		a.extensions[machine] = &azureExtension{ran: ran}
		a.mu.Unlock()
		w.Header().Set("Azure-AsyncOperation", a.URL+"/operations/"+machine+"?api-version=2024-11-01")
		w.Header().Set("Retry-After", "0")
		reply(w, 201, map[string]any{"name": name, "properties": map[string]string{"provisioningState": "Creating"}})
	case http.MethodGet:
		a.mu.Lock()
		e := a.extensions[machine]
		a.mu.Unlock()
		if e == nil {
			AzureError(w, 404, "ResourceNotFound", "not found")
			return
		}
		reply(w, 200, a.shown(name, *e))
	case http.MethodDelete:
		a.mu.Lock()
		delete(a.extensions, machine)
		a.mu.Unlock()
		w.WriteHeader(204)
	}
}

func (a *Azure) shown(name string, e azureExtension) map[string]any {
	cut := func(s string) string { return s[max(0, len(s)-4096):] }
	code, word, text := "ProvisioningState/succeeded", "Succeeded", "Enable succeeded: "
	if e.ran.Code != 0 {
		code, word, text = "ProvisioningState/failed/1", "Failed", fmt.Sprintf("Enable failed: failed to execute command: command terminated with exit status=%d", e.ran.Code)
	}
	message := text + "\n[stdout]\n" + cut(e.ran.Stdout) + "\n[stderr]\n" + cut(e.ran.Stderr)
	return map[string]any{"name": name, "properties": map[string]any{
		"provisioningState": word, "instanceView": map[string]any{"name": name, "statuses": []map[string]string{{"code": code, "displayStatus": "Provisioning " + word, "message": message}}},
	}}
}

func (a *Azure) operation(w http.ResponseWriter, machine string) {
	a.mu.Lock()
	e := a.extensions[machine]
	if e != nil {
		e.asks++
	}
	a.mu.Unlock()
	switch {
	case e == nil:
		AzureError(w, 404, "NotFound", "no operation")
	case e.asks == 1:
		reply(w, 200, map[string]string{"status": "InProgress"})
	case e.ran.Code != 0:
		reply(w, 200, map[string]any{"status": "Failed", "error": map[string]string{"code": "VMExtensionProvisioningError", "message": "VM has reported a failure when processing extension"}})
	default:
		reply(w, 200, map[string]string{"status": "Succeeded"})
	}
}

// Document is the attested document of a machine for a nonce.
func (a *Azure) Document(i Instance, nonce string, created time.Time) string {
	const form = "01/02/06 15:04:05 -0700"
	text, err := json.Marshal(map[string]any{
		"licenseType": "", "nonce": nonce, "sku": "12", "subscriptionId": a.Sub, "vmId": i.ID,
		"timeStamp": map[string]string{"createdOn": created.UTC().Format(form), "expiresOn": created.Add(6 * time.Hour).UTC().Format(form)},
	})
	if err != nil {
		a.t.Error(err)
	}
	s, err := pkcs7.NewSignedData(text)
	if err != nil {
		a.t.Error(err)
		return ""
	}
	s.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := s.AddSigner(a.leaf, a.key, pkcs7.SignerInfoConfig{}); err != nil {
		a.t.Error(err)
	}
	raw, err := s.Finish()
	if err != nil {
		a.t.Error(err)
	}
	return base64.StdEncoding.EncodeToString(raw)
}

func (a *Azure) metadata(w http.ResponseWriter, r *http.Request) {
	nonce := r.URL.Query().Get("nonce")
	if r.URL.Path != "/metadata/attested/document" || r.Header.Get("Metadata") != "true" || r.URL.Query().Get("api-version") == "" || len(nonce) > 10 {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	var local Instance
	for _, i := range a.machines {
		if i.ID == a.local {
			local = *i
		}
	}
	a.mu.Unlock()
	reply(w, 200, map[string]string{"encoding": "pkcs7", "signature": a.Document(local, nonce, time.Now())})
}
