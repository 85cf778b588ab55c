package scan

import (
	"testing"

	"komainu/finding"
)

// FuzzReply reads what a scanner could send that hostile bytes have taken
// over.
func FuzzReply(f *testing.F) {
	f.Add([]byte(`{"ID":1,"Verdict":{"Outcome":"malicious","Threat":"Virus:DOS/EICAR_Test_File"}}`))
	f.Add([]byte(`{"Verdict":{"Outcome":"clean","Threat":"x"}}`))
	f.Add([]byte(`{"Verdict":{"Outcome":"clean","Bomb":"ratio"}}`))
	f.Add([]byte(`{"Verdict":null}`))
	f.Add([]byte(`[`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := decodeReply(text)
		if err != nil || r.Verdict == nil {
			return
		}
		if v := r.Verdict; (v.Outcome == finding.Malicious) != (v.Threat != "") || v.Threat != "" && !nameShape.MatchString(string(v.Threat)) {
			t.Fatalf("believed: %+v", v)
		}
		if v := r.Verdict; v.Bomb != "" && v.Outcome != finding.NotFullyScanned {
			t.Fatalf("believed: %+v", v)
		}
	})
}
