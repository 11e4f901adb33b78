// Package container keeps the containers of one host: their configuration and
// state on disk, their life cycle, the supervisor process that each running one
// has, its console, and commands run inside.
//
//	             create                start, restore
//	(nothing) ───────────► stopped ───────────────────► running ◄──► paused
//	    ▲                   │  ▲                          │  │   pause, unpause
//	    └───────────────────┘  └──────────────────────────┘  │
//	         destroy              stop, kill, init ends       │ suspend
//	                           suspended ◄────────────────────┘
//	                               └── resume ──► running
//
// Whether a container runs is never written down: it is read from the kernel
// (is init, by pid and start time, alive?). What is written is what can't be
// read: the configuration, which volume is current, whether a complete image of
// a suspended container waits, and the intent of the operation under way. An
// intent that nobody holds the lock of was interrupted; the next command on the
// container, or repair, settles it first.
//
// The supervisor is the same executable started again (see Supervise). It has
// its own session and its own mount namespace, in which the container's root is
// mounted, so that no host directory ever shows a container's files under a path
// that something else might remove.
package container
