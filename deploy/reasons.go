package deploy

import (
	"maps"
	"slices"
)

// ReasonID names a reason for programs. A name never changes its meaning.
type ReasonID string

// On the way to the host.
const (
	Unreachable       ReasonID = "unreachable"
	NameNotFound      ReasonID = "name_not_found"
	ConnectionRefused ReasonID = "connection_refused"
	TimedOut          ReasonID = "timed_out"
	HostKeyChanged    ReasonID = "host_key_changed" // Detail: what was known and what is offered
	HostKeyUnknown    ReasonID = "host_key_unknown" // Detail: what is offered
	LoginRefused      ReasonID = "login_refused"
	JumpRefused       ReasonID = "jump_refused"
	SudoRefused       ReasonID = "sudo_refused"
	SudoPassword      ReasonID = "sudo_password"
	NoShell           ReasonID = "no_shell"
	ShellHangs        ReasonID = "shell_hangs"
	OutputFlood       ReasonID = "output_flood"
	OutputGarbled     ReasonID = "output_garbled"
	ConnectionLost    ReasonID = "connection_lost"
	ConnectorFailed   ReasonID = "connector_failed"
	CredentialMissing ReasonID = "credential_missing"
	NoWay             ReasonID = "no_way" // no connector reaches the machine

	CloudDenied      ReasonID = "cloud_denied"     // Detail: what is not allowed
	CloudCredential  ReasonID = "cloud_credential" // Detail: what the cloud says of it
	CloudThrottled   ReasonID = "cloud_throttled"
	CloudFailed      ReasonID = "cloud_failed"      // Detail: what it says
	CloudAgent       ReasonID = "cloud_agent"       // Detail: the agent of the cloud that does not answer
	InventoryPartial ReasonID = "inventory_partial" // Detail: the parts
)

// Of the host before anything is changed on it.
const (
	NotRoot                 ReasonID = "not_root"
	OSUnsupported           ReasonID = "os_unsupported"
	OSEnd                   ReasonID = "os_end"
	KernelOld               ReasonID = "kernel_old"
	ArchUnsupported         ReasonID = "arch_unsupported"
	NoSystemd               ReasonID = "no_systemd"
	Container               ReasonID = "container"
	DiskFull                ReasonID = "disk_full"
	MemoryLow               ReasonID = "memory_low"
	ClockOff                ReasonID = "clock_off"
	UnreachableControlPlane ReasonID = "unreachable_control_plane"
	ConflictingAgent        ReasonID = "conflicting_agent"
	PackageManagerBusy      ReasonID = "package_manager_busy"
	PackageManagerBroken    ReasonID = "package_manager_broken"
	NoPackage               ReasonID = "no_package"
)

// While the host is changed, and after.
const (
	TransferFailed    ReasonID = "transfer_failed"
	Checksum          ReasonID = "checksum"
	InstallFailed     ReasonID = "install_failed"
	ServiceFailed     ReasonID = "service_failed"
	EnrolRefused      ReasonID = "enrol_refused"
	EnrolFailed       ReasonID = "enrol_failed"
	EnrolledElsewhere ReasonID = "enrolled_elsewhere"
	EnrolledTwice     ReasonID = "enrolled_twice"
	NoReport          ReasonID = "no_report"
	NoPolicy          ReasonID = "no_policy"
	SelfTestFailed    ReasonID = "self_test_failed"
	SelfTestSilent    ReasonID = "self_test_silent"
	RemoveFailed      ReasonID = "remove_failed"
	Interrupted       ReasonID = "interrupted"
)

// Why a machine is not to be protected, or cannot be.
const (
	Windows       ReasonID = "windows"
	Appliance     ReasonID = "appliance"
	Excluded      ReasonID = "excluded"
	PlanOff       ReasonID = "plan_off"
	ProtectionOff ReasonID = "protection_off"
	Stopped       ReasonID = "stopped"
	Image         ReasonID = "image"
	Offboarded    ReasonID = "offboarded"

	OffboardedByHost ReasonID = "offboarded_by_host"
)

// Of upgrades.
const (
	UpgradeFailed      ReasonID = "upgrade_failed"
	UpgradeRolledBack  ReasonID = "upgrade_rolled_back"
	UpgradeUnhealthy   ReasonID = "upgrade_unhealthy"
	UpgradeUntrusted   ReasonID = "upgrade_untrusted"
	UpgradeNoWayBack   ReasonID = "upgrade_no_way_back"
	UpgradeInterrupted ReasonID = "upgrade_interrupted"
	UpgradeStuck       ReasonID = "upgrade_stuck"
	UpgradeTooOld      ReasonID = "upgrade_too_old"
	UpgradeRefused     ReasonID = "upgrade_refused"  // Detail: what the agent says
	UpgradeReplaced    ReasonID = "upgrade_replaced" // Detail: the version that is the target now
)

type entry struct {
	text, remedy string
	permanent    bool // trying again alone does not help
	inapplicable bool // the machine is not one that can be protected
}

// catalogue holds what people read. Permanent is what a retry cannot mend: a
// machine that is down comes back, a login that is refused does not become
// right by itself.
var catalogue = map[ReasonID]entry{
	Unreachable:       {text: "the machine cannot be reached over the network", remedy: "check that it runs, and that a firewall lets the control plane through to its SSH port"},
	NameNotFound:      {text: "the name of the machine is not known to DNS", remedy: "correct the name in the connector's list, or give its address"},
	ConnectionRefused: {text: "the machine is there, but nothing listens on its SSH port", remedy: "start sshd on it, or correct the port in the connector's list"},
	TimedOut:          {text: "the machine did not answer in time", remedy: "check that it runs and is not overloaded, and that a firewall does not swallow the packets"},
	HostKeyChanged: {text: "the machine shows another host key than before: it was reinstalled, or somebody stands in between", permanent: true,
		remedy: "compare the fingerprint on the machine's console (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub); if it is right, accept it at the connector's host keys"},
	HostKeyUnknown: {text: "the machine's host key is not in the list of the connector, which takes listed keys only", permanent: true,
		remedy: "add the key to the connector's known hosts, or let the connector pin a key when it sees it first"},
	LoginRefused: {text: "sshd refuses the login", permanent: true,
		remedy: "check user and key of the connector, and the machine's authorized_keys or TrustedUserCAKeys; its journal of sshd says more"},
	JumpRefused:     {text: "the jump host does not let the connection through", permanent: true, remedy: "check the login on the jump host, and AllowTcpForwarding in its sshd_config"},
	SudoRefused:     {text: "the user may not become root with sudo", permanent: true, remedy: "give the user a line in /etc/sudoers.d, or log in as root"},
	SudoPassword:    {text: "sudo asks for a password that the connector does not have, or takes another one", permanent: true, remedy: "store the password in the connector, or use NOPASSWD for this user"},
	NoShell:         {text: "the user has no shell that runs a script", permanent: true, remedy: "give the user a POSIX shell as login shell, and remove a forced command"},
	ShellHangs:      {text: "the shell of the machine hangs: nothing came from it for too long", remedy: "look at the profile scripts of the user and at the load of the machine"},
	OutputFlood:     {text: "the machine floods the connection with output, which was ended", permanent: true, remedy: "look at the profile scripts of the user; a machine that does this on purpose is compromised"},
	OutputGarbled:   {text: "what the machine answers makes no sense", permanent: true, remedy: "look at the profile scripts of the user; a machine that does this on purpose is compromised"},
	ConnectionLost:  {text: "the connection to the machine broke", remedy: "nothing: it is tried again"},
	ConnectorFailed: {text: "the connector cannot do its work", permanent: true, remedy: "test the connector; its error says what is missing"},
	CredentialMissing: {text: "the connector holds no credential for the machine, which waits for somebody to deploy to it", permanent: true,
		remedy: "on your workstation, run the command that the detail says: it logs in with your own keys; or let the connector use certificates or a stored key"},
	NoWay: {text: "no connector of the environment reaches the machine", permanent: true, remedy: "add it to the list of a connector, or enrol it with a join token"},
	CloudDenied: {text: "the cloud does not allow it to the connector", permanent: true,
		remedy: "give the connector's identity the permissions that docs/clouds.md lists; the detail is the one that lacks"},
	CloudCredential: {text: "the cloud does not take the connector's credential", permanent: true, remedy: "store a new credential in the connector; it may have expired or been deleted"},
	CloudThrottled:  {text: "the cloud slows the connector down", remedy: "nothing: it is tried again later; if it stays, something else uses up the account's requests"},
	CloudFailed:     {text: "the cloud did not do what it was asked for", remedy: "the detail is what it says; it is tried again"},
	CloudAgent: {text: "the agent of the cloud on the machine does not answer, so that nothing can be run there",
		remedy: "install and start it (SSM Agent, Azure VM Agent or OS Config agent), and give the machine what it needs to reach its service; docs/clouds.md says what"},
	InventoryPartial: {text: "a part of the cloud's inventory could not be read; its machines stay as they were", remedy: "the detail says which part, and why; it is tried again"},

	NotRoot:         {text: "the script does not run as root", permanent: true, remedy: "log in as root, or give the user sudo in the connector"},
	OSUnsupported:   {text: "the operating system is not supported", permanent: true, inapplicable: true, remedy: "docs/platforms.md lists what is; exclude the machine by a tag if it shall not be protected"},
	OSEnd:           {text: "the operating system is too old", permanent: true, remedy: "upgrade it; docs/platforms.md lists what is supported"},
	KernelOld:       {text: "the kernel is too old", permanent: true, remedy: "boot a kernel of at least 4.18"},
	ArchUnsupported: {text: "there is no agent for this kind of processor", permanent: true, inapplicable: true, remedy: "exclude the machine by a tag; x86-64 and ARM64 are supported"},
	NoSystemd:       {text: "the machine was not started by systemd", permanent: true, inapplicable: true, remedy: "the agent needs systemd to run it and to watch over it"},
	Container:       {text: "this is a container: it shares its kernel with a host", permanent: true, inapplicable: true, remedy: "protect the host; its agent sees the containers on it"},
	DiskFull:        {text: "there is too little room on the disk", remedy: "make room below /var and /usr: 300 MB are needed"},
	MemoryLow:       {text: "the machine has too little memory", permanent: true, remedy: "give it at least 400 MB"},
	ClockOff:        {text: "the clock of the machine is wrong, so that it cannot check certificates", remedy: "set the clock, and let chrony or systemd-timesyncd keep it"},
	UnreachableControlPlane: {text: "the machine cannot reach the control plane",
		remedy: "let it connect to the port of the control plane, and check that the control plane's --hostname is a name that machines can resolve"},
	ConflictingAgent: {text: "another product decides on file accesses here, and two would wait for each other", permanent: true,
		remedy: "remove the other product, or deploy all the same from the page of the machine"},
	PackageManagerBusy:   {text: "the package manager is busy with something else", remedy: "nothing: it is tried again when that is done"},
	PackageManagerBroken: {text: "the package manager of the machine does not work", permanent: true, remedy: "repair it; dpkg --audit or rpm --verifydb says what is wrong. Nothing was changed"},
	NoPackage:            {text: "the repository has no package of the agent for this machine", permanent: true, remedy: "add one with komainu-control content add"},

	TransferFailed:    {text: "the package did not arrive on the machine", remedy: "check the room in /var/tmp and the network; it is tried again"},
	Checksum:          {text: "the package arrived damaged and was not installed", remedy: "nothing: it is tried again; if it stays, look for what changes the data on the way"},
	InstallFailed:     {text: "the package manager refuses the package", remedy: "the detail is what it says; it is tried again"},
	ServiceFailed:     {text: "the agent is installed but does not start", remedy: "journalctl -u komainu-agent on the machine says why"},
	EnrolRefused:      {text: "the control plane refused the enrolment", remedy: "nothing: it is tried again with a new token"},
	EnrolFailed:       {text: "the agent could not enrol", remedy: "the detail is what it says; it is tried again"},
	EnrolledElsewhere: {text: "the agent on the machine belongs to another control plane", permanent: true, remedy: "offboard it there, or take the machine over from its page"},
	EnrolledTwice: {text: "the agent on the machine is enrolled as another machine", permanent: true,
		remedy: "if both are one server, let its agent run in this version, which proves it, or take it out of one of the inventories; if it is a copy of the other one, take it over from its page: it gets an identity of its own"},
	NoReport:       {text: "the agent is enrolled but has not connected", remedy: "komainu connectivity test on the machine says why"},
	NoPolicy:       {text: "the agent does not confirm its policy", remedy: "the page of the device says what the agent refuses"},
	SelfTestFailed: {text: "the self-test did not pass", remedy: "the run of the test says at which stage it ended and why"},
	SelfTestSilent: {text: "the self-test gave no answer in time", remedy: "nothing: it is tried again; look at the load of the machine if it stays"},
	RemoveFailed:   {text: "the agent could not be removed", remedy: "the detail says why; it is tried again for about a day. After that, or sooner, remove the package komainu-agent by hand"},
	Interrupted:    {text: "the control plane was stopped in the middle of it", remedy: "nothing: it is taken up again"},

	Windows:       {text: "this is Windows, for which this version has no automatic deployment", permanent: true, remedy: "nothing can be done in this version"},
	Appliance:     {text: "this is an appliance", permanent: true, remedy: "nothing can be done"},
	Excluded:      {text: "a tag excludes the machine from deployment", permanent: true, remedy: "change the tag, or the exclusions of the environment's onboarding"},
	PlanOff:       {text: "the plan is off here", permanent: true, remedy: "switch the plan on for the environment, or for this machine"},
	ProtectionOff: {text: "endpoint protection is switched off in the plan", permanent: true, remedy: "switch endpoint protection on"},
	Stopped:       {text: "the machine is stopped", remedy: "nothing: it is protected when it runs"},
	Image:         {text: "this is a golden image: its copies are protected, not itself", permanent: true, inapplicable: true, remedy: "nothing is to be done"},
	Offboarded:    {text: "somebody has offboarded the machine", permanent: true, remedy: "to protect it again, deploy from its page"},
	OffboardedByHost: {text: "the host has offboarded itself", permanent: true,
		remedy: "to protect it again, deploy from its page; if nobody meant to do this, look at who was root on the host"},

	UpgradeFailed:     {text: "the upgrade did not succeed, and the version from before runs", remedy: "the detail is what the package manager says"},
	UpgradeRolledBack: {text: "the new version did not become healthy, and the version from before runs again", remedy: "the detail is what it lacked; report it"},
	UpgradeUntrusted: {text: "the repository, or a package in it, is not what was signed; nothing was changed", permanent: true,
		remedy: "the detail says what is wrong with it; look for who changes it on the way, or at the state of the repository"},
	UpgradeNoWayBack: {text: "the repository has no package of the version that runs, so that there would be no way back; nothing was changed", permanent: true,
		remedy: "add that version with komainu-control content add"},
	UpgradeInterrupted: {text: "the agent was stopped while it fetched the packages; nothing was changed", remedy: "upgrade it again"},
	UpgradeStuck: {text: "the new version was not well, and the one from before is not well either", permanent: true,
		remedy: "look after the machine: journalctl -u komainu-upgrade -u komainu-agent says what was done"},
	UpgradeUnhealthy: {text: "the machine is less healthy since the upgrade", remedy: "the page of the device says what is wrong; roll the upgrade back if it is not the machine"},
	UpgradeTooOld:    {text: "the agent is too old to upgrade itself", remedy: "deploy to the machine from its page, or install the package on it"},
	UpgradeRefused:   {text: "the agent did not begin the upgrade; nothing was changed", remedy: "the detail is what it says; it is asked again"},
	UpgradeReplaced: {text: "another version is the target now, and no device needs an upgrade to it",
		remedy: "nothing; to go on, make the version the target again; devices that have it already keep it, or get their version from before back with a rollback"},
}

// ReasonOf returns a reason of the catalogue.
func ReasonOf(id ReasonID, detail string) Reason {
	e := catalogue[id]
	return Reason{ID: id, Text: e.text, Remedy: e.remedy, Detail: detail}
}

// ReasonIDs returns every reason there is, in the order of their names.
func ReasonIDs() []ReasonID { return slices.Sorted(maps.Keys(catalogue)) }

// Known reports whether the catalogue has a reason.
func Known(id ReasonID) bool { _, ok := catalogue[id]; return ok }
