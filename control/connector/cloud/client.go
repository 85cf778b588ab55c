package cloud

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

// Bounds of a conversation with a cloud: a page of an inventory is a few
// megabytes, and what answers is not trusted to be the cloud.
const (
	answerLimit = 64 << 20
	askLimit    = 90 * time.Second
)

// HTTP returns an HTTP client for the APIs of clouds. It follows no
// redirects (none of these APIs sends any), and an answer ends after 64 MB.
func (o Options) HTTP() *http.Client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DialContext = (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	t.TLSHandshakeTimeout, t.ResponseHeaderTimeout, t.MaxResponseHeaderBytes = 10*time.Second, 60*time.Second, 256<<10
	var way http.RoundTripper = t
	if o.Transport != nil {
		way = o.Transport
	}
	return &http.Client{
		Transport: bounded{way}, Timeout: askLimit,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := b.next.RoundTrip(r)
	if err == nil {
		answer.Body = &limited{answer.Body, answerLimit}
	}
	return answer, err
}

// limited fails where io.LimitReader would cut off quietly.
type limited struct {
	io.ReadCloser
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, fmt.Errorf("the answer is larger than %d MB", answerLimit>>20)
	}
	return n, err
}
