package container

import (
	"context"
	"log/slog"
	"sync"

	"github.com/ctctl/ctctl/netns"
)

// announcer tells the networks three times, within two seconds, where a
// container's addresses are now. A newer announcement replaces one under way.
type announcer struct {
	stop func()
	done sync.WaitGroup
}

func (a *announcer) announce(log *slog.Logger, pid int, c netns.Config) {
	a.end()
	ctx, cancel := context.WithCancel(context.Background())
	a.stop = cancel
	a.done.Go(func() {
		err := netns.Announce(ctx, pid, c)
		if err == nil {
			err = netns.AnnounceAgain(ctx, pid, c)
		}
		if err != nil && ctx.Err() == nil { // peers find out by themselves, later
			log.Warn("announce the addresses", "err", err)
		}
	})
}

func (a *announcer) end() {
	if a.stop != nil {
		a.stop()
		a.done.Wait()
	}
}
