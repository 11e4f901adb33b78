package preflight

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// kcmpEpoll is KCMP_EPOLL_TFD of kcmp(2), since Linux 4.13.
const kcmpEpoll = 7

// sameTarget tells whether descriptor fd of a process is the file that its epoll
// efd has under the number tfd, the offset-th of that number.
func sameTarget(pid, fd, efd, tfd, offset int) bool {
	slot := struct{ efd, tfd, offset uint32 }{uint32(efd), uint32(tfd), uint32(offset)}
	n, _, e := unix.Syscall6(unix.SYS_KCMP, uintptr(pid), uintptr(pid), kcmpEpoll, uintptr(fd), uintptr(unsafe.Pointer(&slot)), 0)
	if e != 0 && e != unix.EBADF && e != unix.ENOENT {
		return true // it can't be asked, so nothing is said
	}
	return e == 0 && n == 0
}
