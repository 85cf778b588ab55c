package azure

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"komainu/control/connector/cloud"
	"komainu/fault"
)

// document is what an attested document says, as far as it is used.
type document struct {
	Nonce     string `json:"nonce"`
	VMID      string `json:"vmId"`
	Sub       string `json:"subscriptionId"`
	TimeStamp struct {
		CreatedOn string `json:"createdOn"`
		ExpiresOn string `json:"expiresOn"`
	} `json:"timeStamp"`
}

// timeForm is how documents write times.
const timeForm = "01/02/06 15:04:05 -0700"

// fresh is how old a document may be: it is made for the question.
const fresh = 10 * time.Minute

// signers are the names in the certificates that documents are signed with;
// names below them count.
var signers = []string{"metadata.azure.com", "metadata.azure.cn", "metadata.azure.us"}

// Identify returns the key of the machine whose attested document is shown.
func (s Settings) Identify(e cloud.Evidence, o cloud.Options) (string, error) {
	between, n, err := s.intermediates()
	if err != nil {
		return "", err
	}
	if n == 0 {
		return "", fault.New(fault.Unauthentic, "the connector has no certificates of Azure")
	}
	now := o.Clock()
	content, err := verify(e.Document, between, o.Roots, now)
	if err != nil {
		return "", err
	}
	var d document
	if err := json.Unmarshal(content, &d); err != nil {
		return "", fault.New(fault.Unauthentic, "the document cannot be read: %w", err)
	}
	created, err := time.Parse(timeForm, d.TimeStamp.CreatedOn)
	if err != nil {
		return "", fault.New(fault.Unauthentic, "the document does not say when it was made: %w", err)
	}
	expires, err := time.Parse(timeForm, d.TimeStamp.ExpiresOn)
	if err != nil {
		return "", fault.New(fault.Unauthentic, "the document does not say how long it is good: %w", err)
	}
	vm, sub := strings.ToLower(d.VMID), strings.ToLower(d.Sub)
	switch {
	case e.Nonce == "" || d.Nonce != e.Nonce:
		return "", fault.New(fault.Unauthentic, "the document was not made for this question")
	case now.Sub(created).Abs() > fresh || now.After(expires):
		return "", fault.New(fault.Unauthentic, "the document was made at %s, too far from now", created.Format(time.RFC3339))
	case sub != s.SubscriptionID:
		return "", fault.New(fault.Unauthentic, "the document is of a machine of another subscription")
	case !idForm.MatchString(vm):
		return "", fault.New(fault.Unauthentic, "the document names no machine")
	}
	return key(sub, vm), nil
}

// verify checks the signature of a document, and that Azure's service has made
// it: by a chain to the roots of this machine, and the name in the
// certificate.
func verify(text string, between, roots *x509.CertPool, now time.Time) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
	if err != nil {
		return nil, fault.New(fault.Unauthentic, "the document is no base64: %w", err)
	}
	message, err := cloud.ParsePKCS7(raw)
	if err != nil {
		return nil, err
	}
	if err := message.Verify(); err != nil {
		return nil, fault.New(fault.Unauthentic, "the signature of the document is wrong: %w", err)
	}
	signer := message.GetOnlySigner()
	if signer == nil {
		return nil, fault.New(fault.Unauthentic, "the document does not have one signer")
	}
	for _, c := range message.Certificates {
		between.AddCert(c)
	}
	if _, err := signer.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return nil, fault.New(fault.Unauthentic, "the certificate of the document, issued by %q, leads to no root: %w", signer.Issuer.CommonName, err)
	}
	if !slices.ContainsFunc(append(signer.DNSNames, signer.Subject.CommonName), ofAzure) {
		return nil, fault.New(fault.Unauthentic, "the certificate of the document is of %q", signer.Subject.CommonName)
	}
	return message.Content, nil
}

func ofAzure(name string) bool {
	return slices.ContainsFunc(signers, func(s string) bool { return name == s || strings.HasSuffix(name, "."+s) })
}
