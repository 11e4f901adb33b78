package container

import (
	"context"
	"time"
)

// watchInterval is how often a supervisor looks after its container.
const watchInterval = time.Second

// watch lets a container go on that a killed operation left frozen, without
// waiting for somebody to come by, replaces a console's holder that was killed,
// takes back what was changed for a while, and announces addresses. It returns
// when stop is closed.
func (s *supervisor) watch(pid int, stop <-chan struct{}) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	changes := reverter{network: s.req.Net}
	var voice announcer
	defer voice.end()
	voice.announce(s.log, pid, s.req.Net)
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		if err := s.keepHeld(); err != nil {
			s.log.Error("hold the console again", "err", err)
		}
		if s.unplugged {
			s.plugAgain()
			changes.moved = !s.unplugged
		}
		if s.due(&changes) {
			s.revert(&changes)
		}
		if changes.moved {
			voice.announce(s.log, pid, changes.network)
			changes.moved = false
		}
		frozen, err := s.group.Frozen()
		if err != nil || !frozen {
			continue // an error shows at the next operation
		}
		if err := s.unfreeze(); err != nil {
			s.log.Error("let the container go on", "err", err)
		}
	}
}

// unfreeze settles the kernel's side of an operation that nobody holds any more.
// Its files are settled by the next operation. A container without an intent is
// paused because somebody wants it so.
func (s *supervisor) unfreeze() error {
	// Looked at without the lock first, so that a paused container's commands do not
	// find it taken every second.
	if _, st, err := s.m.read(s.req.Name); err != nil || st.Intent == nil {
		return err
	}
	return s.underLock("supervisor: let go", func(ctx context.Context, l *Locked) error {
		in := l.State.Intent
		if in == nil || in.Paused && in.Step != StepEnding {
			return nil
		}
		s.log.Warn("an interrupted operation left the container frozen", "op", in.Op, "step", in.Step)
		if in.Step == StepEnding {
			return s.group.KillAll(ctx) // the image is complete, the way is forward
		}
		return l.Release(ctx, in.Paused)
	})
}
