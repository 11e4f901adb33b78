package checkpoint

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/ctctl/ctctl/internal/criu"
)

const (
	// dumpTries bounds how often one snapshot stops the container: on a busy one
	// every fourth dump meets something that is under way.
	dumpTries  = 6
	retryPause = 100 * time.Millisecond
)

// tryAgain dumps, again when what CRIU stumbled over passes by itself. The manifest
// says how often and why.
func (c *cut) tryAgain(ctx context.Context, mf *Manifest) error {
	for mf.Tries = 1; ; mf.Tries++ {
		c.skipInFlight = mf.Tries > dumpTries/2
		err := c.once(ctx, mf)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return err
		}
		reason, passes := transient(err)
		if !passes || mf.Tries == dumpTries || ctx.Err() != nil {
			c.keepLog(err)
			return &DumpError{Tries: mf.Tries, Err: err}
		}
		mf.Retried = append(mf.Retried, reason)
		c.m.log().Info("dump again", "container", c.l.Config.Name, "try", mf.Tries, "reason", reason, "err", err)
		select {
		case <-ctx.Done(): // the container goes on, nothing is left
			return ctx.Err()
		case <-time.After(retryPause):
		}
	}
}

// keepLog moves CRIU's log to where it outlives the attempt: containers/NAME/dump.log.
func (c *cut) keepLog(err error) {
	var ce *criu.Error
	if !errors.As(err, &ce) || ce.Log == "" {
		return
	}
	kept := filepath.Join(filepath.Dir(c.m.Containers.LogFile(c.l.Config.Name)), "dump.log")
	text, err := os.ReadFile(ce.Log)
	if err == nil {
		err = os.WriteFile(kept, text, 0o600)
	}
	if err != nil {
		c.m.log().Warn("keep the log", "container", c.l.Config.Name, "err", err)
		return
	}
	ce.Log = kept
}

// transient says in a few words what a dump failed of, and whether it may be gone
// in a moment. After a deadline the container stood still long enough.
func transient(err error) (reason string, passes bool) {
	var ce *criu.Error
	if errors.Is(err, criu.ErrDeadline) || !errors.As(err, &ce) {
		return "", false
	}
	return ce.Reason(), ce.Transient()
}
