package incident

import (
	"maps"
	"slices"
	"strings"

	"komainu/fault"
)

// The classifications: what an alert or an incident turned out to be.
const (
	NotSet                        = "NotSet"
	TruePositive                  = "TruePositive"
	InformationalExpectedActivity = "InformationalExpectedActivity"
	FalsePositive                 = "FalsePositive"
)

// determinations says what can be said more exactly of each classification,
// in the words that people know from other portals.
var determinations = map[string][]string{
	NotSet:                        nil,
	TruePositive:                  {"MultiStagedAttack", "MaliciousUserActivity", "CompromisedUser", "Malware", "Phishing", "UnwantedSoftware", "Other"},
	InformationalExpectedActivity: {"SecurityTesting", "LineOfBusinessApplication", "ConfirmedUserActivity", "Other"},
	FalsePositive:                 {"Clean", "InsufficientData", "Other"},
}

// classify checks a pair and returns it as it is kept: no determination is "".
func classify(classification, determination string) (string, error) {
	known, ok := determinations[classification]
	if !ok {
		return "", fault.New(fault.Invalid, "classification %q: want one of %s", classification, strings.Join(slices.Sorted(maps.Keys(determinations)), ", "))
	}
	if determination == "" || determination == NotSet {
		return "", nil
	}
	if !slices.Contains(known, determination) {
		if len(known) == 0 {
			return "", fault.New(fault.Invalid, "determination %q needs a classification; set that too", determination)
		}
		return "", fault.New(fault.Invalid, "determination %q does not belong to %s: want one of %s", determination, classification, strings.Join(known, ", "))
	}
	return determination, nil
}
