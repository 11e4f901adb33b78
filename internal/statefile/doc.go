// Package statefile keeps small facts on disk so that a crash at any instant
// leaves either the old fact or the new one, never neither and never a mixture.
//
// It has four parts, each usable alone:
//
//   - [Schema] reads and writes versioned JSON in an envelope, upgrades old
//     versions step by step and refuses newer ones.
//   - [TryLock] and [WaitLock] are flock(2) locks on files of their own, which
//     name their holder.
//   - [Sink] publishes a whole directory at once: it is filled as "x.tmp",
//     made durable, and renamed to "x".
//   - [RemoveTree] and [SweepTemp] remove without ever following a mount into
//     data that belongs to somebody else.
//
// The order that makes a write durable is always the same:
//
//	write x.tmp ▸ fsync x.tmp ▸ rename x.tmp x ▸ fsync the directory
//
// Without the first fsync a file system may commit the rename before the
// data, and a power cut leaves an empty file; without the second, the rename
// itself may be lost after success was reported (fsync(2), NOTES).
package statefile
