// Package runc is the one door to libcontainer: it turns a small Spec into a
// container's init that waits to be let go, runs further commands inside a
// running container, and describes a restored container to libcontainer.
//
//	Start ──► init waits on its exec FIFO ──► (the caller plugs the network in)
//	                                      ──► Init.Exec ──► PID 1 runs
//	Load  ──► Container.Exec, Container.Signal
//	Restored.Save ──► a state file that Load understands, written by the caller
//	                  while CRIU still holds the restored tasks stopped
//
// Checkpoint and restore themselves are not done through libcontainer: it
// exposes neither the network lock method, nor tcp-close, nor a page server
// descriptor, nor the ghost limit. Package internal/criu does them; this
// package only says which mounts come from outside (External) and which cgroups
// a restored tree belongs to (Cgroups).
//
// A process that imports this package can be re-executed as a container's init:
// libcontainer starts /proc/self/exe with the argument "init", which the
// package's init function answers.
package runc
