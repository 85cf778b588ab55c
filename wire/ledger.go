package wire

// Protocol is the number of the protocol that this code speaks. It rises with
// every change that the other side can notice; each has one dated line here,
// saying what an absent value means.
//
//	1  2026-11-23  first: Hello, Welcome, Batch, Ack, PolicyPush, PolicyResult,
//	               Heartbeat, Command, CommandResult, Goodbye. A time of 0 is not
//	               known, and the smallest number is the Unix epoch itself.
//	               Absent fields have the zero value.
const Protocol = 1

// Oldest is the oldest protocol that this code still understands. A peer that
// speaks an older one is told so and refused.
const Oldest = 1

// Commands that the control plane may send. An agent refuses any other name.
const (
	CommandPing         = "ping"          // answer
	CommandRenew        = "renew"         // renew the client certificate now
	CommandResyncPolicy = "resync_policy" // say hello again
)

// KnownCommand reports whether a command may be sent.
func KnownCommand(name string) bool {
	return name == CommandPing || name == CommandRenew || name == CommandResyncPolicy
}
