package criu

import (
	"context"
	"log/slog"
	"os"
	"time"
)

// Engine is a CRIU binary and how to log about it. The zero value is not
// usable; [Find] makes one.
type Engine struct {
	// Binary is the path of the criu executable.
	Binary string
	// Unusable says why there is none; operations return it.
	Unusable error
	// Log receives what is worth knowing but is no error; nil discards.
	Log *slog.Logger
}

// Event is one notification of a running dump or restore.
type Event struct {
	// Script is the notification's name as CRIU gives it, see the Event…
	// constants.
	Script string
	// PID is the root task's process id as the host sees it; 0 unless
	// Script is EventSetupNamespaces or EventPostRestore.
	PID int
	// Files are the descriptors that came along, close-on-exec. They are
	// closed when Notify returns: a Notify that keeps one duplicates it or
	// takes it out of the slice by setting the element to nil.
	Files []*os.File
}

// The notifications that callers act on.
const (
	EventPreDump             = "pre-dump"
	EventNetworkLock         = "network-lock"
	EventQueryExtFiles       = "query-ext-files"
	EventPostDump            = "post-dump"
	EventNetworkUnlock       = "network-unlock"
	EventPreRestore          = "pre-restore"
	EventSetupNamespaces     = "setup-namespaces"
	EventPostSetupNamespaces = "post-setup-namespaces"
	EventPostRestore         = "post-restore"
	EventPreResume           = "pre-resume"
	EventPostResume          = "post-resume"
	EventOrphanPTSMaster     = "orphan-pts-master"
)

// Notify is called for each notification, one at a time, from the goroutine
// that called Dump or Restore. CRIU waits for it, so the tasks stay stopped
// meanwhile. An error makes CRIU give up: a dump lets the tasks go on, a
// restore kills what it made. ctx ends when the operation's deadline strikes,
// not when the caller's context does.
type Notify func(ctx context.Context, ev Event) error

// defaultDeadline bounds a dump or restore whose options name none.
const defaultDeadline = 60 * time.Second

func (e Engine) log() *slog.Logger {
	if e.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return e.Log
}

func orDefault(d time.Duration) time.Duration {
	if d <= 0 {
		return defaultDeadline
	}
	return d
}
