package btrfs

const (
	mib = 1 << 20
	gib = 1 << 30

	// minPoolBytes is comfortably above the least that mkfs.btrfs accepts
	// (about 110 MiB), so that a pool holds something.
	minPoolBytes = 256 * mib
	// maxDefaultPoolBytes bounds what a pool takes without being asked.
	maxDefaultPoolBytes = 64 * gib
	// maxHostReserveBytes bounds what hostReserve leaves to the host.
	maxHostReserveBytes = 2 * gib
	// growStepBytes is the least that growing is worth the while for.
	growStepBytes = 64 * mib
)

// hostReserve is what the file system below a sparse pool keeps for itself: if
// it fills up, writes of the pool fail and btrfs goes read-only for all.
func hostReserve(hostTotal int64) int64 { return min(hostTotal/20, maxHostReserveBytes) }

// defaultPoolBytes is half of what is free, at most 64 GiB.
func defaultPoolBytes(hostFree int64) int64 {
	return roundDown(min(hostFree/2, maxDefaultPoolBytes))
}

// room is what decides how much can be written into a pool. All in bytes.
type room struct {
	poolTotal, poolFree int64
	// unallocated is the part of the pool file that the host has not given
	// blocks to yet; 0 when preallocated.
	unallocated         int64
	hostTotal, hostFree int64
}

// hostRoom is what the host can still give.
func (r room) hostRoom() int64 { return max(0, r.hostFree-hostReserve(r.hostTotal)) }

// free is the smaller of the pool's free space and of what is sure to get
// blocks: the part of it that must have them already, and what the host can
// give.
func (r room) free() int64 {
	owned := max(0, r.poolFree-r.unallocated)
	return max(0, min(r.poolFree, owned+r.hostRoom()))
}

// grown is the size a pool should grow to by itself, 0 for staying as it is:
// by half when less than a tenth is free, as far as the host has room beyond
// what the pool may still claim, of which half stays with the host.
func (r room) grown() int64 {
	if r.poolFree >= r.poolTotal/10 {
		return 0
	}
	step := roundDown(min(r.poolTotal/2, (r.hostRoom()-r.unallocated)/2))
	if step < growStepBytes {
		return 0
	}
	return r.poolTotal + step
}

func roundDown(bytes int64) int64 { return max(0, bytes) / mib * mib }

func roundUp(bytes int64) int64 { return (max(0, bytes) + mib - 1) / mib * mib }
