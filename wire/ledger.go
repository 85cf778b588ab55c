package wire

// Protocol is the number of the protocol that this code speaks. It rises with
// every change that the other side can notice; each has one dated line here,
// saying what an absent value means.
//
//	1  2026-11-23  first: Hello, Welcome, Batch, Ack, PolicyPush, PolicyResult,
//	               Heartbeat, Command, CommandResult, Goodbye. A time of 0 is not
//	               known, and the smallest number is the Unix epoch itself.
//	               Absent fields have the zero value.
//	2  2026-11-23  detection tests: the command detection_test with
//	               Command.test, TestRun, TestStages. A peer that speaks 1 is
//	               sent none of them.
//	3  2026-11-23  a policy document names the sources of its settings. A peer
//	               that speaks less is sent documents without them: it refuses
//	               fields that it does not know.
//	4  2026-11-29  upgrades: the command upgrade with Command.upgrade, and
//	               UpgradeStatus. A peer that speaks less is sent neither. The
//	               answers to enrolment and renewal have a contentRoot; without
//	               it an agent has no root of the signed repository, and no
//	               content.
const Protocol = 4

// Oldest is the oldest protocol that this code still understands. A peer that
// speaks an older one is told so and refused.
const Oldest = 1

// Commands that the control plane may send. An agent refuses any other name.
const (
	CommandPing         = "ping"           // answer
	CommandRenew        = "renew"          // renew the client certificate now
	CommandResyncPolicy = "resync_policy"  // say hello again
	CommandTest         = "detection_test" // run one of the detection tests; since protocol 2
	CommandUpgrade      = "upgrade"        // install another version of the agent; since protocol 4
)

// TestProtocol is the first protocol with detection tests.
const TestProtocol = 2

// SourcesProtocol is the first protocol whose policy documents name sources.
const SourcesProtocol = 3

// UpgradeProtocol is the first protocol with upgrades.
const UpgradeProtocol = 4

// KnownCommand reports whether a command may be sent.
func KnownCommand(name string) bool {
	switch name {
	case CommandPing, CommandRenew, CommandResyncPolicy, CommandTest, CommandUpgrade:
		return true
	}
	return false
}
