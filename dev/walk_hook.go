package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"komainu/dev/browser"
)

// hookKey signs what the webhook is told.
const hookKey = "a key for the walk-through"

// hook is the other end of a webhook: it keeps what it is told, and refuses
// what is not signed as docs/notifications.md says.
type hook struct {
	server *http.Server
	url    string

	mu     sync.Mutex
	titles []string
	wrong  error
}

func newHook() (*hook, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	k := &hook{url: fmt.Sprintf("http://%s/hook", l.Addr())}
	k.server = &http.Server{Handler: k, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = k.server.Serve(l) }() // ends with Close
	return k, nil
}

// ServeHTTP takes one message.
func (k *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	var message struct{ Event, Title string }
	if err == nil {
		err = signed(r.Header.Get("Komainu-Signature"), body)
	}
	if err == nil {
		err = json.Unmarshal(body, &message)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.wrong = err
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	k.titles = append(k.titles, message.Event+": "+message.Title)
}

// signed checks a signature: t=SECONDS,v1=HMAC of "SECONDS.body".
func signed(header string, body []byte) error {
	stamp, sum, _ := strings.Cut(strings.TrimPrefix(header, "t="), ",v1=")
	mac := hmac.New(sha256.New, []byte(hookKey))
	fmt.Fprintf(mac, "%s.%s", stamp, body)
	if want := hex.EncodeToString(mac.Sum(nil)); !hmac.Equal([]byte(sum), []byte(want)) {
		return fmt.Errorf("the signature %q is not that of the message", header)
	}
	return nil
}

func (k *hook) told(text string) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, title := range k.titles {
		if strings.Contains(title, text) {
			return true, nil
		}
	}
	return false, k.wrong
}

// webhook makes a notification in the portal and tests it from there.
func (w *walk) webhook(context.Context) error {
	var err error
	if w.hook, err = newHook(); err != nil {
		return err
	}
	return all(
		func() error { return w.page.Click(browser.ID("nav-notifications")) },
		func() error { return w.page.Click(browser.ID("notification-create")) },
		func() error { return w.page.Fill(browser.ID("notification-name"), "On-call") },
		func() error { return w.page.Fill(browser.ID("notification-url"), w.hook.url) },
		func() error { return w.page.Fill(browser.ID("notification-secret"), hookKey) },
		func() error { return w.page.Click(browser.ID("notification-save")) },
		func() error { return w.page.Click(browser.ID("notification-test")) },
		func() error { return w.reads("notification-state", "Delivered") },
	)
}

// webhookTold waits until the webhook was told of what happened meanwhile.
func (w *walk) webhookTold(ctx context.Context) error {
	for _, text := range []string{"EICAR_Test_File", edrTitle} {
		err := waitFor(ctx, pageLimit, "the webhook is told of "+text, func() (bool, error) { return w.hook.told(text) })
		if err != nil {
			return err
		}
	}
	return nil
}
