package cloudtest

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"encoding/xml"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/smallstep/pkcs7"
)

// AWS is a pretend AWS: EC2, Systems Manager and STS of one account behind one
// address, and the metadata service of one instance.
type AWS struct {
	URL, Metadata string
	Account       string
	AccessKey     string
	Certificate   string // PEM, that identity documents are signed with
	PageSize      int

	t    testing.TB
	key  *rsa.PrivateKey
	cert *x509.Certificate

	pretend
	commands map[string]Ran
	sent     []string
}

// NewAWS starts a pretend AWS.
func NewAWS(t testing.TB, instances ...*Instance) *AWS {
	t.Helper()
	a := &AWS{t: t, Account: "123456789012", AccessKey: "AKIAIOSFODNN7EXAMPLE", PageSize: 1000, pretend: begin(instances), commands: map[string]Ran{}}
	a.key, a.cert, a.Certificate = signer(t, "pretend AWS")
	api, meta := httptest.NewServer(http.HandlerFunc(a.serve)), httptest.NewServer(http.HandlerFunc(a.metadata))
	t.Cleanup(api.Close)
	t.Cleanup(meta.Close)
	a.URL, a.Metadata = api.URL, meta.URL
	return a
}

// signer makes a key with a certificate of its own.
func signer(t testing.TB, name string) (*rsa.PrivateKey, *x509.Certificate, string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0)}
	raw, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}))
}

// Answer has f answer in the place of the cloud, where it returns true. asked
// counts how often the action was asked for in the region before.
func (a *AWS) Answer(f func(w http.ResponseWriter, region, action string, asked int) bool) {
	if f == nil {
		a.pretend.Answer(nil)
		return
	}
	a.pretend.Answer(func(w http.ResponseWriter, what string, asked int) bool {
		region, action, _ := strings.Cut(what, " ")
		return f(w, region, action, asked)
	})
}

// Sent returns the scripts that were sent, and Asked how often an action was
// asked for in a region.
func (a *AWS) Sent() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.sent)
}

// Asked returns how often an action was asked for in a region.
func (a *AWS) Asked(region, action string) int {
	return a.pretend.Asked(region + " " + action)
}

var scope = regexp.MustCompile(`^AWS4-HMAC-SHA256 Credential=([^/]+)/\d{8}/([a-z0-9-]+)/(ec2|ssm|sts)/aws4_request, SignedHeaders=[^,]*host[^,]*, Signature=[0-9a-f]{64}$`)

func (a *AWS) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	m := scope.FindStringSubmatch(r.Header.Get("Authorization"))
	if m == nil || m[1] != a.AccessKey && m[1] != "ASIATAKENROLE0000000" {
		AWSError(w, 401, "AuthFailure", "AWS was not able to validate the provided access credentials")
		return
	}
	region, service := m[2], m[3]
	form, _ := url.ParseQuery(string(body))
	action := form.Get("Action")
	if service == "ssm" {
		action = strings.TrimPrefix(r.Header.Get("X-Amz-Target"), "AmazonSSM.")
	}
	if a.answered(w, region+" "+action) {
		return
	}
	var in struct {
		NextToken  string
		MaxResults int
		Filters    []struct {
			Key    string
			Values []string
		}
		InstanceIds []string
		Parameters  map[string][]string
		CommandId   string
		InstanceId  string
	}
	if service == "ssm" {
		_ = json.Unmarshal(body, &in)
	}
	switch action {
	case "DescribeInstances":
		a.describe(w, region, form)
	case "AssumeRole":
		fmt.Fprintf(w, `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><AssumedRoleUser><Arn>%s</Arn><AssumedRoleId>x:komainu</AssumedRoleId></AssumedRoleUser><Credentials><AccessKeyId>ASIATAKENROLE0000000</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`,
			form.Get("RoleArn"), time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	case "DescribeInstanceInformation":
		a.information(w, region, in.Filters, in.NextToken)
	case "SendCommand":
		a.send(w, region, in.InstanceIds, in.Parameters)
	case "GetCommandInvocation":
		a.mu.Lock()
		ran, ok := a.commands[in.CommandId]
		a.mu.Unlock()
		if !ok {
			ssmError(w, "InvocationDoesNotExist", "")
			return
		}
		status := "Success"
		if ran.Code != 0 {
			status = "Failed"
		}
		cut := func(s string) string { return s[:min(len(s), 24000)] }
		write(w, map[string]any{"CommandId": in.CommandId, "InstanceId": in.InstanceId, "Status": status, "StatusDetails": status, "ResponseCode": ran.Code, "StandardOutputContent": cut(ran.Stdout), "StandardErrorContent": cut(ran.Stderr)})
	case "CancelCommand":
		write(w, map[string]any{})
	default:
		AWSError(w, 400, "InvalidAction", "The action "+action+" is not valid for this web service")
	}
}

func write(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	_ = json.NewEncoder(w).Encode(v)
}

// AWSError answers with an error as EC2 and STS do.
func AWSError(w http.ResponseWriter, status int, code, text string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>%s</Code><Message>%s</Message></Error></Errors><RequestID>ea966190</RequestID></Response>`, code, text)
}

func ssmError(w http.ResponseWriter, code, text string) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.WriteHeader(400)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": text})
}

type tagXML struct {
	Key   string `xml:"key"`
	Value string `xml:"value"`
}

type instanceXML struct {
	ID       string   `xml:"instanceId"`
	State    string   `xml:"instanceState>name"`
	Launch   string   `xml:"launchTime"`
	Platform string   `xml:"platform,omitempty"`
	Details  string   `xml:"platformDetails"`
	Address  string   `xml:"privateIpAddress"`
	Arch     string   `xml:"architecture"`
	Tags     []tagXML `xml:"tagSet>item"`
}

// describe answers DescribeInstances, a reservation per instance.
func (a *AWS) describe(w http.ResponseWriter, region string, form url.Values) {
	type reservation struct {
		ID        string        `xml:"reservationId"`
		Owner     string        `xml:"ownerId"`
		Instances []instanceXML `xml:"instancesSet>item"`
	}
	var answer struct {
		XMLName      xml.Name      `xml:"http://ec2.amazonaws.com/doc/2016-11-15/ DescribeInstancesResponse"`
		Reservations []reservation `xml:"reservationSet>item"`
		Next         string        `xml:"nextToken,omitempty"`
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	from, _ := strconv.Atoi(form.Get("NextToken"))
	var here []*Instance
	for _, i := range a.machines {
		if i.Region == region {
			here = append(here, i)
		}
	}
	for _, i := range here[min(from, len(here)):min(from+a.PageSize, len(here))] {
		x := instanceXML{ID: i.ID, State: i.State, Details: "Linux/UNIX", Address: i.Address, Arch: i.Arch, Launch: i.Launched.UTC().Format(time.RFC3339)}
		if i.Windows {
			x.Platform, x.Details = "windows", "Windows"
		}
		if i.Name != "" {
			x.Tags = append(x.Tags, tagXML{"Name", i.Name})
		}
		for k, v := range i.Tags {
			x.Tags = append(x.Tags, tagXML{k, v})
		}
		answer.Reservations = append(answer.Reservations, reservation{"r-" + i.ID, a.Account, []instanceXML{x}})
	}
	if from+a.PageSize < len(here) {
		answer.Next = strconv.Itoa(from + a.PageSize)
	}
	w.Header().Set("Content-Type", "text/xml;charset=UTF-8")
	_ = xml.NewEncoder(w).Encode(answer)
}

// information answers DescribeInstanceInformation, two to a page.
func (a *AWS) information(w http.ResponseWriter, region string, filters []struct {
	Key    string
	Values []string
}, token string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := []map[string]any{}
	for _, i := range a.machines {
		if i.Region == region && i.Agent != "" && (len(filters) == 0 || slices.Contains(filters[0].Values, i.ID)) {
			list = append(list, map[string]any{"InstanceId": i.ID, "PingStatus": i.Agent, "PlatformType": "Linux", "PlatformName": "Debian GNU/Linux", "PlatformVersion": "12", "AgentVersion": "3.3.0"})
		}
	}
	from, _ := strconv.Atoi(token)
	answer := map[string]any{"InstanceInformationList": list[min(from, len(list)):min(from+2, len(list))]}
	if from+2 < len(list) {
		answer["NextToken"] = strconv.Itoa(from + 2)
	}
	write(w, answer)
}

// send runs a command at once.
func (a *AWS) send(w http.ResponseWriter, region string, ids []string, parameters map[string][]string) {
	a.mu.Lock()
	run := a.run
	var at *Instance
	for _, i := range a.machines {
		if len(ids) == 1 && i.ID == ids[0] && i.Region == region && i.Agent == "Online" {
			at = i
		}
	}
	script := strings.Join(parameters["commands"], "\n")
	a.sent = append(a.sent, script)
	a.mu.Unlock()
	if at == nil {
		ssmError(w, "InvalidInstanceId", "Instances not in a valid state for account")
		return
	}
	ran := Ran{}
	if run != nil {
		ran = run(*at, script)
	}
	sum := sha256.Sum256([]byte(script + ran.Stdout + strconv.Itoa(len(a.Sent()))))
	id := hex.EncodeToString(sum[:])[:36]
	a.mu.Lock()
	a.commands[id] = ran
	a.mu.Unlock()
	write(w, map[string]any{"Command": map[string]any{"CommandId": id, "Status": "Pending", "InstanceIds": ids}})
}

// Document returns the identity document of an instance with its signature.
func (a *AWS) Document(i Instance) (document, signature string) {
	text, err := json.MarshalIndent(map[string]any{
		"accountId": a.Account, "architecture": i.Arch, "availabilityZone": i.Region + "a", "imageId": "ami-1", "instanceId": i.ID, "instanceType": "t3.small",
		"pendingTime": i.Launched.UTC().Format(time.RFC3339), "privateIp": i.Address, "region": i.Region, "version": "2017-09-30", "kernelId": nil,
	}, "", "  ")
	if err != nil {
		a.t.Error(err)
	}
	return string(text), a.Sign(text)
}

// Sign signs a document as AWS does.
func (a *AWS) Sign(document []byte) string {
	s, err := pkcs7.NewSignedData(document)
	if err != nil {
		a.t.Error(err)
		return ""
	}
	s.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := s.AddSigner(a.cert, a.key, pkcs7.SignerInfoConfig{}); err != nil {
		a.t.Error(err)
	}
	raw, err := s.Finish()
	if err != nil {
		a.t.Error(err)
	}
	text := base64.StdEncoding.EncodeToString(raw)
	var lines []string
	for part := range slices.Chunk([]byte(text), 64) {
		lines = append(lines, string(part))
	}
	return strings.Join(lines, "\n")
}

// metadata is the instance metadata service, version 2 only.
func (a *AWS) metadata(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" && r.Header.Get("X-Aws-Ec2-Metadata-Token-Ttl-Seconds") != "" {
		fmt.Fprint(w, "session")
		return
	}
	if r.Header.Get("X-Aws-Ec2-Metadata-Token") != "session" {
		w.WriteHeader(http.StatusUnauthorized)
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
	document, signature := a.Document(local)
	switch r.URL.Path {
	case "/latest/dynamic/instance-identity/document":
		fmt.Fprint(w, document)
	case "/latest/dynamic/instance-identity/rsa2048":
		fmt.Fprint(w, signature)
	default:
		http.NotFound(w, r)
	}
}
