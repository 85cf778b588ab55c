package rules

import (
	"io/fs"
	"syscall"

	"komainu/event"
)

func describe(name string, info fs.FileInfo) event.File {
	f := event.File{Path: name, Size: info.Size(), Mode: uint32(info.Mode().Perm()), Owner: event.User{UID: ^uint32(0)}}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		f.Owner.UID, f.Mode = st.Uid, st.Mode
	}
	return f
}
