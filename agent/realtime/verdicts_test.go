package realtime

import (
	"testing"

	"pgregory.net/rapid"
)

func TestVerdictsAreBounded(t *testing.T) {
	v := newVerdicts(100)
	for i := range uint64(10_000) {
		s := Stamp{Inode: i}
		v.put(s, i%2 == 0, v.begin(s))
		if n := len(v.young) + len(v.old); n > 100 {
			t.Fatalf("%d entries", n)
		}
	}
	if v.get(Stamp{Inode: 9998}) != KnownBad || v.get(Stamp{Inode: 9999}) != KnownClean {
		t.Error("a fresh verdict is forgotten")
	}
	if v.get(Stamp{Inode: 1}) != Unknown {
		t.Error("an old verdict is remembered")
	}
}

// TestVerdictsAgainstModel compares with a plain map that remembers the last
// verdict of each inode and, for every judgement under way, whether it still
// counts. A cache may forget; it must never say what the model does not.
func TestVerdictsAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := newVerdicts(8)
		type entry struct {
			stamp Stamp
			bad   bool
		}
		type begun struct {
			stamp Stamp
			token token
			void  bool
		}
		model := map[inode]entry{}
		var under []*begun
		stamp := rapid.Custom(func(t *rapid.T) Stamp {
			return Stamp{Inode: rapid.Uint64Range(0, 5).Draw(t, "inode"), ChangeTime: rapid.Int64Range(0, 2).Draw(t, "changed")}
		})
		t.Repeat(map[string]func(*rapid.T){
			"begin": func(t *rapid.T) {
				s := stamp.Draw(t, "stamp")
				under = append(under, &begun{stamp: s, token: v.begin(s)})
			},
			"put": func(t *rapid.T) {
				if len(under) == 0 {
					t.Skip("no judgement is under way")
				}
				i := rapid.IntRange(0, len(under)-1).Draw(t, "which")
				b, bad := under[i], rapid.Bool().Draw(t, "bad")
				under = append(under[:i], under[i+1:]...)
				v.put(b.stamp, bad, b.token)
				if !b.void {
					model[b.stamp.inode()] = entry{b.stamp, bad}
				}
			},
			"drop": func(t *rapid.T) {
				s := stamp.Draw(t, "stamp")
				v.drop(s)
				delete(model, s.inode())
				for _, b := range under {
					b.void = b.void || b.stamp.inode() == s.inode()
				}
			},
			"forget": func(t *rapid.T) {
				v.forget()
				clear(model)
				for _, b := range under {
					b.void = true
				}
			},
			"": func(t *rapid.T) {
				s := stamp.Draw(t, "stamp")
				got := v.get(s)
				e, ok := model[s.inode()]
				if got == Unknown {
					return
				}
				if !ok || e.stamp != s || e.bad != (got == KnownBad) {
					t.Fatalf("get(%+v) = %v, model %+v, %v", s, got, e, ok)
				}
			},
		})
	})
}
