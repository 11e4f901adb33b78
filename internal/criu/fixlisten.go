package criu

import (
	"context"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	skunix "github.com/checkpoint-restore/go-criu/v7/crit/images/sk-unix"
)

// listening is the state TCP_LISTEN, which unix sockets share (sock_diag(7)).
const listening = 10

// listenersFirst moves listening unix sockets to the front of files.img where a
// client that waits to be accepted comes before its listener.
//
// CRIU (4.2.1, criu/sk-unix.c) looks a socket's peer up while it reads files.img, when
// it comes to the socket and, if the peer names it as its own peer, when it comes to
// the peer. A listener names nobody: a client in its queue that comes first stays
// without peer, and the restore fails with `unix: FATAL: Peer X unresolved`. For
// other one-sided peers the dump itself waits with the entry; for these it does not.
func (f *fixer) listenersFirst(context.Context) error {
	early := f.earlyClients()
	if early == 0 {
		return nil
	}
	var entries [2][][]byte
	var files [2][]*fdinfo.FileEntry
	for i, e := range f.files {
		at := 1
		if isListener(e.GetUsk()) {
			at = 0
		}
		entries[at], files[at] = append(entries[at], f.entries[i]), append(files[at], e)
	}
	f.entries, f.files = append(entries[0], entries[1]...), append(files[0], files[1]...)
	f.changed = true
	f.note(FixListener, filesName, "%d listening unix sockets come first, because of %d clients that came before theirs", len(files[0]), early)
	return nil
}

func isListener(s *skunix.UnixSkEntry) bool { return s != nil && s.GetState() == listening }

// earlyClients counts the sockets that come before the listener they wait for.
func (f *fixer) earlyClients() (n int) {
	waiting := map[uint32]int{} // by the listener's inode number
	for _, e := range f.files {
		s := e.GetUsk()
		if s == nil {
			continue
		}
		if isListener(s) {
			n += waiting[s.GetIno()]
		} else if s.GetPeer() != 0 {
			waiting[s.GetPeer()]++
		}
	}
	return n
}
