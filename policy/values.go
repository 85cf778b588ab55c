package policy

// Values returns every setting that is in effect, by its JSON name: what
// Origins says of.
func (e Effective) Values() map[string]any {
	return map[string]any{
		"enforcementLevel":           e.EnforcementLevel,
		"filesystems":                e.Filesystems,
		"behaviorMonitoring":         e.BehaviorMonitoring,
		"scanArchives":               e.ScanArchives,
		"maximumOnDemandScanThreads": e.OnDemandScanThreads,
		"enableFileHashComputation":  e.FileHashComputation,
		"scanAfterDefinitionUpdate":  e.ScanAfterUpdate,
		"scanResultsRetentionDays":   e.QuarantineRetention,
		"exclusions":                 e.Exclusions,
		"exclusionsAdminOnly":        e.ExclusionsAdminOnly,
		"allowedThreats":             e.AllowedThreats,
		"endpointDetection":          e.EndpointDetection,
		"ebpfSupplementary":          e.EBPF,
		"tags":                       e.Tags,
		"threatTypeSettings":         e.ThreatTypes,
		"disallowedThreatActions":    e.DisallowedThreatActions,
		"scanSchedule":               e.ScanSchedule,
		"scanHistoryMaximumItems":    e.ScanHistory,
		"unmonitoredFilesystems":     e.UnmonitoredFilesystems,
		"telemetry":                  e.Telemetry,
		"logLevel":                   e.LogLevel,
		"proxy":                      e.Proxy,
	}
}
