package criu

import "strings"

// pattern is a message of CRIU (4.2) whose meaning is known.
type pattern struct {
	text      string // contained in the message
	object    string // what CRIU stumbled over
	cure      string // what a user can do; NAME stands for the container's name
	transient bool   // the same may succeed in a moment
}

// lookup returns what is known about a message; nil when nothing is. The
// first match counts, so the special stand before the general.
func lookup(message string) *pattern {
	for i := range patterns {
		if strings.Contains(message, patterns[i].text) {
			return &patterns[i]
		}
	}
	return nil
}

const (
	cureStopUser  = "end the program that uses it, or turn that use off in its configuration, and try again"
	cureRetry     = "try again; if it fails each time, choose a quieter moment"
	cureNestedNS  = "stop what runs in namespaces of its own inside: nested containers, browser sandboxes, services with PrivateNetwork=, PrivateUsers= or PrivateIPC="
	cureSameFiles = "restore with the files as they were when the checkpoint was taken: use the storage snapshot that belongs to it"
	cureImages    = "the checkpoint is damaged or incomplete and cannot be used: go back to another one"
)

var patterns = []pattern{
	// Sockets.
	{text: "Unsupported proto 262", object: "MPTCP socket", cure: "ctctl doctor NAME --fix turns MPTCP off in the container; then restart the program (Go programs: GODEBUG=multipathtcp=0)"},
	{text: "Unsupported proto 132", object: "SCTP socket", cure: cureStopUser},
	{text: "Unsupported proto 58 ", object: "ICMPv6 socket, such as of a running ping", cure: cureStopUser, transient: true},
	{text: "Unsupported proto 1 ", object: "ICMP socket, such as of a running ping", cure: cureStopUser, transient: true},
	{text: "Unsupported proto", object: "socket of a protocol that CRIU cannot save", cure: cureStopUser},
	{text: "Unknown socket collected (family 40)", object: "VSOCK socket", cure: cureStopUser},
	{text: "Unknown socket collected", object: "socket of a family that CRIU cannot save", cure: cureStopUser},
	{text: "Unsupported socket family", object: "socket of a family that CRIU cannot save", cure: cureStopUser},
	{text: "In-flight connection", object: "connection that was not accepted yet", cure: cureRetry, transient: true},
	{text: "In-flight connections can be ignored", object: "connection that was not accepted yet", cure: cureRetry, transient: true},
	{text: "on an in-flight socket", object: "data on a connection that was not accepted yet", cure: cureRetry, transient: true},
	{text: "closed in-flight socket", object: "closed connection that was not accepted yet", cure: cureRetry, transient: true},
	{text: "Control messages in queue", object: "unread datagram with credentials or descriptors", cure: cureRetry, transient: true},
	{text: "corked dgram socket", object: "half-written datagram", cure: cureRetry, transient: true},
	{text: "consider using --tcp-established", object: "established TCP connection", cure: "allow established connections to be saved"},
	{text: "Can't dump half of stream unix connection", object: "Unix connection that leads out of the container", cure: "end the program at one of its ends, such as an exec session with the container's processes"},
	{text: "name-less external socket", object: "Unix socket that leads out of the container", cure: "end the program at one of its ends, such as an exec session with the container's processes"},
	{text: "External socket is used", object: "Unix socket that leads out of the container", cure: "end the program at one of its ends, such as an exec session with the container's processes"},
	{text: "with unreachable peer", object: "Unix socket that leads out of the container", cure: "end the program at one of its ends"},
	{text: "unresolved for", object: "Unix connection whose listening socket comes later in the images", cure: "the images need their listening Unix sockets first"},
	{text: "The socket has data to read", object: "netlink socket with unread messages", cure: cureRetry, transient: true},
	{text: "Can't connect inet socket back", object: "TCP connection from another address", cure: "restore with connections closed, or into a network namespace with the same addresses"},
	{text: "Can't create inet socket: Permission denied", object: "socket that is not allowed here, such as of a ping", cure: "set the sysctl net.ipv4.ping_group_range as it was when the checkpoint was taken"},
	{text: "Can't bind inet socket", object: "socket of an address that is not here", cure: "give the container the address back (ctctl set NAME --ip-add ADDRESS), and take it away when it runs"},

	// Descriptors.
	{text: "anon_inode:[userfaultfd]", object: "userfaultfd", cure: cureStopUser},
	{text: "anon_inode:[perf_event]", object: "perf event", cure: cureStopUser},
	{text: "anon_inode:bpf", object: "bpf program, map or link", cure: cureStopUser},
	{text: "anon_inode:[io_uring]", object: "io_uring", cure: cureStopUser},
	{text: "io_uring", object: "io_uring", cure: cureStopUser},
	// The kernel refuses io_uring descriptors, alone of all, in SCM_RIGHTS.
	{text: "send_fds failed (-22)", object: "descriptor that cannot be passed on, such as of io_uring", cure: cureStopUser},
	{text: "/secretmem", object: "memfd_secret", cure: cureStopUser},
	{text: "anon_inode:[landlock-ruleset]", object: "Landlock rules", cure: cureStopUser},
	{text: "anon_inode:seccomp notify", object: "seccomp listener", cure: cureStopUser},
	{text: "Can't dump file", object: "descriptor of a kind that CRIU cannot save", cure: cureStopUser},
	{text: "Can't dump ghost file", object: "deleted file that is still open and too large", cure: "restart the program that holds it, or raise the limit for deleted files"},
	{text: "PIDFD_THREAD flag", object: "pidfd of a thread", cure: cureStopUser},
	{text: "is not a part of process tree", object: "pidfd of a process outside the container", cure: cureStopUser},
	{text: "packetized mode for pipes", object: "pipe in packet mode", cure: cureStopUser},
	{text: "Dump eventpoll", object: "epoll that waits for what is closed", cure: cureStopUser},
	{text: "No NS ID with kid", object: "descriptor of a namespace in which no process is", cure: cureStopUser},
	{text: "Can't handle non-regular mapping", object: "mapping of a device", cure: cureStopUser},
	{text: "Can't link remap to", object: "open file that a later mount hides", cure: "restart the program that holds it"},
	{text: "No tun device for file", object: "tun or tap device", cure: cureStopUser},
	{text: "Can't open master pty", object: "terminal outside the container", cure: "end the program that holds it: it was given a terminal of the host when it was started"},
	{text: "Can't create link remap for", object: "open file whose name is gone", cure: "restart the program that holds it"},
	{text: "Open files on overmounted mounts", object: "open file below a later mount", cure: "restart the program that holds it"},
	{text: "Can't lookup mount", object: "descriptor of a file outside the container", cure: "end the program that holds it: it was given a host file when it was started"},
	{text: "Can't find suitable path for handle", object: "inotify watch on something deleted", cure: cureRetry, transient: true},
	{text: "Unable to lookup a mount by dev", object: "inotify watch on a file system that is not mounted", cure: cureStopUser},
	{text: "Can't dump that handle", object: "inotify watch on something deleted", cure: cureRetry, transient: true},
	{text: "Some file locks are hold by dumping tasks", object: "file lock", cure: "allow file locks to be saved"},
	{text: "unprivileged task whose /proc doesn't belong to it", object: "container without a /proc of its own", cure: "mount /proc inside"},

	// Tasks.
	{text: "Unseizable non-zombie", object: "process that is being traced", cure: "end the debugger or strace that is attached to it"},
	{text: "Unable to interrupt task", object: "process that is being traced", cure: "end the debugger or strace that is attached to it"},
	{text: "is outside of its pid namespace", object: "process of a session that began outside", cure: "end the exec session it belongs to"},
	{text: "is not a session leader", object: "tree whose root process leads no session", cure: "start it with a session of its own (setsid)"},
	{text: "Zombies with threads are not supported", object: "process that is ending", cure: cureRetry, transient: true},
	{text: "Zombie thread not supported", object: "thread that is ending", cure: cureRetry, transient: true},
	{text: "Individually stopped threads", object: "thread stopped by itself", cure: "continue it"},
	{text: "found while seizing", object: "process that is ending", cure: cureRetry, transient: true},
	{text: "Timeout reached", object: "process that does not stop", cure: "look for processes in state D", transient: true},
	{text: "Unable to freeze cgroup", object: "process that does not freeze", cure: "look for processes in state D", transient: true},
	{text: "Can't get rlimit", object: "process of another user", cure: "CRIU needs CAP_SYS_RESOURCE here, or the container a user namespace"},
	{text: "Can't dump nested pid namespace", object: "nested pid namespace", cure: cureNestedNS},
	{text: "Can't dump nested user namespace", object: "nested user namespace", cure: cureNestedNS},
	{text: "Can't dump nested", object: "nested namespace", cure: cureNestedNS},
	{text: "more than one netns", object: "nested network namespace", cure: cureNestedNS},
	{text: "Can't restore sub-task in NS", object: "process in a time namespace of its own", cure: "end the exec session it belongs to"},

	// Mounts.
	{text: "doesn't have a proper root mount", object: "bind mount of something outside the container", cure: "name it as an external mount"},
	{text: "mqueue isn't empty", object: "POSIX message queue", cure: "end the program that uses it, and remove it below /dev/mqueue"},
	{text: "Autofs", object: "automounter", cure: "unmount it inside the container, or restart its daemon"},
	{text: "unsupported id", object: "mount of a file system that CRIU cannot save", cure: "unmount it inside the container (fuse, nfs, autofs)"},
	{text: "Unable to dump a file system", object: "tmpfs that tar could not read", cure: "see whether tar is installed and the host has room for the images"},
	{text: "No mapping for", object: "external mount without a source", cure: "name its source"},
	{text: "Unable to mount", object: "mount that cannot be made again", cure: "look whether its source is there"},

	// Restore.
	{text: "has bad size", object: "file that has changed size since", cure: cureSameFiles},
	{text: "on restore: No such file or directory", object: "file that is missing", cure: cureSameFiles},
	{text: "Can't open file", object: "file that cannot be opened", cure: cureSameFiles},
	{text: "Can't fork for", object: "process that cannot be made: its pid is taken or there are too many", cure: "restore into a pid namespace of its own and look at the limit of processes"},
	{text: "bytes while", object: "image that is cut off", cure: cureImages},
	{text: "Magic doesn't match", object: "image that is something else", cure: cureImages},
	{text: "Unable to open a parent image", object: "missing images of the chain", cure: cureImages},
	{text: "required by image is not supported", object: "processor that lacks a feature", cure: "restore on a host whose processor has all features of the first one"},

	// The host.
	{text: "No space left on device", object: "full disk", cure: "make room for the images"},
	{text: "Cannot allocate memory", object: "lack of memory", cure: "free memory on the host or raise the limit"},
}
