package scan_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
)

// The writers of formats that no library here writes: one stored member each.

// rarBlock is a block of RAR 4: CRC16, type, flags, size and the rest.
func rarBlock(typ byte, flags uint16, rest []byte) []byte {
	b := []byte{0, 0, typ}
	b = binary.LittleEndian.AppendUint16(b, flags)
	b = binary.LittleEndian.AppendUint16(b, uint16(7+len(rest)))
	b = append(b, rest...)
	binary.LittleEndian.PutUint16(b, uint16(crc32.ChecksumIEEE(b[2:])))
	return b
}

func rarWith(flags uint16, name string, content []byte) []byte {
	b := []byte("Rar!\x1a\x07\x00")
	b = append(b, rarBlock(0x73, 0, make([]byte, 6))...)
	var h []byte
	h = binary.LittleEndian.AppendUint32(h, uint32(len(content)))
	h = binary.LittleEndian.AppendUint32(h, uint32(len(content)))
	h = append(h, 3) // Unix
	h = binary.LittleEndian.AppendUint32(h, crc32.ChecksumIEEE(content))
	h = binary.LittleEndian.AppendUint32(h, 0x5a000000) // time
	h = append(h, 20, 0x30)                             // version 2.0, stored
	h = binary.LittleEndian.AppendUint16(h, uint16(len(name)))
	h = binary.LittleEndian.AppendUint32(h, 0o100644)
	h = append(h, name...)
	b = append(b, rarBlock(0x74, 0x8000|flags, h)...)
	b = append(b, content...)
	return append(b, rarBlock(0x7b, 0x4000, nil)...)
}

func rarOf(name string, content []byte) []byte { return rarWith(0, name, content) }

func encryptedRar() []byte { return rarWith(0x04, "e", make([]byte, 16)) }

// sevenZipOf writes the signature header, the content by the copy method, and
// the header at the end.
func sevenZipOf(name string, content []byte) []byte {
	var h bytes.Buffer
	h.Write([]byte{0x01, 0x04})                                 // header, main streams
	h.Write([]byte{0x06, 0x00, 0x01, 0x09, number(content), 0}) // pack info: at 0, one stream, its size
	h.Write([]byte{0x07, 0x0b, 0x01, 0x00})                     // unpack info: one folder
	h.Write([]byte{0x01, 0x01, 0x00})                           // one coder: copy
	h.Write([]byte{0x0c, number(content), 0x0a, 0x01})          // its unpacked size, CRC defined
	binary.Write(&h, binary.LittleEndian, crc32.ChecksumIEEE(content))
	h.Write([]byte{0x00, 0x08, 0x00, 0x00}) // end, substreams: none, end
	h.Write([]byte{0x05, 0x01, 0x11, byte(1 + 2*(len(name)+1)), 0x00})
	for _, r := range name + "\x00" {
		binary.Write(&h, binary.LittleEndian, uint16(r))
	}
	h.Write([]byte{0x00, 0x00})

	start := binary.LittleEndian.AppendUint64(nil, uint64(len(content)))
	start = binary.LittleEndian.AppendUint64(start, uint64(h.Len()))
	start = binary.LittleEndian.AppendUint32(start, crc32.ChecksumIEEE(h.Bytes()))
	b := []byte("7z\xbc\xaf\x27\x1c\x00\x04")
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(start))
	b = append(b, start...)
	b = append(b, content...)
	return append(b, h.Bytes()...)
}

// number is a 7z number below 128.
func number(content []byte) byte {
	if len(content) > 127 {
		panic("keep it short")
	}
	return byte(len(content))
}

// sevenZipBomb is an archive whose one member wants a dictionary of 4 GiB.
func sevenZipBomb() []byte {
	content := append([]byte{0}, make([]byte, 63)...) // what LZMA begins with
	var h bytes.Buffer
	h.Write([]byte{0x01, 0x04})
	h.Write([]byte{0x06, 0x00, 0x01, 0x09, number(content), 0})
	h.Write([]byte{0x07, 0x0b, 0x01, 0x00})
	h.Write([]byte{0x01, 0x23, 0x03, 0x01, 0x01, 0x05, 0x5d, 0xff, 0xff, 0xff, 0xff}) // one coder: LZMA with properties
	h.Write([]byte{0x0c, 0x60, 0x0a, 0x01})
	binary.Write(&h, binary.LittleEndian, uint32(0))
	h.Write([]byte{0x00, 0x08, 0x00, 0x00})
	h.Write([]byte{0x05, 0x01, 0x11, 5, 0x00, 'b', 0, 0, 0})
	h.Write([]byte{0x00, 0x00})

	start := binary.LittleEndian.AppendUint64(nil, uint64(len(content)))
	start = binary.LittleEndian.AppendUint64(start, uint64(h.Len()))
	start = binary.LittleEndian.AppendUint32(start, crc32.ChecksumIEEE(h.Bytes()))
	b := []byte("7z\xbc\xaf\x27\x1c\x00\x04")
	b = binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(start))
	b = append(b, start...)
	b = append(b, content...)
	return append(b, h.Bytes()...)
}
