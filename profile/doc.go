// Package profile says what is done to a container so that CRIU can dump it and
// bring it back, and so that its init boots in there at all: one table (Entries) of
// environment, mounts, files in /run, system calls, capabilities and the cgroup,
// each with the reason and the limit behind it.
//
//	Detect(root) ──► Found{systemd, 257} ──► For ──► Profile ──► internal/runc
//
// Everything comes from outside: files go into the container's own tmpfs on /run
// before init runs, and no file of its root is changed.
//
// The package knows no containers. It reads a root file system, which is hostile:
// below its directory descriptor only, never running anything in it.
package profile
