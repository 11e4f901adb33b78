package btrfs

import "testing"

func TestFreeRoomIsTheSmallerOfPoolAndHost(t *testing.T) {
	const hostTotal = 100 * gib // of which 2 GiB are kept
	cases := []struct {
		name string
		room room
		want int64
	}{
		{"host has plenty", room{poolTotal: 50 * gib, poolFree: 40 * gib, unallocated: 45 * gib, hostTotal: hostTotal, hostFree: 60 * gib}, 40 * gib},
		{"host is short", room{poolTotal: 50 * gib, poolFree: 40 * gib, unallocated: 45 * gib, hostTotal: hostTotal, hostFree: 12 * gib}, 10 * gib},
		{"host is below its reserve", room{poolTotal: 50 * gib, poolFree: 40 * gib, unallocated: 45 * gib, hostTotal: hostTotal, hostFree: gib}, 0},
		{"blocks that the pool has already need no host", room{poolTotal: 50 * gib, poolFree: 40 * gib, unallocated: 30 * gib, hostTotal: hostTotal, hostFree: gib}, 10 * gib},
		{"preallocated", room{poolTotal: 50 * gib, poolFree: 40 * gib, hostTotal: hostTotal, hostFree: 0}, 40 * gib},
		{"small host keeps a twentieth", room{poolTotal: gib, poolFree: gib, unallocated: gib, hostTotal: 10 * gib, hostFree: gib}, gib / 2},
		{"full pool", room{poolTotal: gib, unallocated: gib / 2, hostTotal: hostTotal, hostFree: hostTotal}, 0},
	}
	for _, c := range cases {
		if got := c.room.free(); got != c.want {
			t.Errorf("%s: %d MiB are free, want %d", c.name, got/mib, c.want/mib)
		}
	}
}

func TestAPoolGrowsByHalfWhenItRunsShortAndTheHostHasRoom(t *testing.T) {
	cases := []struct {
		name string
		room room
		want int64
	}{
		{"enough left", room{poolTotal: 10 * gib, poolFree: gib, hostTotal: 100 * gib, hostFree: 90 * gib}, 0},
		{"short", room{poolTotal: 10 * gib, poolFree: gib - 1, hostTotal: 100 * gib, hostFree: 90 * gib}, 15 * gib},
		{"half of the host's rest stays", room{poolTotal: 10 * gib, poolFree: 1, hostTotal: 100 * gib, hostFree: 6 * gib}, 12 * gib},
		{"what the pool may claim already is not given twice", room{poolTotal: 10 * gib, poolFree: 1, unallocated: 4 * gib, hostTotal: 100 * gib, hostFree: 6 * gib}, 0},
		{"not worth the while", room{poolTotal: 100 * mib, poolFree: 1, hostTotal: 100 * gib, hostFree: 90 * gib}, 0},
		{"host is full", room{poolTotal: 10 * gib, poolFree: 1, hostTotal: 100 * gib}, 0},
	}
	for _, c := range cases {
		if got := c.room.grown(); got != c.want {
			t.Errorf("%s: grows to %d MiB, want %d", c.name, got/mib, c.want/mib)
		}
	}
}

func TestTheDefaultPoolTakesHalfOfTheFreeSpaceWithinBounds(t *testing.T) {
	for free, want := range map[int64]int64{-1: 0, 10*gib + 12345: 5 * gib, 100 * gib: 50 * gib, 1000 * gib: 64 * gib} {
		if got := defaultPoolBytes(free); got != want {
			t.Errorf("of %d bytes %d, want %d", free, got, want)
		}
	}
}

func TestKernelReleasesAreCompared(t *testing.T) {
	for release, want := range map[string]bool{
		"6.7.0": true, "6.7": true, "6.18.44-x": true, "7.0.1": true,
		"6.6.99": false, "5.19.0-1-amd64": false, "": false, "next": false,
	} {
		if got := releaseAtLeast(release, 6, 7); got != want {
			t.Errorf("%q is at least 6.7: %v, want %v", release, got, want)
		}
	}
}
