package aws

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-cmp/cmp"

	"komainu/control/connector/cloud"
	"komainu/control/connector/cloud/cloudtest"
	"komainu/deploy"
)

func fleet() []*cloudtest.Instance {
	started := time.Now().Add(-time.Hour)
	return []*cloudtest.Instance{
		{ID: "i-00000001", Name: "web", Region: "eu-central-1", Address: "10.0.0.1", State: "running", Arch: "x86_64", Agent: "Online", Tags: map[string]string{"role": "web", "aws:autoscaling:groupName": "g"}, Launched: started},
		{ID: "i-00000002", Name: "win", Region: "eu-central-1", Address: "10.0.0.2", State: "running", Arch: "x86_64", Windows: true, Agent: "Online", Launched: started},
		{ID: "i-00000003", Region: "eu-central-1", State: "stopped", Arch: "arm64", Launched: started},
		{ID: "i-00000004", Region: "eu-central-1", State: "terminated", Arch: "arm64", Launched: started},
		{ID: "i-00000005", Name: "lost", Region: "us-east-1", Address: "10.1.0.1", State: "running", Arch: "arm64", Agent: "ConnectionLost", Launched: started},
	}
}

func open(t *testing.T, fake *cloudtest.AWS, change func(*Settings)) (*Account, Settings, cloud.Options) {
	t.Helper()
	s := Settings{Regions: []string{"eu-central-1", "us-east-1"}, AccessKeyID: fake.AccessKey, Certificates: fake.Certificate}
	if change != nil {
		change(&s)
	}
	o := cloud.Options{Endpoints: map[string]string{cloud.AWS: fake.URL}}
	if _, err := s.Check("secret", o); err != nil {
		t.Fatal(err)
	}
	a, err := Open(t.Context(), s, "secret", o)
	if err != nil {
		t.Fatal(err)
	}
	return a, s, o
}

func TestListsInstances(t *testing.T) {
	fake := cloudtest.NewAWS(t, fleet()...)
	fake.PageSize = 1 // each instance is a page
	a, _, _ := open(t, fake, func(s *Settings) { s.RoleARN, s.ExternalID = "arn:aws:iam::123456789012:role/komainu", "ours" })
	found, err := a.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, m := range found.Machines {
		problem := ""
		if m.Problem != nil {
			problem = string(m.Problem.ID)
		}
		lines = append(lines, fmt.Sprintf("%s %s %s %s %s %q %t %s %d", m.Key, m.Name, m.Address, m.System, m.Arch, m.OS, m.Stopped, problem, len(m.Tags)))
	}
	slices.Sort(lines)
	want := []string{
		`arn:aws:ec2:eu-central-1:123456789012:instance/i-00000001 web 10.0.0.1 linux amd64 "Debian GNU/Linux 12" false  2`,
		`arn:aws:ec2:eu-central-1:123456789012:instance/i-00000002 win 10.0.0.2 windows amd64 "Debian GNU/Linux 12" false  0`,
		`arn:aws:ec2:eu-central-1:123456789012:instance/i-00000003 i-00000003  linux arm64 "Linux/UNIX" true cloud_agent 0`,
		`arn:aws:ec2:us-east-1:123456789012:instance/i-00000005 lost 10.1.0.1 linux arm64 "Debian GNU/Linux 12" false cloud_agent 0`,
	}
	if d := cmp.Diff(want, lines); d != "" {
		t.Error(d)
	}
	if fake.Asked("eu-central-1", "AssumeRole") == 0 {
		t.Error("the role was not taken")
	}
}

// TestAnswersThatAreErrors has the cloud refuse, slow down, break and lie.
func TestAnswersThatAreErrors(t *testing.T) {
	refuse := func(status int, code string) func(http.ResponseWriter, string, string, int) bool {
		return func(w http.ResponseWriter, _, action string, _ int) bool {
			if action == "DescribeInstances" {
				cloudtest.AWSError(w, status, code, "no")
				return true
			}
			return false
		}
	}
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter, region, action string, asked int) bool
		want   deploy.ReasonID
	}{
		"not allowed": {refuse(403, "UnauthorizedOperation"), deploy.CloudDenied},
		"credential":  {refuse(401, "AuthFailure"), deploy.CloudCredential},
		"expired":     {refuse(400, "ExpiredToken"), deploy.CloudCredential},
		"not XML": {func(w http.ResponseWriter, _, action string, _ int) bool {
			if action == "DescribeInstances" {
				fmt.Fprint(w, "<<<")
			}
			return action == "DescribeInstances"
		}, deploy.CloudFailed},
		"the same page for ever": {func(w http.ResponseWriter, _, action string, asked int) bool {
			if action != "DescribeInstances" || asked > 5 {
				if asked > 5 {
					panic(http.ErrAbortHandler)
				}
				return false
			}
			fmt.Fprint(w, `<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><reservationSet/><nextToken>again</nextToken></DescribeInstancesResponse>`)
			return true
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			fake := cloudtest.NewAWS(t, fleet()...)
			fake.Answer(c.answer)
			a, _, _ := open(t, fake, nil)
			_, err := a.List(t.Context())
			f, _ := errors.AsType[*deploy.Failure](err)
			if (f == nil) != (c.want == "") || f != nil && f.Reason.ID != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// TestThrottlingIsWaitedFor has the cloud ask for patience twice.
func TestThrottlingIsWaitedFor(t *testing.T) {
	fake := cloudtest.NewAWS(t, fleet()...)
	fake.Answer(func(w http.ResponseWriter, region, action string, asked int) bool {
		if action == "DescribeInstances" && region == "eu-central-1" && asked < 2 {
			cloudtest.AWSError(w, 503, "RequestLimitExceeded", "Request limit exceeded.")
			return true
		}
		return false
	})
	a, _, _ := open(t, fake, nil)
	found, err := a.List(t.Context())
	if err != nil || len(found.Machines) != 4 || len(found.Missed) != 0 {
		t.Errorf("%d machines, %v, %v", len(found.Machines), found.Missed, err)
	}
}

// TestRegionThatIsDown keeps the others.
func TestRegionThatIsDown(t *testing.T) {
	fake := cloudtest.NewAWS(t, fleet()...)
	fake.Answer(func(w http.ResponseWriter, region, _ string, _ int) bool {
		if region == "us-east-1" {
			cloudtest.AWSError(w, 403, "OptInRequired", "You are not subscribed to this service.")
			return true
		}
		return false
	})
	a, _, _ := open(t, fake, nil)
	found, err := a.List(t.Context())
	if err != nil || len(found.Machines) != 3 || len(found.Missed) != 1 {
		t.Fatalf("%d machines, missed %v, %v", len(found.Machines), found.Missed, err)
	}
	m := found.Missed[0]
	if !m.Holds("arn:aws:ec2:us-east-1:123456789012:instance/i-00000005") || m.Holds(found.Machines[0].Key) || m.Part != "us-east-1" {
		t.Errorf("%+v holds the wrong machines", m)
	}
}

// TestCloudThatHangs ends when nobody waits any more.
func TestCloudThatHangs(t *testing.T) {
	fake := cloudtest.NewAWS(t, fleet()...)
	fake.Answer(func(http.ResponseWriter, string, string, int) bool {
		<-t.Context().Done()
		return true
	})
	a, _, _ := open(t, fake, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err := a.List(ctx)
	if f, ok := errors.AsType[*deploy.Failure](err); !ok || f.Reason.ID != deploy.CloudFailed {
		t.Error(err)
	}
}

func TestHugeAnswer(t *testing.T) {
	fake := cloudtest.NewAWS(t, fleet()...)
	fake.Answer(func(w http.ResponseWriter, _, action string, _ int) bool {
		if action != "DescribeInstances" {
			return false
		}
		fmt.Fprint(w, `<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>`)
		part := bytes.Repeat([]byte("x"), 1<<20)
		for range 80 {
			if _, err := w.Write(part); err != nil {
				return true
			}
		}
		return true
	})
	a, _, _ := open(t, fake, func(s *Settings) { s.Regions = s.Regions[:1] })
	if _, err := a.List(t.Context()); err == nil || !strings.Contains(err.Error(), "larger than 64 MB") {
		t.Error(err)
	}
}

// TestRunsScripts has the pretend Systems Manager run them with a real shell.
func TestRunsScripts(t *testing.T) {
	fake := cloudtest.NewAWS(t, fleet()...)
	fake.Run(func(_ cloudtest.Instance, script string) cloudtest.Ran {
		var out, problems strings.Builder
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.Stdout, cmd.Stderr = &out, &problems
		_ = cmd.Run()
		return cloudtest.Ran{Stdout: out.String(), Stderr: problems.String(), Code: cmd.ProcessState.ExitCode()}
	})
	a, _, _ := open(t, fake, nil)
	h, err := a.Reach(t.Context(), "arn:aws:ec2:eu-central-1:123456789012:instance/i-00000001", "")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := deploy.LimitsOf(h), (deploy.Limits{NoInput: true, Cloud: "aws"}); got != want {
		t.Errorf("limits %+v, want %+v", got, want)
	}
	facts, err := deploy.Inspect(t.Context(), h, "")
	if err != nil || facts.System != "Linux" || facts.Kernel == "" {
		t.Errorf("facts %+v, %v", facts, err)
	}
	var lines []string
	err = h.Run(t.Context(), "#!/bin/sh\nfor a; do echo \"komainu:$a\"; done; echo other; echo why >&2; exit 3\n", []string{`it's "$(id)"`, "b c"}, nil, func(l string) { lines = append(lines, l) })
	exit, ok := errors.AsType[*deploy.Exit](err)
	if !ok || exit.Code != 3 || !strings.Contains(exit.Tail, "why") {
		t.Errorf("the script ended with %v", err)
	}
	if d := cmp.Diff([]string{`it's "$(id)"`, "b c"}, lines); d != "" {
		t.Error(d)
	}
	if err := h.Run(t.Context(), "#!/bin/sh\n", nil, strings.NewReader("secret"), nil); err == nil {
		t.Error("input was dropped quietly")
	}
	if err := h.Run(t.Context(), "#!/bin/sh\necho {{ssm:x}}\n", nil, nil, nil); err == nil {
		t.Error("a script with double braces was sent")
	}
	if err := h.Run(t.Context(), "#!/bin/sh\nhead -c 30000 /dev/zero | tr '\\0' x\n", nil, nil, func(string) {}); err == nil || !strings.Contains(err.Error(), "floods") {
		t.Errorf("output that was cut off: %v", err)
	}
}

func TestReachSaysWhy(t *testing.T) {
	fake := cloudtest.NewAWS(t, fleet()...)
	a, _, _ := open(t, fake, nil)
	for key, want := range map[string]deploy.ReasonID{
		"arn:aws:ec2:us-east-1:123456789012:instance/i-00000005":    deploy.CloudAgent,
		"arn:aws:ec2:eu-central-1:123456789012:instance/i-00000003": deploy.CloudAgent,
		"arn:aws:ec2:evil.example/x:123456789012:instance/i-1":      deploy.ConnectorFailed,
		"nonsense": deploy.ConnectorFailed,
	} {
		_, err := a.Reach(t.Context(), key, "")
		if f, ok := errors.AsType[*deploy.Failure](err); !ok || f.Reason.ID != want {
			t.Errorf("%s: %v, want %s", key, err, want)
		}
	}
}

// TestCancels ends a command that nobody waits for any more.
func TestCancels(t *testing.T) {
	fake := cloudtest.NewAWS(t, fleet()...)
	ctx, stop := context.WithCancelCause(t.Context())
	why := errors.New("not wanted any more")
	fake.Answer(func(w http.ResponseWriter, _, action string, _ int) bool {
		if action != "GetCommandInvocation" {
			return false
		}
		fmt.Fprint(w, `{"Status":"InProgress"}`)
		stop(why)
		return true
	})
	a, _, _ := open(t, fake, nil)
	h, err := a.Reach(ctx, "arn:aws:ec2:eu-central-1:123456789012:instance/i-00000001", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Run(ctx, "#!/bin/sh\n", nil, nil, nil); !errors.Is(err, why) {
		t.Error(err)
	}
	if fake.Asked("eu-central-1", "CancelCommand") != 1 {
		t.Error("the command was left running")
	}
}

// TestCommandIsNotLost: a question that is not answered leaves no command
// running that nobody knows of.
func TestCommandIsNotLost(t *testing.T) {
	for code, want := range map[string]struct {
		err       bool
		cancelled int
	}{"ThrottlingException": {}, "InternalServerError": {true, 1}} {
		fake := cloudtest.NewAWS(t, fleet()...)
		fake.Answer(func(w http.ResponseWriter, _, action string, asked int) bool {
			if action == "GetCommandInvocation" && asked < 3 {
				w.Header().Set("Content-Type", "application/x-amz-json-1.1")
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprintf(w, `{"__type":%q,"message":"not now"}`, code)
				return true
			}
			return false
		})
		a, _, _ := open(t, fake, nil)
		a.base.Retryer = func() aws.Retryer { return aws.NopRetryer{} } // it has given up already
		h, err := a.Reach(t.Context(), "arn:aws:ec2:eu-central-1:123456789012:instance/i-00000001", "")
		if err != nil {
			t.Fatal(err)
		}
		err = h.Run(t.Context(), "#!/bin/sh\n", nil, nil, func(string) {})
		if n := fake.Asked("eu-central-1", "CancelCommand"); (err != nil) != want.err || n != want.cancelled {
			t.Errorf("%s: %v, cancelled %d times", code, err, n)
		}
	}
}

// TestRegions: those of all partitions can be named.
func TestRegions(t *testing.T) {
	for region, want := range map[string]string{
		"eu-central-1":   "arn:aws:ec2:eu-central-1:1:instance/i",
		"mx-central-1":   "arn:aws:ec2:mx-central-1:1:instance/i",
		"ap-southeast-7": "arn:aws:ec2:ap-southeast-7:1:instance/i",
		"cn-northwest-1": "arn:aws-cn:ec2:cn-northwest-1:1:instance/i",
		"us-gov-west-1":  "arn:aws-us-gov:ec2:us-gov-west-1:1:instance/i",
		"eusc-de-east-1": "arn:aws-eusc:ec2:eusc-de-east-1:1:instance/i",
	} {
		s := Settings{Regions: []string{region}, AccessKeyID: "AKIAIOSFODNN7EXAMPLE"}
		if err := check(s, "secret"); err != nil {
			t.Error(err)
		}
		if got := key(region, "1", "i"); got != want || keyRegion(got) != region {
			t.Errorf("%s: %s", region, got)
		}
	}
}

// TestSettingsLeadNowhere tries settings that would send requests elsewhere.
func TestSettingsLeadNowhere(t *testing.T) {
	good := Settings{Regions: []string{"eu-central-1"}, AccessKeyID: "AKIAIOSFODNN7EXAMPLE"}
	cloudtest.LeadNowhere(t, good, check, "secret", map[string]func(*Settings){
		"host in region":   func(s *Settings) { s.Regions = []string{"evil.example/"} },
		"user in region":   func(s *Settings) { s.Regions = []string{"x@169.254.169.254"} },
		"no region":        func(s *Settings) { s.Regions = nil },
		"role":             func(s *Settings) { s.RoleARN = "http://x" },
		"external id":      func(s *Settings) { s.ExternalID = "alone" },
		"key with newline": func(s *Settings) { s.AccessKeyID = "AKIAIOSFODNN7EX\nHost: x" },
		"own identity":     func(s *Settings) { s.AccessKeyID = "" },
		"certificates":     func(s *Settings) { s.Certificates = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----" },
	})
}

// check is how a connector checks what somebody saves: the secret is wanted.
func check(s Settings, secret string) error {
	wanted, err := s.Check(secret, cloud.Options{})
	if err == nil && !wanted {
		err = errors.New("no secret is wanted")
	}
	return err
}

func TestIdentifies(t *testing.T) {
	fake, other := cloudtest.NewAWS(t, fleet()...), cloudtest.NewAWS(t)
	_, s, o := open(t, fake, func(s *Settings) { s.Certificates = other.Certificate + fake.Certificate })
	i := *fleet()[0]
	document, signature := fake.Document(i)
	got, err := s.Identify(cloud.Evidence{Document: document, Signature: signature}, o)
	if want := "arn:aws:ec2:eu-central-1:123456789012:instance/i-00000001"; err != nil || got != want {
		t.Errorf("got %q, %v", got, err)
	}
	future := i
	future.Launched = time.Now().Add(time.Hour)
	early, earlySignature := fake.Document(future)
	stranger := cloudtest.NewAWS(t)
	strange, strangeSignature := stranger.Document(i)
	for name, e := range map[string]cloud.Evidence{
		"changed":     {Document: strings.Replace(document, "i-00000001", "i-00000002", 1), Signature: signature},
		"a stranger":  {Document: strange, Signature: strangeSignature},
		"future":      {Document: early, Signature: earlySignature},
		"no document": {Signature: signature},
		"no base64":   {Document: document, Signature: "???"},
		"no message":  {Document: document, Signature: base64.StdEncoding.EncodeToString([]byte("x"))},
		"nothing":     {},
		"no instance": {Document: `{"a":1}`, Signature: fake.Sign([]byte(`{"a":1}`))},
	} {
		if got, err := s.Identify(e, o); err == nil {
			t.Errorf("%s: taken for %s", name, got)
		}
	}
	s.Certificates = ""
	if _, err := s.Identify(cloud.Evidence{Document: document, Signature: signature}, o); err == nil {
		t.Error("taken without certificates")
	}
}

// FuzzIdentify shows documents and signatures that anybody may have made.
func FuzzIdentify(f *testing.F) {
	fake := cloudtest.NewAWS(f)
	s := Settings{Regions: []string{"eu-central-1"}, Certificates: fake.Certificate}
	document, signature := fake.Document(*fleet()[0])
	raw, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(signature, "\n", ""))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(document, raw)
	f.Add("{}", []byte{0x30, 0x80, 0, 0})
	f.Fuzz(func(t *testing.T, text string, raw []byte) {
		key, err := s.Identify(cloud.Evidence{Document: text, Signature: base64.StdEncoding.EncodeToString(raw)}, cloud.Options{})
		if err == nil && strings.TrimSpace(text) != document {
			t.Errorf("%q is taken for %s", text, key)
		}
	})
}
