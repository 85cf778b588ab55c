// Package downloads holds the files that people try the product with: the
// EICAR test file, plain and in archives, and the Linux EDR test.
//
// The EICAR test file is harmless, and every antivirus stops it. It is put
// together when it is asked for, so that neither the source nor the binary of
// the control plane is stopped by one.
package downloads

import (
	"archive/zip"
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"komainu/content/edrtest"
)

// File is something to download.
type File struct {
	Name  string
	Media string
	About string
	build func() ([]byte, error)
}

// Files lists what there is.
func Files() []File {
	files := []File{
		{"eicar.com", "application/octet-stream", "The EICAR test file", plain(eicar)},
		{"eicar.com.txt", "text/plain; charset=utf-8", "The EICAR test file as text", plain(eicar)},
		{"eicar_com.zip", "application/zip", "The EICAR test file in an archive", once(func() ([]byte, error) { return archive("eicar.com", eicar()) })},
		{"eicarcom2.zip", "application/zip", "The EICAR test file in an archive in an archive", once(nested)},
		{"edr_test_linux.sh", "text/x-shellscript; charset=utf-8", "The Linux EDR test", plain(edrtest.Script)},
	}
	for _, name := range edrtest.Names() {
		files = append(files, File{name, "application/zip", "The Linux EDR test in an archive", once(func() ([]byte, error) {
			var b bytes.Buffer
			err := edrtest.Zip(&b, name)
			return b.Bytes(), err
		})})
	}
	return files
}

func plain(f func() []byte) func() ([]byte, error) {
	return func() ([]byte, error) { return f(), nil }
}

func once(f func() ([]byte, error)) func() ([]byte, error) { return sync.OnceValues(f) }

// ServeHTTP answers a download.
func (f File) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	content, err := f.build()
	if err != nil {
		panic(err) // writing an archive into memory does not fail
	}
	h := w.Header()
	h.Set("Content-Type", f.Media)
	h.Set("Content-Length", strconv.Itoa(len(content)))
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", f.Name))
	h.Set("Cache-Control", "no-store")
	_, _ = w.Write(content) // the client is gone, nothing to tell
}

// eicar returns the test file. Its parts are turned by one, so that no part
// of it stands anywhere.
func eicar() []byte {
	halves := [...]string{"Y6P\"Q&ABQ\\5]Q[Y65)Q_*8DD*8~%FJDBS.", "TUBOEBSE.BOUJWJSVT.UFTU.GJMF\"%I,I+"}
	var b []byte
	for _, h := range halves {
		for i := range len(h) {
			b = append(b, h[i]-1)
		}
	}
	return b
}

func archive(name string, content []byte) ([]byte, error) {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate, Modified: time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)})
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = z.Close()
	}
	return b.Bytes(), err
}

func nested() ([]byte, error) {
	inner, err := archive("eicar.com", eicar())
	if err != nil {
		return nil, err
	}
	return archive("eicar_com.zip", inner)
}
