// Package thread runs what changes a thread of this process: its namespaces, its ids.
package thread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Spend runs f on a thread that ends afterwards, so that f may leave it in other
// namespaces or with other ids. Processes that f starts inherit them. It is never the
// first thread, which cannot end, and whose namespaces are what /proc shows as the
// process's. Processes that were started on the thread before, to die with their
// parent (PR_SET_PDEATHSIG), die with it.
func Spend(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() != unix.Getpid() {
			result <- f()
			return // ends the thread, because it is still locked
		}
		// The first one is held while another one does the work.
		defer runtime.UnlockOSThread()
		result <- Spend(f)
	}()
	return <-result
}
