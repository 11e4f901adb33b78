//go:build linux

// Command guest is the rig's hand inside a virtual machine. The kernel starts it
// from the initramfs as the first process: it mounts the root file system, leaves
// a copy of itself and a systemd unit below /run, and becomes the root's own
// init. systemd then starts that copy, which does what the rig asks it to over a
// serial port. So the root's image contains nothing of the rig.
package main

import (
	"fmt"
	"os"
)

func main() {
	if os.Getpid() == 1 {
		err := boot()
		// The kernel panics when its first process ends, and prints this before.
		fmt.Fprintln(os.Stderr, "guest: boot:", err)
		os.Exit(1)
	}
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}
