package agent

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"komainu/agent/link"
	"komainu/agent/localapi"
	"komainu/fault"
	"komainu/health"
)

// Files by which a host is told to enrol by itself: deploy/script/host.sh and
// cloud-init leave them. Tests move them.
var (
	joinTokenFile = "/etc/komainu/join-token"
	imageFile     = "/etc/komainu/image"
)

// Pauses between attempts to enrol. Who was refused comes back rarely: the
// token has to be replaced, which this sees at the next look.
const (
	joinPause   = 2 * time.Second
	joinLongest = 5 * time.Minute
	joinLook    = time.Minute
)

// joining is how far this host is with enrolling by itself, for health.
type joining struct {
	Image bool           // this is a golden image: its copies enrol
	Error error          // of the last attempt
	Was   *link.Identity // of the machine that this one is a copy of, until it has its own
}

// runJoin enrols by itself with the token that was left for it. It ends when
// the device is enrolled, whoever did that.
func (w *worker) runJoin(ctx context.Context) error {
	pause := joinPause
	for ctx.Err() == nil && w.device.Load() == nil {
		wait := joinLook
		token, err := w.joinToken()
		if err == nil && token != "" {
			if err = w.join(ctx, token); err == nil {
				break
			}
			wait = pause/2 + rand.N(pause)
			pause = min(2*pause, joinLongest)
		}
		w.joined(func(j *joining) { j.Error = err })
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	<-ctx.Done()
	return nil
}

// joinToken returns the token that was left here, "" when there is none or it
// is not for this machine.
func (w *worker) joinToken() (string, error) {
	text, err := os.ReadFile(joinTokenFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	image, err := isImage(imageFile, thisMachine())
	w.joined(func(j *joining) { j.Image = image })
	if err != nil || image {
		return "", err
	}
	return strings.TrimSpace(string(text)), nil
}

func (w *worker) join(ctx context.Context, token string) error {
	result, err := (&local{w: w}).Enrol(ctx, localapi.EnrolRequest{Token: token})
	if fault.Is(err, fault.Conflict) && w.device.Load() != nil {
		return nil // somebody was faster
	}
	if err != nil {
		w.log.Warn("this host could not enrol by itself; it is tried again", "error", err)
		return err
	}
	w.log.Info("this host has enrolled by itself", "device", result.Device, "environment", result.Environment)
	return nil
}

// left removes what made this host enrol by itself: the token is a secret, and
// an image that is made of this machine is told as such by its preparation.
func (w *worker) left() {
	for _, file := range []string{joinTokenFile, imageFile} {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			w.log.Warn("the join token that was used stays on disk; remove it", "file", file, "error", err)
		}
	}
	w.joined(func(j *joining) { *j = joining{} })
}

func (w *worker) joined(edit func(*joining)) {
	w.joinLock.Lock()
	before := w.joinState
	edit(&w.joinState)
	changed := before != w.joinState
	w.joinLock.Unlock()
	if changed && w.health != nil {
		w.health.changed()
	}
}

// joinCondition says more of a device that is not enrolled, when more is known.
func (w *worker) joinCondition(c health.Condition) health.Condition {
	if c.Code != health.NotEnrolled {
		return c
	}
	w.joinLock.Lock()
	j := w.joinState
	w.joinLock.Unlock()
	switch {
	case j.Image:
		c.Code, c.Reason = health.GoldenImage, "this is a golden image: its copies enrol by themselves when they start, it does not"
		c.Remedy = "to have this machine itself protected, remove " + imageFile
	case j.Error != nil:
		c.State, c.Code, c.Detail = health.Degraded, health.JoinFailed, j.Error.Error()
		c.Reason = "this host cannot enrol by itself: " + j.Error.Error()
		c.Remedy = "it is tried again; if the token is refused, put a new one into " + joinTokenFile + " or run komainu enrol TOKEN"
	case j.Was != nil:
		c.State, c.Code, c.Detail = health.Failed, health.CopiedMachine, string(j.Was.Device)
		c.Reason = "this machine is a copy of one that is enrolled as device " + string(j.Was.Device) + ", whose identity it has put away; it is protected by the policy that it came with, and reports to nobody"
		c.Remedy = "enrol it with a join token: komainu enrol TOKEN"
	}
	return c
}
