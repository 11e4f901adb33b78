package quota

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// childSleep sleeps and ends the process. It runs in a copy of a process with
// threads, where nothing of the runtime may be used.
//
//go:nosplit
//go:norace
func childSleep(ts *unix.Timespec) {
	_, _, _ = syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(ts)), 0, 0)
	for {
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
