// Package criu drives CRIU: it is the only importer of go-criu.
//
// An [Engine] names a CRIU binary. Each operation starts `criu swrk`, the
// worker that libcriu uses, on one end of a SOCK_SEQPACKET pair and speaks
// CRIU's protobuf messages over the other end. go-criu's own client is not
// used, because it cannot pass descriptors to the worker, drops those that
// come back with a notification, reads at most 8 KiB and leaves its socket
// open across exec; only its generated message types are.
//
//	caller            this package                        criu swrk
//	  │ Dump/Restore ───▶ │ start, (restore: Place(pid)) ──────▶ │
//	  │                   │ request ───────────────────────────▶ │
//	  │ ◀── Notify(ev) ── │ ◀───────────── notification [+ fd] ─ │
//	  │ ── nil or err ──▶ │ ── notify_success ─────────────────▶ │  repeated
//	  │                   │ ◀────────────────────────── answer ─ │
//	  │ ◀── result, ───── │ wait for the worker, read its log    │
//	  │     *Error        │                                      │
//
// A dump or restore is not interrupted when the caller's context ends: a
// worker that dies in the middle can leave connections in repair mode. Only
// its deadline ends it, and that thaws the tasks first, because a worker
// stuck in ptrace attach on a frozen task cannot even be killed.
//
// Notifications come in this order. Dump: pre-dump, network-lock,
// query-ext-files, post-dump, network-unlock (only when the tasks go on).
// Restore: pre-restore, setup-namespaces (with the pid),
// post-setup-namespaces, post-restore (with the pid), network-unlock,
// pre-resume, post-resume; orphan-pts-master brings a descriptor.
//
// Some of what CRIU dumps it can't restore, or not on a copy of the root that it was
// dumped from: [FixImages] rewrites that in the images after a dump, each case with
// the versions of CRIU that need it.
//
// CRIU reads no configuration file and nothing of the caller's environment: both can
// name scripts or plugins that it would run as root. Plugins in the directory that it
// was built with are loaded; that is root's own.
package criu
