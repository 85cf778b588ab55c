package remote_test

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	diff "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"komainu/deploy/remote"
	"komainu/fault"
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
		"web[098-101]":                        "web098:22 web099:22 web100:22 web101:22",
		"[web-1,db-2].example.net":            "web-1.example.net:22 db-2.example.net:22",
		"2001:db8::[1-2]":                     "[2001:db8::1]:22 [2001:db8::2]:22",
		"fe80::1%eth0":                        "[fe80::1%eth0]:22",
		"ops@corp.example@web:22":             "ops@corp.example@web:22",
		"web:22 web:2222":                     "web:22 web:2222",
	} {
		list, err := remote.ParseInventory(text, 0)
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
		if d := diff.Diff(want, strings.Join(got, " ")); d != "" || err != nil {
			t.Errorf("%q: %v\n%s", text, err, d)
		}
	}
	for text, want := range map[string]string{
		"a\nb\na":                              "line 3",
		"web[1-3":                              "[ without ]",
		"web1-3]":                              "] without [",
		"web[3-1]":                             "backwards",
		"web[1-99999999]":                      "at most 20000",
		"w[1-999][1-999]":                      "at most 20000",
		"web[1-x]":                             "want a range",
		"web:99999":                            "65535",
		"web; rm -rf /":                        "no name",
		"-oProxyCommand=x":                     "no host",
		"-oProxyCommand":                       "no name",
		"@web":                                 "user is missing",
		"a=b web":                              "hosts come first",
		"$(reboot)":                            "no name",
		"web[a-c]":                             "commas",
		"web[0000000000000000000001-3]":        "range of numbers",
		"web[1-5":                              "[ without ]",
		"web[,]":                               "missing",
		"web[]":                                "missing",
		"web[1-]":                              "commas",
		"Web\nweb":                             "line 2: web is in line 1 already",
		"::1\n[0:0::1]:22":                     "line 2",
		"web.example.net.\nweb.example.net:22": "line 2",
		"10.0.0.1\n::ffff:10.0.0.1":            "line 2",
		"fe80::1%$(x)":                         "no name",
		"a b=1 b=2":                            "twice",
		"a;b@web":                              "user",
		"fe80::1 fe80::[1-3]":                  "line 1",
		// What would grow without end is refused before it does.
		"w[" + strings.Repeat("1-19999,", 50_000) + "1]": "too many",
		"w[1-9999]" + strings.Repeat("x", 100_000):       "at most",
		"w[" + strings.Repeat("0", 100_000) + "1-9]":     "too long",
		"w" + strings.Repeat("[1]", 100_000):             "at most",
		strings.Repeat("web[1-20000]\n", 2):              "line 2",
		strings.Repeat("x", 5<<20):                       "larger than",
	} {
		if _, err := remote.ParseInventory(text, 0); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80q: %v, want %q in it", text, err, want)
		} else if len(err.Error()) > 500 {
			t.Errorf("%.80q: an error of %d bytes", text, len(err.Error()))
		}
	}
}

// The port of a connector counts for the lines that name none.
func TestInventoryWithAPortOfItsOwn(t *testing.T) {
	if list, err := remote.ParseInventory("web\nweb:22", 2222); err != nil || len(list) != 2 {
		t.Errorf("%v %v", list, err)
	}
	if _, err := remote.ParseInventory("web\nweb:2222", 2222); err == nil {
		t.Error("one address is there twice")
	}
}

// TestInventoryLikeANaiveOne compares with an expander that knows no bounds
// and no syntax: it gets the parts that the text is made of.
func TestInventoryLikeANaiveOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var text strings.Builder
		var want []string
		for line := range rapid.IntRange(0, 5).Draw(t, "lines") {
			names := []string{fmt.Sprintf("h%d-", line)} // no line repeats another
			text.WriteString(names[0])
			for range rapid.IntRange(0, 3).Draw(t, "parts") {
				written, values := part(t)
				text.WriteString(written)
				var longer []string
				for _, n := range names {
					for _, v := range values {
						longer = append(longer, n+v)
					}
				}
				names = longer
				// Without something between them, 1 and 11 could be 11 and 1.
				text.WriteString(".x")
				for i := range names {
					names[i] += ".x"
				}
			}
			port := rapid.SampledFrom([]string{"", ":22", ":2222"}).Draw(t, "port")
			text.WriteString(port + rapid.SampledFrom([]string{"\n", "  k=v # c\n", "\t#x=[1-\n", "\r\n\n"}).Draw(t, "end"))
			for _, n := range names {
				want = append(want, n+cmp.Or(port, ":22"))
			}
		}
		list, err := remote.ParseInventory(text.String(), 0)
		if err != nil {
			t.Fatalf("%q: %v", text.String(), err)
		}
		var got []string
		for _, e := range list {
			got = append(got, e.Address(0))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%q\nis  %q\nnot %q", text.String(), got, want)
		}
	})
}

// part draws a range and what it stands for.
func part(t *rapid.T) (text string, values []string) {
	var parts []string
	used := map[string]bool{}
	for range rapid.IntRange(1, 2).Draw(t, "members") {
		if rapid.Bool().Draw(t, "word") {
			w := rapid.StringMatching(`[a-z]{2,4}`).Draw(t, "word")
			if !used[w] {
				parts, values = append(parts, w), append(values, w)
			}
			used[w] = true
			continue
		}
		from := rapid.IntRange(0, 120).Draw(t, "from")
		to := from + rapid.IntRange(0, 3).Draw(t, "more")
		first := strconv.Itoa(from)
		if rapid.Bool().Draw(t, "zeros") {
			first = "0" + first
		}
		var numbers []string
		for n := from; n <= to; n++ {
			v := strconv.Itoa(n)
			for first[0] == '0' && len(v) < len(first) {
				v = "0" + v
			}
			numbers = append(numbers, v)
		}
		if slices.ContainsFunc(numbers, func(v string) bool { return used[v] }) {
			continue
		}
		for _, v := range numbers {
			used[v] = true
		}
		parts, values = append(parts, first+"-"+strconv.Itoa(to)), append(values, numbers...)
	}
	return "[" + strings.Join(parts, ",") + "]", values
}

func FuzzParseInventory(f *testing.F) {
	for _, seed := range []string{"web[01-20].example.net:22 role=web # x", "ops@10.0.0.[5-9]", "[2001:db8::5]:22, fe80::1%eth0", "[a,b,c][1-2]", "w[1-9][1-9][1-9][1-9][1-9]", "a]b[", "[-]@:"} {
		f.Add(seed)
	}
	safe := regexp.MustCompile(`^[A-Za-z0-9._:-]+(%[A-Za-z0-9._-]+)?$`)
	f.Fuzz(func(t *testing.T, text string) {
		list, err := remote.ParseInventory(text, 0)
		if len(list) > remote.MaxHosts || err != nil && (list != nil || len(err.Error()) > 600) {
			t.Fatalf("%d hosts, %v", len(list), err)
		}
		if err != nil && fault.KindOf(err) != fault.Invalid {
			t.Fatal(err)
		}
		var again strings.Builder
		for _, e := range list {
			if !safe.MatchString(e.Name) || e.Name[0] == '-' || e.Port < 0 || e.Port > 65535 || strings.ContainsAny(e.User, " \t\n'\";|&<>[]") {
				t.Fatalf("%+v", e)
			}
			if e.User != "" {
				again.WriteString(e.User + "@")
			}
			again.WriteString(e.Address(0) + "\n")
		}
		// What it stands for, written out, stands for the same.
		flat, err := remote.ParseInventory(again.String(), 0)
		if err != nil || len(flat) != len(list) {
			t.Fatalf("%q became %d hosts of %d: %v", again.String(), len(flat), len(list), err)
		}
		for i := range flat {
			if flat[i].Address(0) != list[i].Address(0) || flat[i].User != list[i].User {
				t.Fatalf("%+v became %+v", list[i], flat[i])
			}
		}
	})
}

// TestTagsAreBounded has each of many hosts get what stands in the line once.
func TestTagsAreBounded(t *testing.T) {
	long := func(n int) string { return strings.Repeat("é", n) }
	if _, err := remote.ParseInventory("web[1-3] "+long(128)+"="+long(256), 0); err != nil {
		t.Error(err)
	}
	for _, tag := range []string{long(129) + "=x", "x=" + long(257), "x=" + strings.Repeat("a", 1<<20)} {
		if list, err := remote.ParseInventory("web[1-20000] "+tag, 0); err == nil || len(err.Error()) > 300 {
			t.Errorf("%d hosts have a tag of %d bytes: %v", len(list), len(tag), err)
		}
	}
}
