// Package aws reaches EC2 instances: it lists them, runs scripts on them by
// Systems Manager, and checks the documents by which they say who they are.
package aws

import (
	"context"
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"komainu/control/connector/cloud"
	"komainu/deploy"
	"komainu/fault"
)

// Settings are the settings of a connector for AWS.
type Settings struct {
	Regions      []string `json:"regions" minItems:"1" maxItems:"40" doc:"like eu-central-1"`
	RoleARN      string   `json:"roleArn,omitempty" maxLength:"2048" doc:"of a role to take"`
	ExternalID   string   `json:"externalId,omitempty" maxLength:"256" doc:"that the role's trust policy asks for"`
	AccessKeyID  string   `json:"accessKeyId,omitempty" maxLength:"128" doc:"left out: the identity of the control plane's own machine, where the installation allows that"`
	Certificates string   `json:"certificates,omitempty" maxLength:"200000" doc:"PEM: the RSA-2048 certificates of AWS for these regions; instances enrol by their identity documents then, else by join tokens"`
}

// What becomes a part of a host name or goes into a request has a strict form:
// settings must not lead the control plane to other hosts.
var (
	regionForm = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]{2,12}){1,3}-[0-9]{1,2}$`)
	keyForm    = regexp.MustCompile(`^[A-Z0-9]{16,128}$`)
	roleForm   = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}$`)
	extForm    = regexp.MustCompile(`^[\w+=,.@:/-]{2,256}$`)
)

// Check says what is wrong with settings, and whether they want the secret
// access key.
func (s *Settings) Check(secret string, o cloud.Options) (wanted bool, err error) {
	for i := range s.Regions {
		s.Regions[i] = strings.TrimSpace(s.Regions[i])
		if !regionForm.MatchString(s.Regions[i]) {
			return false, fault.New(fault.Invalid, "region %q: want one like eu-central-1", s.Regions[i])
		}
	}
	slices.Sort(s.Regions)
	s.Regions = slices.Compact(s.Regions)
	s.RoleARN, s.ExternalID, s.AccessKeyID = strings.TrimSpace(s.RoleARN), strings.TrimSpace(s.ExternalID), strings.TrimSpace(s.AccessKeyID)
	switch {
	case len(s.Regions) == 0:
		return false, fault.New(fault.Invalid, "name at least one region, like eu-central-1")
	case s.RoleARN != "" && !roleForm.MatchString(s.RoleARN):
		return false, fault.New(fault.Invalid, "role %q: want its ARN, like arn:aws:iam::123456789012:role/komainu", s.RoleARN)
	case s.ExternalID != "" && (s.RoleARN == "" || !extForm.MatchString(s.ExternalID)):
		return false, fault.New(fault.Invalid, "an external ID goes with a role, and has letters, digits and +=,.@:/-")
	case s.AccessKeyID != "" && !keyForm.MatchString(s.AccessKeyID):
		return false, fault.New(fault.Invalid, "access key %q: want one like AKIAIOSFODNN7EXAMPLE", s.AccessKeyID)
	case s.AccessKeyID != "" && secret == "":
		return false, fault.New(fault.Invalid, "paste the secret access key of %s", s.AccessKeyID)
	case s.AccessKeyID == "" && !o.OwnIdentity:
		return false, fault.New(fault.Invalid, "give an access key; the identity of the control plane's own machine may be used after clouds.own_identity is switched on in its configuration")
	}
	if _, err := cloud.Certificates(s.Certificates); err != nil {
		return false, err
	}
	return s.AccessKeyID != "", nil
}

// Account is the way to an account's instances.
type Account struct {
	settings Settings
	options  cloud.Options
	base     aws.Config // without a region
}

// Open prepares the way. Only a connector without an access key reads what the
// environment of this process says of AWS.
func Open(ctx context.Context, s Settings, secret string, o cloud.Options) (*Account, error) {
	a := &Account{settings: s, options: o}
	retryer := func() aws.Retryer {
		return retry.NewStandard(func(r *retry.StandardOptions) { r.MaxAttempts = 5 })
	}
	client := o.HTTP()
	switch {
	case s.AccessKeyID != "":
		a.base = aws.Config{Credentials: credentials.NewStaticCredentialsProvider(s.AccessKeyID, secret, ""), HTTPClient: client, Retryer: retryer}
	case o.OwnIdentity:
		c, err := config.LoadDefaultConfig(ctx, config.WithRegion(s.Regions[0]), config.WithHTTPClient(client), config.WithRetryer(retryer))
		if err != nil {
			return nil, deploy.Fail(deploy.CloudCredential, err.Error())
		}
		a.base = c
	default:
		return nil, deploy.Fail(deploy.CloudCredential, "the installation does not allow connectors without an access key")
	}
	if e := o.Endpoints[cloud.AWS]; e != "" {
		a.base.BaseEndpoint = &e
	}
	if s.RoleARN != "" {
		take := stscreds.NewAssumeRoleProvider(sts.NewFromConfig(a.in(s.Regions[0])), s.RoleARN, func(o *stscreds.AssumeRoleOptions) {
			o.RoleSessionName = "komainu"
			if s.ExternalID != "" {
				o.ExternalID = &s.ExternalID
			}
		})
		a.base.Credentials = aws.NewCredentialsCache(take)
	}
	return a, nil
}

// in is the configuration for a region.
func (a *Account) in(region string) aws.Config {
	c := a.base.Copy()
	c.Region = region
	return c
}

// Codes of errors, as the services document them.
var (
	deniedCodes     = []string{"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "OptInRequired"}
	credentialCodes = []string{
		"AuthFailure", "InvalidClientTokenId", "SignatureDoesNotMatch", "UnrecognizedClientException", "ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "IncompleteSignature",
	}
	throttledCodes = []string{"Throttling", "ThrottlingException", "ThrottledException", "RequestLimitExceeded", "TooManyRequestsException", "RequestThrottled"}
)

// explain is an error of AWS as a reason.
func explain(err error) *deploy.Failure {
	if f, ok := errors.AsType[*deploy.Failure](err); ok {
		return f
	}
	text := cloud.Tail(err.Error())
	coded, ok := errors.AsType[interface {
		error
		ErrorCode() string
		ErrorMessage() string
	}](err)
	if ok {
		text = cloud.Tail(coded.ErrorCode() + ": " + coded.ErrorMessage())
		switch code := coded.ErrorCode(); {
		case slices.Contains(deniedCodes, code):
			return deploy.Fail(deploy.CloudDenied, text)
		case slices.Contains(credentialCodes, code):
			return deploy.Fail(deploy.CloudCredential, text)
		case slices.Contains(throttledCodes, code):
			return deploy.Fail(deploy.CloudThrottled, text)
		}
	}
	if answered, ok := errors.AsType[interface {
		error
		HTTPStatusCode() int
	}](err); ok && answered.HTTPStatusCode() == http.StatusTooManyRequests {
		return deploy.Fail(deploy.CloudThrottled, text)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return deploy.Fail(deploy.CloudFailed, "it did not answer in time")
	}
	return deploy.Fail(deploy.CloudFailed, text)
}
