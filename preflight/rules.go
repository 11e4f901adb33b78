package preflight

import "strings"

// rule is what is known of a kind of finding. In a cure {stop} is the command
// that ends the process, {CT} the container's name.
type rule struct {
	area  string
	level Level
	criu  string // what CRIU 4.2 says or does
	cure  string
	// transient findings are looked at twice.
	transient bool
}

const (
	cureStop   = "{stop}, or turn that use off in its configuration"
	cureNested = "{stop}: what makes namespaces of its own (nested containers, browser sandboxes, hardened services) cannot be saved"
	cureHost   = "{stop} and start it anew with its standard files inside the container"
	cureUmount = "ctctl exec {CT} umount {at}"
)

// rules by code. The level Fail stands only where CRIU was seen to fail, while
// dumping or restoring.
var rules = map[string]rule{
	// Processes.
	"traced":         {Processes, Fail, "Unseizable non-zombie found: a process has one tracer only", "kill {tracer}: it is the debugger or strace", false},
	"stopped":        {Processes, Fail, "hangs until its deadline: the v1 freezer and a stopped process do not go together", "ctctl exec {CT} kill -CONT {pid}", false},
	"uninterrupted":  {Processes, Warn, "waits for it until its deadline", "wait, or find out what it waits for: cat /proc/{hostpid}/stack", true},
	"leader-ended":   {Processes, Fail, "Zombies with threads are not supported", cureStop, false},
	"exec-session":   {Processes, Warn, "it is in no image: it ends with suspend and rollback", "end it, or start it inside as a service if it has to stay", false},
	"foreign-leader": {Processes, Fail, "A session leader is outside of its pid namespace", "{stop} and start it with setsid", false},
	"other-cgroup":   {Processes, Fail, "Unseizable non-zombie found: it is not frozen with the others", "end it: kill {hostpid}", false},

	// Namespaces.
	"nested-namespace": {Namespaces, Fail, "Can't dump nested {kind} namespace", cureNested, false},
	"nested-net":       {Namespaces, Fail, "Unable to dump more than one netns", cureNested + " (of a unit: PrivateNetwork=)", false},

	// Descriptors.
	"io_uring":           {Descriptors, Fail, "send_fds failed, or: Unknown mapping of anon_inode:[io_uring]", cureStop, false},
	"anonymous":          {Descriptors, Fail, "Can't dump file of that type (anon {link})", cureStop, false},
	"pidfd-thread":       {Descriptors, Fail, "PIDFD_THREAD flag is currently not supported", cureStop, false},
	"pidfd-outside":      {Descriptors, Fail, "pidfd is not a part of process tree", cureStop, false},
	"packet-pipe":        {Descriptors, Fail, "The packetized mode for pipes is not supported", cureStop, false},
	"epoll-escaped":      {Descriptors, Warn, "Dump eventpoll failed, unless it finds the file with another process", cureStop, true},
	"namespace-file":     {Descriptors, Fail, "No NS ID with kid", cureStop, false},
	"memfd_secret":       {Descriptors, Fail, "Can't lookup mount of /secretmem", cureStop, false},
	"device":             {Descriptors, Fail, "Can't dump file of that type (chr or block device)", cureStop, false},
	"tun":                {Descriptors, Fail, "dumps it; the restore says: No tun device for file", cureStop, false},
	"socket-path":        {Descriptors, Fail, "Can't get socket options of a file that is only a path", cureStop, false},
	"foreign-tty":        {Descriptors, Fail, "dumps it; the restore says: Can't open master pty", cureHost, false},
	"outside-file":       {Descriptors, Fail, "Can't lookup mount", cureHost, false},
	"mqueue-open":        {Descriptors, Fail, "Can't lookup mount: message queues are not saved", cureStop, false},
	"deleted-large":      {Descriptors, Fail, "Can't dump ghost file, increase limit", "{stop} or restart it: it holds a deleted file", false},
	"covered-file":       {Descriptors, Fail, "Open files on overmounted mounts are not supported, or: Can't link remap", "{stop} or restart it: something was mounted over its file", false},
	"queued-descriptors": {Descriptors, Warn, "saves them unless it knows their kind not", "{stop} if it does not read them", true},

	// Sockets.
	"mptcp":          {Sockets, Fail, "Unsupported proto 262", "ctctl doctor {CT} --fix turns it off; then restart the program (Go programs: GODEBUG=multipathtcp=0)", false},
	"socket":         {Sockets, Fail, "Unknown socket collected, or: Unsupported proto", cureStop, false},
	"ping":           {Sockets, Warn, "dumps it; the restore fails unless net.ipv4.ping_group_range allows it", "end that ping: {stop}", false},
	"netlink-unread": {Sockets, Warn, "The socket has data to read", "try again; if it never reads its messages: {stop}", true},
	"unix-outside":   {Sockets, Fail, "Can't dump half of stream unix connection", "end the command that was run by exec: kill {other}", false},
	"unix-elsewhere": {Sockets, Warn, "Can't dump half of stream unix connection, unless it has a name", "{stop}, or end who is at the other end", true},

	// Mappings.
	"mapping":        {Mappings, Fail, "Unknown mapping, or: Can't handle non-regular mapping", cureStop, false},
	"mapping-large":  {Mappings, Fail, "Can't dump ghost file, increase limit", "{stop} or restart it: it maps a deleted file", false},
	"mapping-host":   {Mappings, Fail, "Can't lookup mount", cureHost, false},
	"mapping-uprobe": {Mappings, Fail, "process has uprobes vma", "end the tracing tool on the host", false},

	// Mounts.
	"file-system": {Mounts, Fail, "unsupported id: the file system is not one it can make again", cureUmount, false},
	"fuse":        {Mounts, Fail, "FUSE can be neither saved nor made again", cureUmount, false},
	"overlay":     {Mounts, Fail, "dumps it; the restore does not find its layers", cureUmount, false},
	"autofs":      {Mounts, Warn, "saves it only while its daemon is inside and well", cureUmount, false},
	"orphan":      {Mounts, Fail, "doesn't have a proper root mount", cureUmount, false},
	"mqueue":      {Mounts, Fail, "mqueue isn't empty", "ctctl exec {CT} rm {at}/{entry}, after ending its user", false},
	"pstore":      {Mounts, Fail, "pstore isn't empty", cureUmount, false},
}

// fill puts words into the places of a text.
func fill(text string, words map[string]string) string {
	if !strings.Contains(text, "{") {
		return text
	}
	var pairs []string
	for name, value := range words {
		pairs = append(pairs, "{"+name+"}", value)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}
