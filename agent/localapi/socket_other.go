//go:build !linux

package localapi

import (
	"context"
	"net"

	"komainu/fault"
)

// errNoPipe is what this platform answers until it has the named pipe.
var errNoPipe = fault.New(fault.Unsupported, "the local interface of the agent is not available on this platform in this version")

func listen(string) (net.Listener, error) { return nil, errNoPipe }

func dial(context.Context, string) (net.Conn, error) { return nil, errNoPipe }

func callerOn(net.Conn) (Caller, error) { return Caller{}, errNoPipe }
