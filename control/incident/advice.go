package incident

import "komainu/finding"

// advice is what to do about an alert, by category.
var advice = map[finding.Category][]string{
	finding.CategoryMalware: {
		"Find out how the file came to the server: look at the process that wrote it and at its ancestors.",
		"Scan the server: komainu scan full.",
		"If the file was expected, for example a test, resolve the alert.",
	},
	finding.CategoryCredentialAccess: {
		"Find out who started the session and whether they know of it.",
		"Look at what the same session did afterwards, connections above all.",
		"If nobody does, replace the secrets whose files were opened.",
	},
}

// general is the advice for every other category.
var general = []string{
	"Find out who started the process and whether they know of it.",
	"Look at what the process tree did before and after in the timeline of the device.",
}

// Recommended says what to do about a finding. What failed or was only
// detected comes first: it is still there.
func Recommended(f *finding.Finding) []string {
	list, ok := advice[f.Category]
	if !ok {
		list = general
	}
	if f.Source != finding.SourceAntivirus {
		return list
	}
	switch f.State {
	case finding.Detected:
		return append([]string{"Nothing was done about the file. Remove it, or switch on real-time protection for this filesystem and scan again."}, list...)
	case finding.Failed:
		return append([]string{"The file could not be quarantined. Remove it by hand."}, list...)
	case finding.Blocked:
		return append([]string{"Opening the file was denied, and it is still there. Remove it, or let a scan quarantine it."}, list...)
	}
	return list
}
