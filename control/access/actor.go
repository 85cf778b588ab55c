package access

import (
	"context"

	"github.com/uptrace/bun"
)

// Kind of an actor.
type Kind string

// The kinds.
const (
	User   Kind = "user"
	Token  Kind = "token"
	System Kind = "system" // the control plane itself, or someone on its host
	Device Kind = "device" // the agent on a host, for whoever is root there
)

// Actor is who makes a request.
type Actor struct {
	Kind         Kind
	ID           string
	Name         string
	Role         Role
	Organization string
	Address      string
	session      string // digest of the session's secret
	locked       bool   // has to change the password first
}

type actorKey struct{}

// WithActor names the actor to everything below.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// ActorOf returns who acts: the system when no request is behind it.
func ActorOf(ctx context.Context) Actor {
	if a, ok := ctx.Value(actorKey{}).(Actor); ok {
		return a
	}
	return Actor{Kind: System, Name: "system"}
}

// Change describes a state change for the audit log.
type Change struct {
	Action string // "user.create"
	Target string // id of what was changed
	Name   string // what people call it
	Detail any    // what changed, without secrets; encoded as JSON
}

// Recorder writes a change to the audit log within the transaction that makes
// it. The actor comes from ctx.
type Recorder func(ctx context.Context, tx bun.IDB, c Change) error
