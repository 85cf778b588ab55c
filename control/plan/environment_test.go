package plan_test

import (
	"testing"

	"komainu/control/plan"
	"komainu/fault"
)

func TestScopesOfClouds(t *testing.T) {
	const subscription = "01234567-89ab-cdef-0123-456789abcdef"
	for _, c := range []struct {
		name string
		in   plan.Creation
		ok   bool
		id   string
	}{
		{"site", plan.Creation{Name: "Tokyo"}, true, ""},
		{"site_with_id", plan.Creation{Name: "x", Kind: plan.OnPremises, External: "x"}, false, ""},
		{"azure", plan.Creation{Name: "Azure", Kind: plan.Azure, External: " 01234567-89AB-CDEF-0123-456789ABCDEF"}, true, subscription},
		{"azure_name", plan.Creation{Name: "x", Kind: plan.Azure, External: "production"}, false, ""},
		{"aws", plan.Creation{Name: "AWS", Kind: plan.AWS, External: "123456789012"}, true, "123456789012"},
		{"aws_short", plan.Creation{Name: "x", Kind: plan.AWS, External: "12345678901"}, false, ""},
		{"gcp", plan.Creation{Name: "GCP", Kind: plan.GCP, External: "my-project-1"}, true, "my-project-1"},
		{"gcp_number", plan.Creation{Name: "x", Kind: plan.GCP, External: "1234567"}, false, ""},
		{"cloud_without_id", plan.Creation{Name: "x", Kind: plan.AWS}, false, ""},
		{"unknown", plan.Creation{Name: "x", Kind: "moon", External: "1"}, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := open(t)
			e, err := b.Create(t.Context(), org, c.in)
			if !c.ok {
				if !fault.Is(err, fault.Invalid) {
					t.Errorf("%+v, %v", e, err)
				}
				return
			}
			if err != nil || e.External != c.id {
				t.Errorf("%+v, %v", e, err)
			}
			if _, err := b.Create(t.Context(), org, plan.Creation{Name: "again", Kind: c.in.Kind, External: c.in.External}); c.id != "" && !fault.Is(err, fault.Conflict) {
				t.Errorf("the same scope twice: %v", err)
			}
		})
	}
}

func TestRenameAndDelete(t *testing.T) {
	b := open(t)
	other, err := b.Create(t.Context(), org, plan.Creation{Name: "Osaka"})
	if err != nil {
		t.Fatal(err)
	}
	if e, err := b.Rename(t.Context(), org, other.ID, " Kyoto "); err != nil || e.Name != "Kyoto" {
		t.Errorf("%+v, %v", e, err)
	}
	if _, err := b.Rename(t.Context(), org, other.ID, "On-premises"); !fault.Is(err, fault.Conflict) {
		t.Errorf("a name of another: %v", err)
	}
	if _, err := b.Rename(t.Context(), "foreign", other.ID, "theirs"); !fault.Is(err, fault.NotFound) {
		t.Errorf("another organization: %v", err)
	}
	b.save(t, plan.Change{Servers: true})
	if err := b.Delete(t.Context(), org, b.env); !fault.Is(err, fault.Conflict) {
		t.Errorf("the plan is on: %v", err)
	}
	if err := b.Delete(t.Context(), "foreign", other.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("another organization: %v", err)
	}
	if err := b.Delete(t.Context(), org, other.ID); err != nil {
		t.Error(err)
	}
	if _, err := b.Get(t.Context(), org, other.ID); !fault.Is(err, fault.NotFound) {
		t.Errorf("it is gone: %v", err)
	}
}
