package statefile

import "errors"

// Reading.
var (
	// ErrNewer says that a newer ctctl wrote the file.
	ErrNewer = errors.New("written by a newer version")
	// ErrCorrupt says that the bytes are no envelope of ours: truncated,
	// edited by hand, or of a version that has no upgrade.
	ErrCorrupt = errors.New("corrupt")
	// ErrKind says that the file holds something else than was asked for.
	ErrKind = errors.New("unexpected kind")
)

// Locking and removing.
var (
	// ErrBusy is what every BusyError is.
	ErrBusy = errors.New("busy")
	// ErrMounted says that a tree was not removed because something is mounted
	// at or below it, or because a btrfs subvolume begins there.
	ErrMounted = errors.New("something is mounted here")
	// ErrAborted says that a sink was committed after it had been aborted.
	ErrAborted = errors.New("already aborted")
)
