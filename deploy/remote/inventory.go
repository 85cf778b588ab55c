package remote

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"komainu/fault"
)

// Entry is a host of an inventory.
type Entry struct {
	Name string // as it is written, without user and port
	Port int    // 0 when the line names none
	User string // "" when the line names none
	Tags map[string]string
}

// Address returns host:port.
func (e Entry) Address(port int) string {
	return net.JoinHostPort(e.Name, strconv.Itoa(cmp.Or(e.Port, port, 22)))
}

// String is the host as a line names it, without its tags.
func (e Entry) String() string {
	text := e.Name
	if e.Port != 0 {
		text = e.Address(0)
	}
	if e.User != "" {
		text = e.User + "@" + text
	}
	return text
}

// Key is the address in the one form that Place gives it.
func (e Entry) Key(port int) string {
	_, key := Place(e.Address(port))
	return key
}

// Place returns the host of an address and the whole of it, both the same for
// all ways of writing them: names are in lower case and have no dot at their
// end, numbers are in their shortest form. What is not host:port stays as it
// is.
func Place(address string) (host, key string) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return address, address
	}
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.Unmap().String()
	}
	host = strings.TrimSuffix(strings.ToLower(host), ".")
	return host, net.JoinHostPort(host, port)
}

// Bounds of an inventory.
const (
	MaxHosts     = 20_000
	maxInventory = 4 << 20
	maxRanges    = 8   // in one host
	maxName      = 253 // of DNS
	maxDigits    = 18  // of a number in a range
	maxTags      = 32  // in one line
	maxTagName   = 128 // characters, as of the tags that people give
	maxTagValue  = 256
)

// ParseInventory reads a list of hosts, one in a line:
//
//	web01.example.net
//	admin@db[1-3].example.net:2222  role=db site=[tokyo]
//	10.0.0.[5-9], 2001:db8::5, [2001:db8::6]:22
//
// A range in brackets stands for each of its numbers, with leading zeros as
// the first one has them; [a,b] for each of its words. Everything after # is a
// comment. No host is there twice: port is that of the lines which name none,
// 0 for 22. Errors name the line; they are fault.Invalid.
func ParseInventory(text string, port int) ([]Entry, error) {
	if len(text) > maxInventory {
		return nil, fault.New(fault.Invalid, "the list of hosts is larger than %d MB", maxInventory>>20)
	}
	var all []Entry
	seen := map[string]int{}
	number := 0
	for line := range strings.Lines(text) {
		number++
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) == 0 {
			continue
		}
		entries, err := parseLine(fields, MaxHosts-len(all))
		if err != nil {
			return nil, fault.New(fault.Invalid, "line %d: %w", number, err)
		}
		for _, e := range entries {
			key := e.Key(port)
			if at := seen[key]; at != 0 {
				return nil, fault.New(fault.Invalid, "line %d: %s is in line %d already", number, e.Name, at)
			}
			seen[key] = number
			all = append(all, e)
		}
	}
	return all, nil
}

// parseLine takes hosts, separated by commas outside of brackets, and the tags
// after them, which all of them get.
func parseLine(fields []string, room int) ([]Entry, error) {
	tags := map[string]string{}
	var hosts []string
	for _, f := range fields {
		if key, value, ok := strings.Cut(f, "="); ok {
			if key == "" || len(tags) == maxTags {
				return nil, fmt.Errorf("%q: want NAME=VALUE, %d at most", short(f), maxTags)
			}
			// Every host of the line gets it.
			if utf8.RuneCountInString(key) > maxTagName || utf8.RuneCountInString(value) > maxTagValue {
				return nil, fmt.Errorf("%q: the name of a tag has at most %d characters, its value %d", short(f), maxTagName, maxTagValue)
			}
			if _, twice := tags[key]; twice {
				return nil, fmt.Errorf("the tag %q is there twice", short(key))
			}
			tags[key] = value
			continue
		}
		if len(tags) > 0 {
			return nil, fmt.Errorf("%q stands after the tags; hosts come first", short(f))
		}
		hosts = append(hosts, splitOutside(f)...)
	}
	if len(hosts) == 0 {
		return nil, fmt.Errorf("there is no host in it")
	}
	var entries []Entry
	for _, h := range hosts {
		// The last @ counts: users of a domain have one in their name.
		at := strings.LastIndexByte(h, '@')
		user, rest := h[:max(at, 0)], h[at+1:]
		if at >= 0 && (user == "" || len(user) > maxName || strings.ContainsFunc(user, notInUser)) {
			return nil, fmt.Errorf("%q: the user is missing before @, or is none", short(h))
		}
		name, port, err := splitPort(rest)
		if err != nil {
			return nil, err
		}
		if err := checkPattern(name); err != nil {
			return nil, err
		}
		names, err := expand(name, room-len(entries))
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if err := checkHost(n); err != nil {
				return nil, err
			}
			entries = append(entries, Entry{Name: n, Port: port, User: user, Tags: maps.Clone(tags)})
		}
	}
	return entries, nil
}

// splitOutside splits at commas that are not in brackets.
func splitOutside(s string) []string {
	var parts []string
	depth, start := 0, 0
	for i, c := range s {
		switch {
		case c == '[':
			depth++
		case c == ']':
			depth--
		case c == ',' && depth == 0:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return slices.DeleteFunc(append(parts, s[start:]), func(p string) bool { return p == "" })
}

// splitPort takes the port off. An address of IPv6 stands in brackets when it
// has one.
func splitPort(s string) (host string, port int, err error) {
	if inner, after, ok := strings.Cut(strings.TrimPrefix(s, "["), "]"); ok && strings.HasPrefix(s, "[") && strings.Count(inner, ":") > 1 {
		if after == "" {
			return inner, 0, nil
		}
		number, ok := strings.CutPrefix(after, ":")
		if !ok {
			return "", 0, fmt.Errorf("%q: after an address in brackets comes :PORT", short(s))
		}
		port, err = parsePort(number)
		return inner, port, err
	}
	if strings.Count(s, ":") != 1 {
		return s, 0, nil // a name, or an address of IPv6 without a port
	}
	host, number, _ := strings.Cut(s, ":")
	port, err = parsePort(number)
	return host, port, err
}

func parsePort(s string) (int, error) {
	port, err := strconv.Atoi(s)
	if err != nil || port < 1 || port > 65535 {
		return 0, fmt.Errorf("port %q: want a number from 1 to 65535", short(s))
	}
	return port, nil
}

// checkPattern refuses what would take much memory to find out about.
func checkPattern(pattern string) error {
	ranges, outside, inside := 0, 0, false
	for _, c := range []byte(pattern) {
		switch {
		case c == '[':
			ranges, inside = ranges+1, true
		case c == ']':
			inside = false
		case !inside:
			outside++
		}
	}
	if ranges > maxRanges || outside > maxName {
		return fmt.Errorf("%q: a name has at most %d ranges and %d characters", short(pattern), maxRanges, maxName)
	}
	return nil
}

// short is what of an input stands in an error.
func short(text string) string {
	if len(text) > 80 {
		return strings.ToValidUTF8(text[:80], "") + "…"
	}
	return text
}

// expand replaces the first range of a name, and then those of the rest.
func expand(name string, room int) ([]string, error) {
	before, after, ok := strings.Cut(name, "[")
	if !ok {
		if strings.ContainsRune(name, ']') {
			return nil, fmt.Errorf("%q: ] without [", short(name))
		}
		if room < 1 {
			return nil, fmt.Errorf("there are more than %d hosts", MaxHosts)
		}
		return []string{name}, nil
	}
	inner, after, ok := strings.Cut(after, "]")
	if !ok {
		return nil, fmt.Errorf("%q: [ without ]", short(name))
	}
	values, err := rangeOf(inner, room)
	if err != nil {
		return nil, err
	}
	rest, err := expand(after, room)
	if err != nil {
		return nil, err
	}
	if len(values)*len(rest) > room {
		return nil, fmt.Errorf("%q stands for %d hosts; there are at most %d", short(name), len(values)*len(rest), MaxHosts)
	}
	var names []string
	for _, v := range values {
		for _, r := range rest {
			names = append(names, before+v+r)
		}
	}
	return names, nil
}

// rangeOf returns what stands in brackets: words, and ranges of numbers.
func rangeOf(inner string, room int) ([]string, error) {
	var values []string
	for part := range strings.SplitSeq(inner, ",") {
		first, last, dash := strings.Cut(part, "-")
		isRange := dash && isNumber(first) || len(first) == 1 && len(last) == 1 // a-c is none, and no word that anybody means
		from, err := strconv.Atoi(first)
		to, err2 := strconv.Atoi(last)
		switch {
		case part == "" || len(part) > maxName:
			return nil, fmt.Errorf("[%s]: something is missing or too long", short(inner))
		case !isRange:
			from, to = 0, 0 // one word
		case err != nil || err2 != nil || !isNumber(last) || len(first) > maxDigits:
			return nil, fmt.Errorf("[%s]: want a range of numbers like 01-20, or words with commas between them", short(part))
		case from > to:
			return nil, fmt.Errorf("[%s]: the range goes backwards", part)
		}
		if to-from >= room-len(values) {
			return nil, fmt.Errorf("[%s] stands for too many hosts; there are at most %d", short(inner), MaxHosts)
		}
		if !isRange {
			values = append(values, part)
			continue
		}
		width := 0
		if first[0] == '0' {
			width = len(first)
		}
		for n := from; n <= to; n++ {
			values = append(values, fmt.Sprintf("%0*d", width, n))
		}
	}
	return values, nil
}

// isNumber reports whether a text is of digits alone.
func isNumber(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return r < '0' || r > '9' })
}

// checkHost takes names and addresses alone.
func checkHost(name string) error {
	address, zone, zoned := strings.Cut(name, "%")
	if _, err := netip.ParseAddr(address); err == nil && (!zoned || zone != "" && !strings.ContainsFunc(zone, notInName)) {
		return nil
	}
	if name == "" || len(name) > maxName || strings.ContainsFunc(name, notInName) || name[0] == '-' || name[0] == '.' || strings.Contains(name, "..") {
		return fmt.Errorf("%q is no name of a host and no address", short(name))
	}
	return nil
}

func notInName(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '.' && r != '_'
}

func notInUser(r rune) bool { return notInName(r) && r != '@' && r != '\\' && r != '+' && r != '$' }
