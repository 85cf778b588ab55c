package aws

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	"github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"komainu/control/connector/cloud"
	"komainu/deploy"
)

// Bounds of a command.
const (
	deliveryLimit = time.Minute // until the agent of Systems Manager has taken it
	runLimit      = 9 * time.Minute
	waitLimit     = deliveryLimit + runLimit + time.Minute
	// outputLimit is what Systems Manager keeps of an output.
	outputLimit = 24000
	// knownAfter is how long a command may not be known yet after it was sent.
	knownAfter = 15 * time.Second
)

type host struct {
	client *ssm.Client
	id     string
	limits deploy.Limits
}

// Reach returns the way to an instance after Systems Manager has said that it
// can run something there.
func (a *Account) Reach(ctx context.Context, key, _ string) (deploy.Host, error) {
	region := keyRegion(key)
	_, id, ok := strings.Cut(key, ":instance/")
	if !ok || !regionForm.MatchString(region) {
		return nil, deploy.Failf(deploy.ConnectorFailed, "%q is no instance", key)
	}
	h := &host{client: ssm.NewFromConfig(a.in(region)), id: id, limits: deploy.Limits{NoInput: true}}
	if a.settings.Certificates != "" {
		h.limits.Cloud = cloud.AWS
	}
	answer, err := h.client.DescribeInstanceInformation(ctx, &ssm.DescribeInstanceInformationInput{
		Filters: []types.InstanceInformationStringFilter{{Key: aws.String("InstanceIds"), Values: []string{id}}},
	})
	if err != nil {
		return nil, explain(err)
	}
	var info types.InstanceInformation
	known := false
	for _, i := range answer.InstanceInformationList {
		if aws.ToString(i.InstanceId) == id {
			info, known = i, true
		}
	}
	if f := online(info, known); f != nil {
		return nil, f
	}
	return h, nil
}

func (h *host) Limits() deploy.Limits { return h.limits }

func (h *host) Close() error { return nil }

// Run sends the script with the document AWS-RunShellScript and asks until it
// has ended. A script that nobody waits for any more is cancelled.
func (h *host) Run(ctx context.Context, script string, args []string, stdin io.Reader, line func(string)) error {
	if !cloud.Empty(stdin) {
		return errors.New("a script gets no input from Systems Manager")
	}
	text := cloud.Text(script, args)
	if strings.Contains(text, "{{") {
		return errors.New("what stands in double braces of a script would be replaced by Systems Manager")
	}
	sent, err := h.client.SendCommand(ctx, &ssm.SendCommandInput{
		DocumentName: aws.String("AWS-RunShellScript"), InstanceIds: []string{h.id}, Comment: aws.String(deploy.Extension), TimeoutSeconds: aws.Int32(int32(deliveryLimit / time.Second)),
		Parameters: map[string][]string{"commands": {text}, "executionTimeout": {strconv.Itoa(int(runLimit / time.Second))}},
	})
	if err != nil {
		if _, ok := errors.AsType[*types.InvalidInstanceId](err); ok {
			return deploy.Fail(deploy.CloudAgent, "Systems Manager: "+cloud.Tail(err.Error()))
		}
		return explain(err)
	}
	if sent.Command == nil || aws.ToString(sent.Command.CommandId) == "" {
		return deploy.Fail(deploy.CloudFailed, "Systems Manager gives no id of the command")
	}
	command := aws.ToString(sent.Command.CommandId)
	done, err := h.wait(ctx, command)
	if err != nil {
		h.cancel(ctx, command) // else it would run beside the one of the next attempt
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return explain(err)
	}
	return outcome(done, line)
}

// wait asks until a command has ended.
func (h *host) wait(ctx context.Context, command string) (*ssm.GetCommandInvocationOutput, error) {
	start := time.Now()
	for asked := 0; ; asked++ {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(cloud.Pause(asked)):
		}
		answer, err := h.client.GetCommandInvocation(ctx, &ssm.GetCommandInvocationInput{CommandId: &command, InstanceId: &h.id})
		if _, early := errors.AsType[*types.InvocationDoesNotExist](err); early && time.Since(start) < knownAfter {
			continue
		}
		if err != nil && explain(err).Reason.ID == deploy.CloudThrottled && time.Since(start) < waitLimit {
			continue // others ask too much; what runs on the instance goes on
		}
		if err != nil {
			return nil, err
		}
		switch answer.Status {
		case types.CommandInvocationStatusPending, types.CommandInvocationStatusInProgress, types.CommandInvocationStatusDelayed, types.CommandInvocationStatusCancelling:
			if time.Since(start) > waitLimit {
				return nil, deploy.Failf(deploy.TimedOut, "the command is %s since %s", answer.Status, time.Since(start).Round(time.Second))
			}
		default:
			return answer, nil
		}
	}
}

// cancel ends a command that nobody waits for.
func (h *host) cancel(ctx context.Context, command string) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer stop()
	_, _ = h.client.CancelCommand(ctx, &ssm.CancelCommandInput{CommandId: &command, InstanceIds: []string{h.id}}) // it ends by its own limit else
}

// outcome reads what a command came to.
func outcome(done *ssm.GetCommandInvocationOutput, line func(string)) error {
	output := aws.ToString(done.StandardOutputContent)
	cloud.Lines(output, deploy.Prefix, line)
	switch done.Status {
	case types.CommandInvocationStatusSuccess:
		if len(output) >= outputLimit {
			return deploy.Failf(deploy.OutputFlood, "more than %d characters", outputLimit)
		}
		return nil
	case types.CommandInvocationStatusFailed:
		return &deploy.Exit{Code: int(done.ResponseCode), Tail: cloud.Tail(output + aws.ToString(done.StandardErrorContent))}
	case types.CommandInvocationStatusTimedOut:
		if aws.ToString(done.StatusDetails) == "DeliveryTimedOut" {
			return deploy.Fail(deploy.CloudAgent, "SSM Agent has not taken the command")
		}
		return deploy.Fail(deploy.TimedOut, "the command was ended by Systems Manager")
	}
	return deploy.Fail(deploy.CloudFailed, fmt.Sprintf("Systems Manager: %s (%s)", done.Status, aws.ToString(done.StatusDetails)))
}
