package remote_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"komainu/deploy"
	"komainu/deploy/remote"
)

// pins takes the first key that it sees at an address, and no other after it.
type pins struct {
	mu   sync.Mutex
	keys map[string]ssh.PublicKey
}

func (p *pins) Check(address string, key ssh.PublicKey) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.keys == nil {
		p.keys = map[string]ssh.PublicKey{}
	}
	known := p.keys[address]
	if known == nil {
		p.keys[address] = key
		return nil
	}
	if !bytes.Equal(known.Marshal(), key.Marshal()) {
		return deploy.Failf(deploy.HostKeyChanged, "%s, not %s", ssh.FingerprintSHA256(key), ssh.FingerprintSHA256(known))
	}
	return nil
}

func (p *pins) Algorithms(string) []string { return nil }

func newPrivate(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return private
}

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	key, err := ssh.NewSignerFromSigner(newPrivate(t))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func auth(keys ...ssh.Signer) []ssh.AuthMethod { return []ssh.AuthMethod{ssh.PublicKeys(keys...)} }

func dial(t *testing.T, c remote.Config) *remote.Host {
	t.Helper()
	h, err := remote.Dial(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

// wantReason checks that an error is the failure for a reason, with words in
// its detail.
func wantReason(t *testing.T, err error, id deploy.ReasonID, words ...string) {
	t.Helper()
	f, ok := errors.AsType[*deploy.Failure](err)
	if !ok {
		t.Errorf("%v is no failure; want %s", err, id)
		return
	}
	if f.Reason.ID != id {
		t.Errorf("reason %s (%s), want %s", f.Reason.ID, f.Reason.Detail, id)
	}
	for _, w := range words {
		if !strings.Contains(f.Reason.Detail, w) {
			t.Errorf("%s: %q does not say %q", id, f.Reason.Detail, w)
		}
	}
	if len(f.Reason.Detail) > 1000 || strings.ContainsAny(f.Reason.Detail, "\x00\x1b\n") {
		t.Errorf("%s: %q is not fit to be shown", id, f.Reason.Detail)
	}
}

// noLeaks checks at the end of a test that no goroutine of ours or of the
// library is left.
func noLeaks(t *testing.T) {
	t.Cleanup(func() {
		deadline := time.After(20 * time.Second)
		for {
			stacks := make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			left := ""
			for stack := range strings.SplitSeq(string(stacks), "\n\n") {
				if (strings.Contains(stack, "x/crypto/ssh.") || strings.Contains(stack, "komainu/deploy/remote.")) && !strings.Contains(stack, "noLeaks") {
					left = stack
				}
			}
			if left == "" {
				return
			}
			select {
			case <-deadline:
				t.Errorf("a goroutine is left:\n%s", left)
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
}
