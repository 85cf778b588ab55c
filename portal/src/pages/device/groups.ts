/** The actions of each group of events, by the source that reports them. */
export const groups: Record<string, string[]> = {
  process: ['ProcessCreated', 'ProcessTerminated', 'ProcessAccessed', 'ProcessTampered', 'ScriptContent', 'MemfdCreated', 'SignalSent'],
  file: ['FileCreated', 'FileModified', 'FileDeleted', 'FileRenamed', 'FilePermissionChanged', 'FileLinked', 'SensitiveFileRead', 'RawAccessRead'],
  network: ['ConnectionSuccess', 'ConnectionFailed', 'InboundConnectionAccepted', 'ListeningConnectionCreated', 'DnsQueryResponse'],
  auth: ['LogonSuccess', 'LogonFailed', 'Logoff', 'UserAccountCreated', 'UserAccountModified', 'UserAccountDeleted'],
  system: ['ServiceInstalled', 'ServiceModified', 'ServiceDeleted', 'ScheduledTaskCreated', 'ScheduledTaskUpdated', 'ScheduledTaskDeleted', 'DriverLoad', 'ImageLoaded', 'BpfProgramLoaded'],
  protection: ['AntivirusDetection', 'AntivirusRemediation', 'OpenAllowedUnscanned', 'AntivirusScanStarted', 'AntivirusScanCompleted', 'AntivirusScanCancelled', 'BehaviorDetection'],
  agent: ['AgentStarted', 'AgentStopped', 'AgentPartRestarted', 'AgentSettingChanged', 'AgentPolicyApplied', 'EventsLost', 'AgentHealthChanged'],
}
