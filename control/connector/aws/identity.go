package aws

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strings"
	"time"

	"komainu/control/connector/cloud"
	"komainu/fault"
)

// document is what an instance identity document says, as far as it is used.
type document struct {
	AccountID   string    `json:"accountId"`
	Region      string    `json:"region"`
	InstanceID  string    `json:"instanceId"`
	PendingTime time.Time `json:"pendingTime"`
}

var (
	accountForm  = regexp.MustCompile(`^[0-9]{12}$`)
	instanceForm = regexp.MustCompile(`^i-[0-9a-f]{8,32}$`)
)

// clockSlack is how far in the future a document may be made.
const clockSlack = 5 * time.Minute

// Identify returns the key of the instance whose identity document is shown:
// the document as it is, with its PKCS #7 signature of the key RSA-2048.
//
// Such a document holds nothing that was asked for and stays the same while
// the instance runs. Whoever reads it on the instance can show it: what it is
// good for has to be bounded by the caller.
func (s Settings) Identify(e cloud.Evidence, o cloud.Options) (string, error) {
	trusted, err := cloud.Certificates(s.Certificates)
	if err != nil {
		return "", err
	}
	if len(trusted) == 0 {
		return "", fault.New(fault.Unauthentic, "the connector has no certificates of AWS")
	}
	if err := verify([]byte(e.Document), e.Signature, trusted); err != nil {
		return "", err
	}
	var d document
	if err := json.Unmarshal([]byte(e.Document), &d); err != nil {
		return "", fault.New(fault.Unauthentic, "the document cannot be read: %w", err)
	}
	switch {
	case !accountForm.MatchString(d.AccountID) || !instanceForm.MatchString(d.InstanceID) || !regionForm.MatchString(d.Region):
		return "", fault.New(fault.Unauthentic, "the document names no instance")
	case d.PendingTime.IsZero() || d.PendingTime.After(o.Clock().Add(clockSlack)):
		return "", fault.New(fault.Unauthentic, "the document says that the instance was started at %s", d.PendingTime.Format(time.RFC3339))
	}
	return key(d.Region, d.AccountID, d.InstanceID), nil
}

// verify checks a signature against certificates that are trusted themselves,
// not by a chain. What the message brings along of its own is not looked at.
func verify(document []byte, signature string, trusted []*x509.Certificate) error {
	raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(signature), ""))
	if err != nil {
		return fault.New(fault.Unauthentic, "the signature is no base64: %w", err)
	}
	for _, c := range trusted {
		message, parsed := cloud.ParsePKCS7(raw)
		if parsed != nil {
			return parsed
		}
		if len(message.Content) > 0 && !bytes.Equal(bytes.TrimSpace(message.Content), bytes.TrimSpace(document)) {
			return fault.New(fault.Unauthentic, "the signature is of another document")
		}
		if len(message.Signers) != 1 {
			return fault.New(fault.Unauthentic, "the signature has %d signers, not one", len(message.Signers))
		}
		if len(message.Content) == 0 {
			message.Content = document
		}
		message.Certificates = []*x509.Certificate{c}
		if err = message.Verify(); err == nil {
			return nil
		}
	}
	return fault.New(fault.Unauthentic, "none of the connector's certificates of AWS has signed the document: %w", err)
}
