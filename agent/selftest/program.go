package selftest

import "encoding/binary"

// programs makes a program that does nothing but end well, by architecture:
// an ELF file of one segment. It needs no library and no interpreter, so that
// a host without either runs it too.
var programs = map[string]func() []byte{
	"amd64": func() []byte {
		return elf(62, []byte{
			0xb8, 60, 0, 0, 0, // mov eax, 60 (exit)
			0x31, 0xff, // xor edi, edi
			0x0f, 0x05, // syscall
		})
	},
	"arm64": func() []byte {
		return elf(183, []byte{
			0xa8, 0x0b, 0x80, 0xd2, // mov x8, #93 (exit)
			0x00, 0x00, 0x80, 0xd2, // mov x0, #0
			0x01, 0x00, 0x00, 0xd4, // svc #0
		})
	},
}

// elf wraps code into an executable of a machine.
func elf(machine uint16, code []byte) []byte {
	const base, header, segment = 0x400000, 64, 56
	size := uint64(header + segment + len(code))
	le := binary.LittleEndian
	b := []byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	b = le.AppendUint16(b, 2) // executable
	b = le.AppendUint16(b, machine)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, base+header+segment) // entry
	b = le.AppendUint64(b, header)              // program headers
	b = le.AppendUint64(b, 0)                   // no sections
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{header, segment, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(b, 1) // load
	b = le.AppendUint32(b, 5) // read and execute
	for _, v := range []uint64{0, base, base, size, size, 0x1000} {
		b = le.AppendUint64(b, v)
	}
	return append(b, code...)
}
