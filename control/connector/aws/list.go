package aws

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"

	"komainu/control/connector/cloud"
	"komainu/deploy"
)

// regionsAtOnce bounds how many regions are asked at the same time.
const regionsAtOnce = 4

// instances and information are one method of a client each. A whole client in
// an interface would have the linker keep all of its methods, for every one of
// which there are types and code: tens of megabytes.
type (
	instances   func(context.Context, *ec2.DescribeInstancesInput, ...func(*ec2.Options)) (*ec2.DescribeInstancesOutput, error)
	information func(context.Context, *ssm.DescribeInstanceInformationInput, ...func(*ssm.Options)) (*ssm.DescribeInstanceInformationOutput, error)
)

func (f instances) DescribeInstances(ctx context.Context, in *ec2.DescribeInstancesInput, o ...func(*ec2.Options)) (*ec2.DescribeInstancesOutput, error) {
	return f(ctx, in, o...)
}

func (f information) DescribeInstanceInformation(ctx context.Context, in *ssm.DescribeInstanceInformationInput, o ...func(*ssm.Options)) (*ssm.DescribeInstanceInformationOutput, error) {
	return f(ctx, in, o...)
}

// List asks every region. One that does not answer is missed; when none does,
// its reason is the error.
func (a *Account) List(ctx context.Context) (cloud.Inventory, error) {
	var mu sync.Mutex
	var found cloud.Inventory
	var all sync.WaitGroup
	slots := make(chan struct{}, regionsAtOnce)
	for _, region := range a.settings.Regions {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			machines, err := a.region(ctx, region)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				holds := func(key string) bool { return keyRegion(key) == region }
				found.Missed = append(found.Missed, cloud.Missed{Part: region, Holds: holds, Reason: explain(err).Reason})
				return
			}
			found.Machines = append(found.Machines, machines...)
		})
	}
	all.Wait()
	if len(found.Missed) == len(a.settings.Regions) {
		return found, &deploy.Failure{Reason: found.Missed[0].Reason}
	}
	return found, nil
}

// region asks one region for its instances, and Systems Manager for those that
// it can run something on.
func (a *Account) region(ctx context.Context, region string) ([]cloud.Machine, error) {
	config := a.in(region)
	managed, err := managed(ctx, ssm.NewFromConfig(config))
	if err != nil {
		return nil, err
	}
	var list []cloud.Machine
	pages := ec2.NewDescribeInstancesPaginator(instances(ec2.NewFromConfig(config).DescribeInstances), &ec2.DescribeInstancesInput{MaxResults: aws.Int32(1000)}, func(o *ec2.DescribeInstancesPaginatorOptions) {
		o.StopOnDuplicateToken = true
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, r := range page.Reservations {
			for _, i := range r.Instances {
				if m, ok := describe(region, aws.ToString(r.OwnerId), i, managed); ok {
					list = append(list, m)
				}
			}
		}
		if len(list) > cloud.MaxMachines {
			return nil, fmt.Errorf("the region names more than %d instances", cloud.MaxMachines)
		}
	}
	return list, nil
}

// managed asks Systems Manager for the instances that have its agent.
func managed(ctx context.Context, client *ssm.Client) (map[string]ssmtypes.InstanceInformation, error) {
	byID := map[string]ssmtypes.InstanceInformation{}
	pages := ssm.NewDescribeInstanceInformationPaginator(information(client.DescribeInstanceInformation), &ssm.DescribeInstanceInformationInput{MaxResults: aws.Int32(50)}, func(o *ssm.DescribeInstanceInformationPaginatorOptions) {
		o.StopOnDuplicateToken = true
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, err
		}
		for _, i := range page.InstanceInformationList {
			byID[aws.ToString(i.InstanceId)] = i
		}
		if len(byID) > cloud.MaxMachines {
			return nil, fmt.Errorf("more than %d instances are named by Systems Manager", cloud.MaxMachines)
		}
	}
	return byID, nil
}

// describe turns an instance into a machine; false for one that is gone.
func describe(region, owner string, i types.Instance, managed map[string]ssmtypes.InstanceInformation) (cloud.Machine, bool) {
	id := aws.ToString(i.InstanceId)
	m := cloud.Machine{
		Key: key(region, owner, id), Name: id, Address: aws.ToString(i.PrivateIpAddress), System: "linux", OS: aws.ToString(i.PlatformDetails), Arch: string(i.Architecture), Tags: map[string]string{},
	}
	if m.Arch == string(types.ArchitectureValuesX8664) {
		m.Arch = "amd64"
	}
	if i.Platform == types.PlatformValuesWindows || strings.HasPrefix(m.OS, "Windows") {
		m.System = "windows"
	}
	for _, t := range i.Tags {
		if k := aws.ToString(t.Key); k == "Name" && aws.ToString(t.Value) != "" {
			m.Name = aws.ToString(t.Value)
		} else {
			m.Tags[k] = aws.ToString(t.Value)
		}
	}
	if i.State != nil {
		switch i.State.Name {
		case types.InstanceStateNameTerminated, types.InstanceStateNameShuttingDown:
			return m, false
		case types.InstanceStateNameStopped, types.InstanceStateNameStopping:
			m.Stopped = true
		}
	}
	info, ok := managed[id]
	if ok && aws.ToString(info.PlatformName) != "" {
		m.OS = strings.TrimSpace(aws.ToString(info.PlatformName) + " " + aws.ToString(info.PlatformVersion))
	}
	if f := online(info, ok); f != nil {
		m.Problem = &f.Reason
	}
	return m, id != ""
}

// online says why Systems Manager cannot run something on an instance.
func online(i ssmtypes.InstanceInformation, known bool) *deploy.Failure {
	switch {
	case !known:
		return deploy.Fail(deploy.CloudAgent, "Systems Manager does not know the instance: its SSM Agent does not run, or its role lacks AmazonSSMManagedInstanceCore")
	case i.PingStatus != ssmtypes.PingStatusOnline:
		return deploy.Failf(deploy.CloudAgent, "SSM Agent: %s", i.PingStatus)
	}
	return nil
}

// key is the ARN of an instance: no other instance ever has it.
func key(region, owner, id string) string {
	partition := "aws"
	switch {
	case strings.HasPrefix(region, "cn-"):
		partition = "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		partition = "aws-us-gov"
	case strings.HasPrefix(region, "eusc-"):
		partition = "aws-eusc"
	}
	return "arn:" + partition + ":ec2:" + region + ":" + owner + ":instance/" + id
}

func keyRegion(key string) string {
	parts := strings.SplitN(key, ":", 6)
	if len(parts) < 6 {
		return ""
	}
	return parts[3]
}
