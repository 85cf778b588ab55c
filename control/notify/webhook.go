package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// The headers of a webhook.
const (
	SignatureHeader = "Komainu-Signature" // t=<Unix seconds>,v1=<hex HMAC-SHA256 of "t.body">
	DeliveryHeader  = "Komainu-Delivery"  // the id of the message
	EventHeader     = "Komainu-Event"
)

// Sign returns the signature of a body at a time. The time is part of what is
// signed, so that a receiver can refuse what was recorded and sent again.
func Sign(secret string, at time.Time, body []byte) string {
	t := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(t + "."))
	mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// post sends a body to a webhook. Redirects are not followed: they would lead
// a message to where nobody has allowed it to go.
func (n *Notifier) post(ctx context.Context, t *Target, secret string, m *Message, body []byte) (string, error) {
	config, err := t.tls()
	if err != nil {
		return "", err
	}
	config.ServerName = "" // that of the URL
	// A connection for each message: they are rare, and nothing of one target
	// stays open.
	transport := &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: config, DisableKeepAlives: true, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, t.URL, bytes.NewReader(body))
	if err != nil {
		return "", plain(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "Komainu/"+n.cfg.Version)
	r.Header.Set(DeliveryHeader, m.ID)
	r.Header.Set(EventHeader, m.Event)
	r.Header.Set(SignatureHeader, Sign(secret, n.cfg.Now(), body))
	answer, err := client.Do(r)
	if err != nil {
		return "", plain(err)
	}
	defer answer.Body.Close()
	// What it says is not shown: it may be anything that this host can reach.
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10))
	switch s := answer.StatusCode; {
	case s >= 200 && s < 300:
		return fmt.Sprintf("HTTP status %d", s), nil
	case s >= 300 && s < 400:
		return "", refusal{fmt.Errorf("the receiver answered with a redirect (HTTP status %d), which is not followed; enter the address that it leads to", s)}
	case s == http.StatusRequestTimeout || s == http.StatusTooManyRequests || s == http.StatusTooEarly || s >= 500:
		return "", fmt.Errorf("the receiver answered with HTTP status %d", s)
	default:
		return "", refusal{fmt.Errorf("the receiver refused it with HTTP status %d", s)}
	}
}
