package deploy

import "time"

// Upgrade asks for another version of the agent on a device.
type Upgrade struct {
	ID        string `json:"id"`
	Version   string `json:"version"`
	Downgrade bool   `json:"downgrade,omitempty"` // the version may be older than the one that runs
}

// UpgradeState is how far an upgrade is on its device.
type UpgradeState string

// The states of an upgrade.
const (
	UpgradeStateFetching   UpgradeState = "fetching"    // the packages of both versions are fetched and verified
	UpgradeStateReady      UpgradeState = "ready"       // both are there; nothing was changed yet
	UpgradeStateInstalling UpgradeState = "installing"  // the package manager works
	UpgradeStateProbation  UpgradeState = "probation"   // the new version runs and has to show that it is well
	UpgradeStateSucceeded  UpgradeState = "succeeded"   // it did
	UpgradeStateFailed     UpgradeState = "failed"      // Reason says why; the version from before runs
	UpgradeStateRolledBack UpgradeState = "rolled_back" // the new version was not well, and the one from before runs again
)

// UpgradeStates returns every state.
func UpgradeStates() []UpgradeState {
	return []UpgradeState{UpgradeStateFetching, UpgradeStateReady, UpgradeStateInstalling, UpgradeStateProbation, UpgradeStateSucceeded, UpgradeStateFailed, UpgradeStateRolledBack}
}

// Terminal reports whether nothing follows.
func (s UpgradeState) Terminal() bool {
	return s == UpgradeStateSucceeded || s == UpgradeStateFailed || s == UpgradeStateRolledBack
}

// UpgradeStatus is what a device tells of an upgrade. The last one is told
// again on every connection: who keeps it goes by ID and State.
type UpgradeStatus struct {
	ID      string        `json:"id"`
	From    string        `json:"from"`
	To      string        `json:"to"`
	State   UpgradeState  `json:"state"`
	Reason  *Reason       `json:"reason,omitempty"`
	Started time.Time     `json:"started"`
	Ended   time.Time     `json:"ended,omitzero"`
	Gap     time.Duration `json:"gap"` // how long nobody decided on opens, measured; of all restarts in it together
}
