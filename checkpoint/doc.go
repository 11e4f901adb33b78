// Package checkpoint takes a container's memory and disk at one instant and
// brings them back: snapshots, rollback, suspend and resume on one host.
//
//	snapshot   flush ▸ freeze ▸ CRIU dump, tasks kept ▸ in its post-dump
//	           notification, tasks still stopped: storage snapshot ▸ thaw ▸
//	           digests ▸ publish
//	suspend    the same without the thaw: publish ▸ record ▸ end the frozen tasks
//	rollback   verify ▸ the same as suspend, into a safety snapshot ▸ new volume
//	           from the snapshot's ▸ restore ▸ commit; if that fails, restore the
//	           safety snapshot
//	resume     verify ▸ restore ▸ commit ▸ drop the image
//
// An image is a directory with a manifest, published whole by a rename. What a
// killed process left half done is settled from the container's intent (see
// settle.go) by the next operation, and the kernel side of it, a container left
// frozen, at once by the container's supervisor.
package checkpoint
