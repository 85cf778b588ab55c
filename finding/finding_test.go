package finding_test

import (
	"testing"

	"komainu/finding"
)

func TestSeverityRoundTrip(t *testing.T) {
	for s := finding.Informational; s <= finding.High; s++ {
		var got finding.Severity
		text, _ := s.MarshalText()
		if err := got.UnmarshalText(text); err != nil || got != s {
			t.Errorf("%s came back as %v, %v", text, got, err)
		}
	}
	var s finding.Severity
	if err := s.UnmarshalText([]byte("low")); err == nil {
		t.Error("severities are case-sensitive names")
	}
}
