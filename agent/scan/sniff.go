package scan

import (
	"bytes"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// kind is a file format as far as the engine cares.
type kind struct {
	media  string
	open   func(*job, source, int) error // nil: not an archive
	random bool                          // open needs source.at
}

// source is an archive: a stream, or random access with its size.
type source struct {
	stream io.Reader
	at     io.ReaderAt
	size   int64
}

// kinds are the formats that open. It is filled in init because the openers
// call sniff for what they find.
var kinds map[string]kind

func init() {
	kinds = map[string]kind{
		"zip":  {"application/zip", openZip, true},
		"7z":   {"application/x-7z-compressed", openSevenZip, true},
		"rar":  {"application/vnd.rar", openRar, false},
		"gzip": {"application/gzip", openGzip, false},
		"bz2":  {"application/x-bzip2", openBzip2, false},
		"xz":   {"application/x-xz", openXz, false},
		"zstd": {"application/zstd", openZstd, false},
		"tar":  {"application/x-tar", openTar, false},
	}
}

// magics are told by the first bytes.
var magics = []struct{ magic, kind, media string }{
	{"PK\x03\x04", "zip", ""},
	{"PK\x05\x06", "zip", ""},
	{"7z\xbc\xaf\x27\x1c", "7z", ""},
	{"Rar!\x1a\x07\x00", "rar", ""},
	{"Rar!\x1a\x07\x01\x00", "rar", ""},
	{"\x1f\x8b\x08", "gzip", ""},
	{"\xfd7zXZ\x00", "xz", ""},
	{"\x28\xb5\x2f\xfd", "zstd", ""},
	{"\x7fELF", "", "application/x-elf"},
	{"MZ", "", "application/vnd.microsoft.portable-executable"},
	{"#!", "", "text/x-script"},
	{"%PDF-", "", "application/pdf"},
	{"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "", "application/x-ole-storage"},
	{"\xca\xfe\xba\xbe", "", "application/java-vm"},
	{"!<arch>\n", "", "application/x-archive"},
	{"\xed\xab\xee\xdb", "", "application/x-rpm"},
	{"\x89PNG\r\n\x1a\n", "", "image/png"},
	{"\xff\xd8\xff", "", "image/jpeg"},
	{"GIF8", "", "image/gif"},
}

// sniff tells the format by content; names lie.
func sniff(head []byte) kind {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.magic)) {
			if m.kind != "" {
				return kinds[m.kind]
			}
			return kind{media: m.media}
		}
	}
	switch {
	case len(head) == 0:
		return kind{media: "application/x-empty"}
	case len(head) > 10 && string(head[:3]) == "BZh" && head[3] >= '1' && head[3] <= '9' &&
		(string(head[4:10]) == "1AY&SY" || string(head[4:10]) == "\x17\x72\x45\x38\x50\x90"):
		return kinds["bz2"]
	case isSkippableZstd(head):
		return kinds["zstd"]
	case isTar(head):
		return kinds["tar"]
	case isText(head):
		return kind{media: "text/plain"}
	}
	return kind{media: "application/octet-stream"}
}

// isSkippableZstd knows the frames that may stand before the first real one.
func isSkippableZstd(head []byte) bool {
	return len(head) >= 8 && head[0]&0xf0 == 0x50 && string(head[1:4]) == "\x2a\x4d\x18"
}

// isTar checks the sum of the first header, which old archives without the
// word ustar carry too.
func isTar(head []byte) bool {
	if len(head) < 512 || head[0] == 0 {
		return false
	}
	want, err := strconv.ParseInt(strings.Trim(string(head[148:156]), " \x00"), 8, 32)
	if err != nil {
		return false
	}
	var unsigned, signed int64
	for i, b := range head[:512] {
		if i >= 148 && i < 156 {
			b = ' '
		}
		unsigned += int64(b)
		signed += int64(int8(b))
	}
	return want == unsigned || want == signed
}

func isText(head []byte) bool {
	if len(head) == peekSize { // the cut may go through a rune
		for range utf8.UTFMax - 1 {
			if r, n := utf8.DecodeLastRune(head); r == utf8.RuneError && n == 1 {
				head = head[:len(head)-1]
			}
		}
	}
	return utf8.Valid(head) && bytes.IndexFunc(head, func(r rune) bool {
		return r < ' ' && r != '\n' && r != '\r' && r != '\t' && r != '\f' && r != '\x1b' && r != '\x1a'
	}) < 0
}

// hasZipTail knows the end of an archive that has something else in front of
// it: a self-extracting program, a picture with a surprise.
func hasZipTail(at io.ReaderAt, size int64) bool {
	const end = 22 // the record without a comment
	var tail [end]byte
	if size < end {
		return false
	}
	n, _ := at.ReadAt(tail[:], size-end)
	return n == end && string(tail[:4]) == "PK\x05\x06"
}
