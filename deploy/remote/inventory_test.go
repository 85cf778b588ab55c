package remote

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseInventory(t *testing.T) {
	for text, want := range map[string]string{
		"web01":                               "web01:22",
		"web[01-03].example.net":              "web01.example.net:22 web02.example.net:22 web03.example.net:22",
		"web[8-11]":                           "web8:22 web9:22 web10:22 web11:22",
		"10.0.0.[5-6]:2222":                   "10.0.0.5:2222 10.0.0.6:2222",
		"r[1-2]h[a,b]":                        "r1ha:22 r1hb:22 r2ha:22 r2hb:22",
		"2001:db8::5":                         "[2001:db8::5]:22",
		"[2001:db8::5]":                       "[2001:db8::5]:22",
		"[2001:db8::5]:2022":                  "[2001:db8::5]:2022",
		"admin@db1:22 role=db # the database": "admin@db1:22 role=db",
		"a, b,c":                              "a:22 b:22 c:22",
		"# nothing\n\n  \nlast":               "last:22",
		"web[1,3,5-6]":                        "web1:22 web3:22 web5:22 web6:22",
	} {
		list, err := ParseInventory(text)
		var got []string
		for _, e := range list {
			line := e.Address(0)
			if e.User != "" {
				line = e.User + "@" + line
			}
			for k, v := range e.Tags {
				line += " " + k + "=" + v
			}
			got = append(got, line)
		}
		if d := cmp.Diff(want, strings.Join(got, " ")); d != "" || err != nil {
			t.Errorf("%q: %v\n%s", text, err, d)
		}
	}
	for text, want := range map[string]string{
		"a\nb\na":          "line 3",
		"web[1-3":          "[ without ]",
		"web1-3]":          "] without [",
		"web[3-1]":         "backwards",
		"web[1-99999999]":  "at most 20000",
		"w[1-999][1-999]":  "at most 20000",
		"web[1-x]":         "want a range",
		"web:99999":        "65535",
		"web; rm -rf /":    "no name",
		"-oProxyCommand=x": "no host",
		"-oProxyCommand":   "no name",
		"@web":             "user is missing",
		"a=b web":          "hosts come first",
		"$(reboot)":        "no name",
	} {
		if _, err := ParseInventory(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", text, err, want)
		}
	}
}
