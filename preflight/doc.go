// Package preflight finds out, without stopping anything, whether CRIU could
// checkpoint a running container, and names what stands in the way: the process,
// its descriptor, and what to do about it.
//
// CRIU works by lists of what it knows: kinds of descriptors, sockets, file
// systems, namespaces. It looks at them when every process has stopped, and at
// the first thing that it does not know it gives up. Examine applies the same
// lists to what /proc tells of every process below a container's first one:
//
//	processes     traced, leaving, in sessions or namespaces of their own
//	descriptors   io_uring, perf, bpf, devices, files of the host, …
//	sockets       by the name of their protocol, read as an extended attribute
//	mappings      rings that are still mapped when their descriptor is closed
//	mounts        of file systems that CRIU cannot make again
//
// Processes come and go meanwhile; what has gone when it is looked at is no
// finding. What passes by itself (an unread message, an uninterruptible sleep) is
// looked at twice and named only when it is there both times, as a warning.
//
// All that is read was written by the container, which may be hostile: reads are
// bounded, names are escaped, and nothing is asked of a file that a program
// inside could answer for, as one with a FUSE file system could for ever.
//
// What can't be seen from outside, and shows when CRIU stumbles over it: unread
// messages with credentials and half-written datagrams, descriptors that are
// under way inside a socket, and Landlock restrictions, which the kernel shows
// nowhere and CRIU loses in silence.
package preflight
