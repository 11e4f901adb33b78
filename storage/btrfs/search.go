package btrfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Trees and item types of linux/btrfs_tree.h.
const (
	treeRoots  = 1
	treeQuotas = 8

	itemRoot          = 132
	itemRootRef       = 156
	itemQuotaStatus   = 240
	itemGroupInfo     = 242
	itemGroupLimit    = 244
	itemGroupRelation = 246

	quotaStatusSimple = 1 << 3

	searchBuffer = 64 << 10
)

// searchArgs is struct btrfs_ioctl_search_args_v2 with its buffer.
type searchArgs struct {
	tree, minObject, maxObject, minOffset, maxOffset, minTransid, maxTransid uint64
	minType, maxType, items, _                                               uint32
	_                                                                        [4]uint64
	size                                                                     uint64
	buffer                                                                   [searchBuffer]byte
}

// itemKey is a key of a btrfs tree, which is ordered by object, kind, offset.
type itemKey struct {
	object uint64
	kind   uint32
	offset uint64
}

func (k itemKey) next() (itemKey, bool) {
	switch {
	case k.offset < math.MaxUint64:
		k.offset++
	case k.kind < math.MaxUint8:
		k.kind, k.offset = k.kind+1, 0
	case k.object < math.MaxUint64:
		k = itemKey{object: k.object + 1}
	default:
		return k, false
	}
	return k, true
}

// search calls visit for every item between from and to inclusive. Kinds
// outside [from.kind, to.kind] can be among them when the objects differ. A
// tree that doesn't exist has no items.
func search(f *os.File, tree uint64, from, to itemKey, visit func(k itemKey, body []byte)) error {
	a := &searchArgs{}
	for more := true; more; {
		*a = searchArgs{
			tree: tree, minObject: from.object, maxObject: to.object, minType: from.kind, maxType: to.kind,
			minOffset: from.offset, maxOffset: to.offset, maxTransid: math.MaxUint64, items: math.MaxUint32, size: searchBuffer,
		}
		err := ioctl(f, reqTreeSearch, unsafe.Pointer(a))
		if errors.Is(err, unix.ENOENT) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("search btrfs tree %d: %w", tree, err)
		}
		if a.items == 0 {
			return nil
		}
		last, err := eachItem(a.buffer[:], a.items, visit)
		if err != nil {
			return fmt.Errorf("search btrfs tree %d: %w", tree, err)
		}
		from, more = last.next()
		more = more && last != to
	}
	return nil
}

// eachItem walks the items of a search answer: a struct
// btrfs_ioctl_search_header {transid, objectid, offset, type, len} before each.
func eachItem(b []byte, count uint32, visit func(k itemKey, body []byte)) (last itemKey, err error) {
	const header = 32
	u64, u32 := binary.NativeEndian.Uint64, binary.NativeEndian.Uint32
	for range count {
		if len(b) < header {
			return last, errors.New("answer cut short")
		}
		last = itemKey{object: u64(b[8:]), offset: u64(b[16:]), kind: u32(b[24:])}
		n := int(u32(b[28:]))
		b = b[header:]
		if n > len(b) {
			return last, errors.New("answer cut short")
		}
		visit(last, b[:n])
		b = b[n:]
	}
	return last, nil
}

// on-disk fields are little-endian whatever the machine.
func field(body []byte, offset int) uint64 {
	if len(body) < offset+8 {
		return 0
	}
	return binary.LittleEndian.Uint64(body[offset:])
}

// simpleQuotaOn tells whether the file system counts by simple quotas.
func simpleQuotaOn(top *os.File) (on bool, err error) {
	k := itemKey{kind: itemQuotaStatus}
	err = search(top, treeQuotas, k, k, func(_ itemKey, body []byte) {
		on = field(body, 16)&quotaStatusSimple != 0 // version, generation, flags
	})
	return on, err
}

// anyQuotaOn tells whether the file system has a quota tree at all.
func anyQuotaOn(top *os.File) (on bool, err error) {
	k := itemKey{kind: itemQuotaStatus}
	err = search(top, treeQuotas, k, k, func(itemKey, []byte) { on = true })
	return on, err
}

// groupInfo is what the quota tree says of one group.
type groupInfo struct {
	exists  bool
	bytes   uint64
	limit   uint64
	limited bool
}

func readGroup(top *os.File, group uint64) (g groupInfo, err error) {
	from, to := itemKey{kind: itemGroupInfo, offset: group}, itemKey{kind: itemGroupInfo, offset: group}
	err = search(top, treeQuotas, from, to, func(_ itemKey, body []byte) { g.addInfo(body) })
	if err != nil {
		return g, err
	}
	from.kind, to.kind = itemGroupLimit, itemGroupLimit
	err = search(top, treeQuotas, from, to, func(_ itemKey, body []byte) { g.addLimit(body) })
	return g, err
}

func (g *groupInfo) addInfo(body []byte) {
	g.exists, g.bytes = true, field(body, 8) // generation, referred, …
}

func (g *groupInfo) addLimit(body []byte) {
	g.limited, g.limit = field(body, 0)&limitMaxReferred != 0, field(body, 8) // flags, max referred, …
}

// quotaTree is the whole quota tree: groups, and the parent of each
// subvolume's own group.
type quotaTree struct {
	groups  map[uint64]*groupInfo
	parents map[uint64][]uint64
}

func readQuotaTree(top *os.File) (quotaTree, error) {
	t := quotaTree{groups: map[uint64]*groupInfo{}, parents: map[uint64][]uint64{}}
	group := func(id uint64) *groupInfo {
		if t.groups[id] == nil {
			t.groups[id] = &groupInfo{}
		}
		return t.groups[id]
	}
	all := itemKey{object: math.MaxUint64, kind: math.MaxUint8, offset: math.MaxUint64}
	err := search(top, treeQuotas, itemKey{}, all, func(k itemKey, body []byte) {
		switch {
		case k.kind == itemGroupInfo:
			group(k.offset).addInfo(body)
		case k.kind == itemGroupLimit:
			group(k.offset).addLimit(body)
		case k.kind == itemGroupRelation && k.object < k.offset: // each relation is there both ways round
			t.parents[k.object] = append(t.parents[k.object], k.offset)
		}
	})
	return t, err
}

// inGroup tells whether the subvolume is a member of group.
func inGroup(top *os.File, subvolume, group uint64) (is bool, err error) {
	k := itemKey{object: subvolume, kind: itemGroupRelation, offset: group}
	err = search(top, treeQuotas, k, k, func(itemKey, []byte) { is = true })
	return is, err
}

// subvolumeExists tells whether there is a subvolume of that id, also one that
// is deleted but still being cleaned up.
func subvolumeExists(top *os.File, id uint64) (is bool, err error) {
	from := itemKey{object: id, kind: itemRoot}
	to := itemKey{object: id, kind: itemRoot, offset: math.MaxUint64}
	err = search(top, treeRoots, from, to, func(itemKey, []byte) { is = true })
	return is, err
}

// childSubvolumes lists the subvolumes directly inside a subvolume.
func childSubvolumes(top *os.File, id uint64) (ids []uint64, err error) {
	from := itemKey{object: id, kind: itemRootRef}
	to := itemKey{object: id, kind: itemRootRef, offset: math.MaxUint64}
	err = search(top, treeRoots, from, to, func(k itemKey, _ []byte) { ids = append(ids, k.offset) })
	return ids, err
}
