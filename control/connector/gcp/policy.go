package gcp

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/api/osconfig/v1"

	"komainu/control/connector/cloud"
	"komainu/deploy"
)

// Bounds of OS policies.
const (
	scriptLimit = 32 << 10
	// outputLimit is below what is kept of an output: 100 KB.
	outputLimit = 90_000
	resourceID  = "script"
)

// needed says to the OS Config agent whether the script is to run: 101 when it
// is. An assignment that was left behind says no after a while, so that it does
// not install an agent again that somebody has removed.
const needed = `[ ! -e /run/komainu-%[1]s ] || exit 100
[ "$(date +%%s)" -lt %[2]d ] || exit 100
exit 101
`

// wrapped runs the script once, and keeps what it prints and its code in the
// file that the agent reports. The agent keeps the output of what succeeds
// alone, so the code is in there.
const wrapped = `umask 077
at=/run/komainu-%[1]s
rm -f /run/komainu-k*
cat >"$at.sh" <<'%[1]s'
%[2]s
%[1]s
sh "$at.sh" >"$at.out" 2>&1 </dev/null
code=$?
{
    echo "%[1]s $code $(($(wc -c <"$at.out")))"
    tail -c %[3]d "$at.out"
} >"$at.part"
rm -f "$at.sh" "$at.out"
mv "$at.part" "$at" || exit 1
exit 100
`

// policyOf is the OS policy that runs a script. run is its id, which nobody
// can guess.
func policyOf(run, script string, until time.Time) (*osconfig.OSPolicy, error) {
	enforce := fmt.Sprintf(wrapped, run, strings.TrimSuffix(script, "\n"), outputLimit)
	if len(enforce) > scriptLimit {
		return nil, fmt.Errorf("the script has %d bytes; OS Config takes %d", len(enforce), scriptLimit)
	}
	return &osconfig.OSPolicy{
		Id: run, Mode: "ENFORCEMENT",
		ResourceGroups: []*osconfig.OSPolicyResourceGroup{{Resources: []*osconfig.OSPolicyResource{{
			Id: resourceID,
			Exec: &osconfig.OSPolicyResourceExecResource{
				Validate: &osconfig.OSPolicyResourceExecResourceExec{Interpreter: "SHELL", Script: fmt.Sprintf(needed, run, until.Unix())},
				Enforce:  &osconfig.OSPolicyResourceExecResourceExec{Interpreter: "SHELL", Script: enforce, OutputFilePath: "/run/komainu-" + run},
			},
		}}}},
	}, nil
}

// outcome reads what a script came to from the file of its run.
func outcome(run, encoded string, line func(string)) error {
	raw, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return deploy.Fail(deploy.CloudFailed, "the output in the report is no base64")
	}
	head, output, _ := strings.Cut(string(raw), "\n")
	fields := strings.Fields(head)
	if len(fields) != 3 || fields[0] != run {
		return deploy.Fail(deploy.CloudFailed, "the report is not of this run")
	}
	code, badCode := strconv.ParseUint(fields[1], 10, 8)
	size, badSize := strconv.ParseUint(fields[2], 10, 62)
	if badCode != nil || badSize != nil {
		return deploy.Fail(deploy.CloudFailed, "the report does not say how the script ended")
	}
	cloud.Lines(output, deploy.Prefix, line)
	switch {
	case code != 0:
		return &deploy.Exit{Code: int(code), Tail: cloud.Tail(output)}
	case size > outputLimit:
		return deploy.Failf(deploy.OutputFlood, "more than %d characters", outputLimit)
	}
	return nil
}
