package sensitive

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Sizes of the kernel's structures: fanotify_event_metadata, the header of an
// information record, a filesystem id, and a file handle up to its bytes.
const (
	metadataSize   = 24
	infoHeaderSize = 4
	fsidSize       = 8
	handleSize     = 8
)

const (
	metadataVersion = 3
	infoNamed       = 2 // FAN_EVENT_INFO_TYPE_DFID_NAME
	queueOverflow   = 0x4000
)

// notice is one fanotify event.
type notice struct {
	mask     uint64
	fd       int32 // of the file that was opened, -1 if none
	pid      int32
	overflow bool

	// Of a name that was created or moved, the filesystem, the folder's handle
	// and the name.
	fsid       [fsidSize]byte
	handleType int32
	handle     []byte
	name       string
}

// parse calls f for every event in what was read from a group. The handle is
// valid only during the call. An error means that the rest could not be read;
// file descriptors in it are lost to us, which a kernel that keeps its own
// format never causes.
func parse(b []byte, f func(notice)) error {
	le := binary.LittleEndian
	for len(b) > 0 {
		if len(b) < metadataSize {
			return fmt.Errorf("fanotify event of %d bytes", len(b))
		}
		size, head := int(le.Uint32(b)), int(le.Uint16(b[6:]))
		if b[4] != metadataVersion {
			return fmt.Errorf("fanotify event of version %d, want %d", b[4], metadataVersion)
		}
		if size < metadataSize || size > len(b) || head < metadataSize || head > size {
			return fmt.Errorf("fanotify event claims %d and %d of %d bytes", size, head, len(b))
		}
		n := notice{mask: le.Uint64(b[8:]), fd: int32(le.Uint32(b[16:])), pid: int32(le.Uint32(b[20:]))}
		n.overflow = n.mask&queueOverflow != 0
		if err := n.information(b[head:size]); err != nil {
			return err
		}
		f(n)
		b = b[size:]
	}
	return nil
}

// information reads the records that follow the metadata.
func (n *notice) information(b []byte) error {
	le := binary.LittleEndian
	for len(b) > 0 {
		if len(b) < infoHeaderSize {
			return fmt.Errorf("fanotify information of %d bytes", len(b))
		}
		size := int(le.Uint16(b[2:]))
		if size < infoHeaderSize || size > len(b) {
			return fmt.Errorf("fanotify information claims %d of %d bytes", size, len(b))
		}
		if b[0] == infoNamed {
			if err := n.named(b[infoHeaderSize:size]); err != nil {
				return err
			}
		}
		b = b[size:]
	}
	return nil
}

func (n *notice) named(b []byte) error {
	le := binary.LittleEndian
	if len(b) < fsidSize+handleSize {
		return fmt.Errorf("fanotify name of %d bytes", len(b))
	}
	copy(n.fsid[:], b)
	b = b[fsidSize:]
	size := uint64(le.Uint32(b))
	n.handleType = int32(le.Uint32(b[4:]))
	b = b[handleSize:]
	if size > uint64(len(b)) {
		return fmt.Errorf("fanotify handle claims %d of %d bytes", size, len(b))
	}
	n.handle = b[:size]
	name, _, _ := bytes.Cut(b[size:], []byte{0})
	n.name = string(name)
	return nil
}
