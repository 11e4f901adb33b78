package btrfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ctctl/ctctl/storage"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// mount is what matters here of a line of proc_pid_mountinfo(5).
type mount struct {
	// device is major:minor of the file system, the same in every namespace.
	device string
	point  string
	kind   string
	source string
	// id and parent number mounts; groups are the peer groups whose mounts and
	// unmounts this one takes part in, as a peer or a slave. shared is the one that
	// it is a peer in, "" when it is in none.
	id, parent int
	shared     string
	groups     []string
}

// readMounts reads a file of the kind of proc_pid_mountinfo(5).
func readMounts(path string) ([]mount, error) {
	b, err := os.ReadFile(path) // whole: what a zombie's gives is no error of the form
	if err != nil {
		return nil, err
	}
	list, err := mountinfo.GetMountsFromReader(bytes.NewReader(b), nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	var all []mount
	for _, m := range list {
		all = append(all, newMount(m))
	}
	return all, nil
}

func newMount(info *mountinfo.Info) mount {
	m := mount{
		device: fmt.Sprintf("%d:%d", info.Major, info.Minor), point: info.Mountpoint, kind: info.FSType, source: info.Source,
		id: info.ID, parent: info.Parent,
	}
	for _, field := range strings.Fields(info.Optional) {
		if group, ok := strings.CutPrefix(field, "shared:"); ok {
			m.shared = group
			m.groups = append(m.groups, group)
		} else if group, ok := strings.CutPrefix(field, "master:"); ok {
			m.groups = append(m.groups, group)
		}
	}
	return m
}

// parentOf returns what a mount is mounted on; the zero mount where that is not
// to be seen.
func parentOf(m mount, all []mount) mount {
	for _, a := range all {
		if a.id == m.parent {
			return a
		}
	}
	return mount{}
}

// topMount is what is mounted at point; the last line is the one on top.
func topMount(point string) (m mount, found bool, err error) {
	all, err := readMounts("/proc/thread-self/mountinfo")
	for _, a := range all {
		if a.point == point {
			m, found = a, true
		}
	}
	return m, found, err
}

// sharedPatience is how long copies of a mount in other mount namespaces may
// take to vanish: whatever starts a container has one for some milliseconds.
const sharedPatience = 5 * time.Second

// waitUnshared waits until nobody else has the file system mounted. Other
// mounts in our own namespace don't go by themselves and are not waited for.
// Copies that came about because what the pool is mounted on is shared, as
// systemd's services with mounts of their own have them, go with our mount.
func waitUnshared(ctx context.Context, own mount) error {
	here, err := readMounts("/proc/thread-self/mountinfo")
	if err != nil {
		return err
	}
	for _, m := range here {
		if m.device == own.device && m.point != own.point {
			return fmt.Errorf("%w: the pool is mounted at %s too", storage.ErrInUse, m.point)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, sharedPatience)
	defer cancel()
	through := parentOf(own, here).shared
	for {
		users, err := mountUsers(own, through)
		if err != nil || len(users) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: the pool is in the mount namespace of process %s too", storage.ErrInUse, strings.Join(users, ", "))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// mountUsers lists processes in other mount namespaces that have the file
// system mounted, one of each namespace. The copies that the peer group through
// has made don't count.
func mountUsers(own mount, through string) (pids []string, err error) {
	ours, err := os.Readlink("/proc/thread-self/ns/mnt")
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{ours: true}
	processes, err := filepath.Glob("/proc/[0-9]*/ns/mnt")
	if err != nil {
		return nil, err
	}
	for _, link := range processes {
		proc := filepath.Dir(filepath.Dir(link))
		holds, err := namespaceHolds(proc, link, own, through, seen)
		if err != nil {
			return nil, err
		}
		if holds {
			pids = append(pids, filepath.Base(proc))
		}
	}
	return pids, nil
}

// namespaceHolds looks at the mount namespace of a process unless it was seen
// already. Processes that end meanwhile hold nothing. Those with capabilities
// that we lack can't be looked into; what they hold shows only after the
// unmount, when the loop device stays busy.
func namespaceHolds(proc, link string, own mount, through string, seen map[string]bool) (bool, error) {
	ns, err := os.Readlink(link)
	if err != nil && unseen(err) || seen[ns] {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	all, err := readMounts(proc + "/mountinfo")
	if err != nil && unseen(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	seen[ns] = true
	for _, m := range all {
		if m.device == own.device && !follows(m, own, all, through) {
			return true, nil
		}
	}
	return false, nil
}

// follows says whether unmounting our own mount unmounts m, of another namespace,
// too: see mount_namespaces(7), "Propagation".
func follows(m, own mount, all []mount, through string) bool {
	return through != "" && m.point == own.point && slices.Contains(parentOf(m, all).groups, through)
}

// unseen covers processes that are gone (ENOENT, ESRCH, and EINVAL, which
// mountinfo of a zombie gives) and those that are not ours to look into.
func unseen(err error) bool {
	for _, e := range []error{fs.ErrNotExist, fs.ErrPermission, unix.ESRCH, unix.EINVAL} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
