package rules_test

import (
	"testing"

	"komainu/content/rules"
)

func TestEveryRuleIsExplained(t *testing.T) {
	all, err := rules.All()
	if err != nil || len(all) == 0 {
		t.Fatalf("%d rules, %v", len(all), err)
	}
	for id, m := range all {
		if m.Title == "" || m.Description == "" || m.Logic == "" || len(m.FalsePositives) == 0 || len(m.Recommended) == 0 {
			t.Errorf("%s: what people read is not complete: %+v", id, m)
		}
	}
}
