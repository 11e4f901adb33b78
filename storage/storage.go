// Package storage is the contract for the volumes that container roots,
// templates and snapshots live in, and what every driver promises.
//
// A volume is a directory tree with a name. Writable volumes are container
// roots; read-only ones are templates and the storage half of snapshots. The
// drivers are in storage/btrfs (subvolumes; copies cost milliseconds whatever
// their size) and storage/dir (plain directories on any file system; copies
// cost what copying costs). Package storagetest holds the suite that both pass.
//
// Volumes is all that a driver must offer. What only some can do is a further
// interface, found by type assertion:
//
//	if l, ok := volumes.(storage.Limiter); ok { … }
//
// A driver that has the method but finds the kernel unable answers with
// ErrUnsupported.
//
// Names match [a-z0-9][a-z0-9.-]{0,100} and don't end in ".tmp", which marks
// what an interrupted operation left. All methods may be called from several
// goroutines and several processes at once.
package storage

import "context"

// CreateOptions says what a new volume starts as. The zero value is an empty
// volume in no group.
type CreateOptions struct {
	// Origin is the volume or snapshot to copy; "" makes an empty volume,
	// whose top directory is 0755 and root's.
	Origin string
	// Group is the quota group that the volume's data is charged to; 0 is none.
	Group uint64
}

// Volumes makes, copies and removes volumes.
type Volumes interface {
	// Create makes a writable volume, whole or not at all. Copying an origin
	// that is being written gives a tree that may mix moments on drivers that
	// copy file by file; freeze its writers, or copy from a snapshot.
	// Errors: ErrName, ErrExists, ErrNotFound (no such origin), ErrNoSpace.
	Create(ctx context.Context, name string, o CreateOptions) error

	// Snapshot makes a frozen copy of source that shows all files as they were
	// at one instant, provided that its writers are frozen (btrfs needs no
	// freezing for that). Errors as Create.
	Snapshot(ctx context.Context, source, name string, group uint64) error

	// Delete removes a volume or snapshot; an absent one is not an error. The
	// name is free again when it returns, the space possibly later. The caller
	// sees to it that no container uses the volume. Errors: ErrName, ErrInUse.
	Delete(ctx context.Context, name string) error

	// Path is the directory of a volume, whether it exists or not, and "" for
	// a name that can't be one. It does no I/O. The path goes through mounts
	// of this host and must not be followed further by name inside the volume:
	// its content belongs to the container.
	Path(name string) string
}

// Volume is what List tells of a volume.
type Volume struct {
	Name     string
	ReadOnly bool
	// Group is the quota group, 0 when there is none.
	Group uint64
}

// Lister is implemented by drivers that can name their volumes.
type Lister interface {
	// List returns all volumes sorted by name, without leftovers of
	// interrupted operations.
	List(ctx context.Context) ([]Volume, error)
}

// Usage is what a quota group holds. LimitBytes 0 means no limit.
type Usage struct {
	Bytes      int64
	LimitBytes int64
}

// Limiter is implemented by drivers that can bound the data of a group of
// volumes. Every method answers ErrUnsupported where the kernel can't.
type Limiter interface {
	// SetLimit bounds what all volumes of the group may hold together, from
	// now on; 0 lifts the limit. The group is made when it is absent. A limit
	// below the present usage is accepted: further writes fail (EDQUOT).
	SetLimit(ctx context.Context, group uint64, bytes int64) error

	// Usage tells what is charged to the group; a group that is absent holds
	// nothing. Data still in the page cache is not counted yet.
	Usage(ctx context.Context, group uint64) (Usage, error)

	// DeleteGroup lifts the group's limit and removes it. Called after the
	// last volume of the group is gone; absent is not an error, and neither is
	// a group that can't go yet because others share its data: a later Open
	// collects it.
	DeleteGroup(ctx context.Context, group uint64) error
}

// Capacity is the room of a store in bytes. FreeBytes is what can be written
// without harm to anybody, with reserves already taken off.
type Capacity struct {
	TotalBytes int64
	FreeBytes  int64
}

// Gauge is implemented by drivers that know how much room there is.
type Gauge interface {
	// Capacity is cheap enough to be asked before every operation; see
	// CheckRoom.
	Capacity(ctx context.Context) (Capacity, error)
}

// Flusher is implemented by drivers whose snapshots are fast only when little
// is dirty.
type Flusher interface {
	// Flush writes dirty data out. Called before a container is frozen, so
	// that a snapshot taken while it is frozen has little left to write.
	// Errors: ErrName, ErrNotFound.
	Flush(ctx context.Context, name string) error
}
