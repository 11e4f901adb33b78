// Package template makes the read-only root volumes that containers are created
// from: built with mmdebstrap, or imported from an archive or a directory.
//
//	Build                      Import
//	  mmdebstrap                 archive: extracted by descriptor
//	  neutralise                 directory: copied by descriptor
//	        \                   /
//	         working volume "template-ID.work"
//	                  │ snapshot
//	         read-only volume "template-ID" ── digest, size, init
//	                  │ rename
//	         DIR/NAME.json                       ◄── now the template exists
//
// # What survives a crash
//
// A template exists exactly when its NAME.json does, and that file is renamed
// into place as the last step. Before anything is made, NAME.work records the ID
// of the volumes to come; it goes when nothing but the template is left. So what
// an interrupted operation leaves is found without guessing, by [Manager.Sweep]
// or by the next operation on the same name. NAME.lock, which is never removed,
// keeps a sweep away from an operation that is still going on.
//
// mmdebstrap runs as process 1 of a pid namespace and in a mount namespace of
// its own. When it is cancelled, or when this process dies, the kernel ends all
// that it started, and its mounts of /proc and /sys go with them
// (pid_namespaces(7)): nothing writes into, or is mounted in, a volume that is
// to be deleted.
//
// # What a template holds
//
// A built template has no identity: /etc/machine-id is empty, there are no ssh
// host keys, /etc/hostname and /etc/resolv.conf say nothing of the machine it
// was built on. Keys that packages make for themselves stay, because services
// would not start without them: containers made from a template with ssl-cert
// share the key of its self-signed certificate.
//
// An imported template is as its source is, with these exceptions: devices and
// sockets are left out and counted, because containers get a /dev of their own;
// of an archive's extended attributes only security.capability and user.* are
// kept. Set-user-id bits are kept: the roots of containers are id-mapped, and
// the host mounts no template where others could reach it.
//
// # Hostile archives
//
// Names in an archive are followed with openat2(2) and RESOLVE_IN_ROOT (Linux
// 5.6), so that no symbolic link, "..", or magic link leads out; absolute names
// and names with ".." are refused even so. The last element of a name is never
// followed: what is there is unlinked first. The number of entries, the bytes
// and the expansion of a compressed archive are bounded ([Limits]).
package template
