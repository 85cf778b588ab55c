package cloud

import (
	"crypto/x509"
	"encoding/pem"
	"strings"

	"github.com/smallstep/pkcs7"

	"komainu/fault"
)

// maxCertificates bounds what somebody pastes.
const maxCertificates = 100

// Certificates reads certificates in PEM form, one after the other.
func Certificates(text string) ([]*x509.Certificate, error) {
	var list []*x509.Certificate
	rest := []byte(strings.TrimSpace(text))
	for len(rest) > 0 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, fault.New(fault.Invalid, "certificates: paste them in PEM form, one after the other")
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fault.New(fault.Invalid, "certificate %d cannot be read: %w", len(list)+1, err)
		}
		if list = append(list, c); len(list) > maxCertificates {
			return nil, fault.New(fault.Invalid, "there are at most %d certificates", maxCertificates)
		}
	}
	return list, nil
}

// ParsePKCS7 reads a message that anybody may have sent.
func ParsePKCS7(raw []byte) (message *pkcs7.PKCS7, err error) {
	defer func() {
		if p := recover(); p != nil { // the parser is not made for enemies
			message, err = nil, fault.New(fault.Unauthentic, "the signature cannot be read: %v", p)
		}
	}()
	message, err = pkcs7.Parse(raw)
	if err != nil {
		return nil, fault.New(fault.Unauthentic, "the signature cannot be read: %w", err)
	}
	return message, nil
}
