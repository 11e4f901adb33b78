package btrfs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Request numbers and layouts are those of linux/btrfs.h. Debian 12's btrfs
// tool can't enable simple quotas, and starting a program for each of them
// would cost more than the operations themselves.
const (
	ioW, ioR = 1, 2

	flagReadOnly = 1 << 1 // BTRFS_SUBVOL_RDONLY
	flagInherit  = 1 << 2 // BTRFS_SUBVOL_QGROUP_INHERIT
	flagByID     = 1 << 4 // BTRFS_SUBVOL_SPEC_BY_ID

	// firstFreeObject is the inode number of every subvolume's top directory.
	firstFreeObject = 256
	// quotaEnableSimple is BTRFS_QUOTA_CTL_ENABLE_SIMPLE_QUOTA, kernel 6.7.
	quotaEnableSimple = 4
	limitMaxReferred  = 1 << 0
	limitNone         = math.MaxUint64
)

func request(dir, nr, size uintptr) uintptr { return dir<<30 | size<<16 | 0x94<<8 | nr }

var (
	reqResize        = request(ioW, 3, 4096)
	reqTreeSearch    = request(ioW|ioR, 17, unsafe.Sizeof(searchArgs{})-searchBuffer)
	reqInoLookup     = request(ioW|ioR, 18, 4096)
	reqSnapCreate    = request(ioW, 23, 4096)
	reqSubvolCreate  = request(ioW, 24, 4096)
	reqStartSync     = request(ioR, 24, 8)
	reqSubvolFlags   = request(ioR, 25, 8)
	reqQuotaControl  = request(ioW|ioR, 40, 16)
	reqGroupAssign   = request(ioW, 41, 24)
	reqGroupCreate   = request(ioW, 42, 16)
	reqGroupLimit    = request(ioR, 43, 48)
	reqSubvolDestroy = request(ioW, 63, 4096)
)

func ioctl(f *os.File, req uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), req, uintptr(arg))
	runtime.KeepAlive(f)
	if errno != 0 {
		return errno
	}
	return nil
}

// volumeArgs is struct btrfs_ioctl_vol_args_v2.
type volumeArgs struct {
	fd      int64
	transid uint64
	flags   uint64
	// inheritSize and inherit describe a struct btrfs_qgroup_inherit.
	inheritSize uint64
	inherit     uint64
	unused      [2]uint64
	name        [4040]byte
}

// inheritOne is struct btrfs_qgroup_inherit with room for one group.
type inheritOne struct {
	flags, groups, refCopies, exclCopies uint64
	limit                                [5]uint64
	group                                uint64
}

// makeSubvolume makes name below dir: empty when origin is nil, else a
// snapshot of it. The new subvolume joins group (0: none).
func makeSubvolume(dir *os.File, name string, origin *os.File, readOnly bool, group uint64) error {
	var pins runtime.Pinner
	defer pins.Unpin()
	a := &volumeArgs{}
	copy(a.name[:len(a.name)-1], name)
	if readOnly {
		a.flags |= flagReadOnly
	}
	if group != 0 {
		in := &inheritOne{groups: 1, group: group}
		pins.Pin(in)
		a.flags |= flagInherit
		a.inheritSize = uint64(unsafe.Sizeof(*in))
		a.inherit = uint64(uintptr(unsafe.Pointer(in)))
	}
	if origin == nil {
		return ioctl(dir, reqSubvolCreate, unsafe.Pointer(a))
	}
	a.fd = int64(origin.Fd())
	err := ioctl(dir, reqSnapCreate, unsafe.Pointer(a))
	runtime.KeepAlive(origin)
	return err
}

func destroySubvolume(dir *os.File, name string) error {
	a := &volumeArgs{}
	copy(a.name[:len(a.name)-1], name)
	return ioctl(dir, reqSubvolDestroy, unsafe.Pointer(a))
}

// destroySubvolumeByID needs no path, so nothing that a container wrote is
// followed. Kernel 5.7.
func destroySubvolumeByID(top *os.File, id uint64) error {
	a := &volumeArgs{flags: flagByID}
	binary.NativeEndian.PutUint64(a.name[:], id)
	return ioctl(top, reqSubvolDestroy, unsafe.Pointer(a))
}

// startCommit has the open transaction committed in the background. That also
// wakes the cleaner, which otherwise looks for deleted subvolumes every 30 s.
func startCommit(top *os.File) error {
	var transid uint64
	return ioctl(top, reqStartSync, unsafe.Pointer(&transid))
}

// subvolumeID is the id of the subvolume that f lies in.
func subvolumeID(f *os.File) (uint64, error) {
	var a struct {
		tree, object uint64
		name         [4080]byte
	}
	a.object = firstFreeObject
	if err := ioctl(f, reqInoLookup, unsafe.Pointer(&a)); err != nil {
		return 0, fmt.Errorf("subvolume id of %s: %w", f.Name(), err)
	}
	return a.tree, nil
}

func subvolumeReadOnly(f *os.File) (bool, error) {
	var flags uint64
	if err := ioctl(f, reqSubvolFlags, unsafe.Pointer(&flags)); err != nil {
		return false, fmt.Errorf("flags of %s: %w", f.Name(), err)
	}
	return flags&flagReadOnly != 0, nil
}

func enableSimpleQuota(top *os.File) error {
	a := [2]uint64{quotaEnableSimple, 0}
	return ioctl(top, reqQuotaControl, unsafe.Pointer(&a))
}

func createGroup(top *os.File, group uint64) error {
	a := [2]uint64{1, group}
	return ioctl(top, reqGroupCreate, unsafe.Pointer(&a))
}

func removeGroup(top *os.File, group uint64) error {
	a := [2]uint64{0, group}
	return ioctl(top, reqGroupCreate, unsafe.Pointer(&a))
}

func assignGroup(top *os.File, subvolume, group uint64) error {
	a := [3]uint64{1, subvolume, group}
	return ioctl(top, reqGroupAssign, unsafe.Pointer(&a))
}

func unassignGroup(top *os.File, subvolume, group uint64) error {
	a := [3]uint64{0, subvolume, group}
	return ioctl(top, reqGroupAssign, unsafe.Pointer(&a))
}

// limitGroup must be given a descriptor of a subvolume that is not full
// itself: the kernel reserves room for the change there (EDQUOT).
func limitGroup(top *os.File, group, bytes uint64) error {
	a := [6]uint64{group, limitMaxReferred, bytes}
	return ioctl(top, reqGroupLimit, unsafe.Pointer(&a))
}

// resizeToDevice makes the file system as large as its only device.
func resizeToDevice(top *os.File) error {
	var a struct {
		fd   int64
		name [4088]byte
	}
	copy(a.name[:], "1:max")
	return ioctl(top, reqResize, unsafe.Pointer(&a))
}

func kernelAtLeast(major, minor int) (bool, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return false, fmt.Errorf("uname: %w", err)
	}
	release, _, _ := bytes.Cut(u.Release[:], []byte{0})
	return releaseAtLeast(string(release), major, minor), nil
}

func releaseAtLeast(release string, major, minor int) bool {
	var a, b int
	if n, _ := fmt.Sscanf(strings.TrimSpace(release), "%d.%d", &a, &b); n != 2 {
		return false
	}
	return a > major || a == major && b >= minor
}
