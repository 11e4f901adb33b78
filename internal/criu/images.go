package criu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/creds"
	criu_core "github.com/checkpoint-restore/go-criu/v7/crit/images/criu-core"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/pstree"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/userns"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// SeccompMode is a thread's seccomp mode, numbered as in /proc/PID/status.
type SeccompMode int

// The seccomp modes.
const (
	SeccompDisabled SeccompMode = 0
	SeccompStrict   SeccompMode = 1
	SeccompFilter   SeccompMode = 2
)

// TaskCreds is what one thread in an image may do once it is restored. All
// ids are those inside the tree's namespaces.
type TaskCreds struct {
	PID, TID int
	Comm     string
	// UIDs and GIDs are the real, effective, saved and file system id.
	UIDs, GIDs [4]uint32
	Groups     []uint32
	// Capability sets, bit n being capability n (capabilities(7)).
	Inheritable, Permitted, Effective, Bounding, Ambient uint64
	SecureBits                                           uint32
	Seccomp                                              SeccompMode
	NoNewPrivs                                           bool
}

// IDMap is a line of a uid_map or gid_map (user_namespaces(7)).
type IDMap struct {
	ContainerID, HostID, Count uint32
}

// InspectTasks reads the credentials of all threads of an image directory, to
// be compared with what the container may have: a restore gives tasks
// whatever the images say. Zombies are left out: nothing of them is restored
// but how they ended. The error is [ErrBadImage] for malformed files.
func InspectTasks(images string) ([]TaskCreds, error) {
	entries, err := readImage(filepath.Join(images, "pstree.img"), magicPstree)
	if err != nil {
		return nil, fmt.Errorf("inspect the images: %w", err)
	}
	var tasks []TaskCreds
	for _, b := range entries {
		var e pstree.PstreeEntry
		if err := proto.Unmarshal(b, &e); err != nil {
			return nil, fmt.Errorf("inspect the images: pstree.img: %w: %w", ErrBadImage, err)
		}
		threads, err := inspectTask(images, &e)
		if err != nil {
			return nil, fmt.Errorf("inspect the images: %w", err)
		}
		tasks = append(tasks, threads...)
	}
	return tasks, nil
}

// taskDead is the state of a zombie in its core image.
const taskDead = 2

func inspectTask(images string, e *pstree.PstreeEntry) ([]TaskCreds, error) {
	var threads []TaskCreds
	tids := slices.DeleteFunc(e.GetThreads(), func(tid uint32) bool { return tid == e.GetPid() })
	for i, tid := range append([]uint32{e.GetPid()}, tids...) {
		path := filepath.Join(images, fmt.Sprintf("core-%d.img", tid))
		core, err := readCore(path)
		if err != nil {
			return nil, err
		}
		if i == 0 && core.GetTc().GetTaskState() == taskDead {
			return nil, nil // nor does its entry have thread ids: CRIU leaves them unset
		}
		t, err := threadCreds(path, core)
		if err != nil {
			return nil, err
		}
		t.PID, t.TID = int(e.GetPid()), int(tid)
		threads = append(threads, t)
	}
	return threads, nil
}

func readCore(path string) (*criu_core.CoreEntry, error) {
	entries, err := readImage(path, magicCore)
	if err != nil {
		return nil, err
	}
	if len(entries) != 1 {
		return nil, fmt.Errorf("%s: %w: %d entries", path, ErrBadImage, len(entries))
	}
	core := new(criu_core.CoreEntry)
	if err := proto.Unmarshal(entries[0], core); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, ErrBadImage, err)
	}
	return core, nil
}

func threadCreds(path string, core *criu_core.CoreEntry) (TaskCreds, error) {
	t := TaskCreds{Comm: escape(core.GetThreadCore().GetComm())}
	if t.Comm == "" {
		t.Comm = escape(core.GetTc().GetComm())
	}
	// The mode moved from the task to the thread; an old image has it there.
	t.Seccomp = SeccompMode(max(core.GetThreadCore().GetSeccompMode(), core.GetTc().GetOldSeccompMode()))
	c := core.GetThreadCore().GetCreds()
	if c == nil {
		// A zombie has none.
		if core.GetThreadCore() != nil {
			return TaskCreds{}, fmt.Errorf("%s: %w: no credentials", path, ErrBadImage)
		}
		return t, nil
	}
	return t, t.fill(path, c)
}

func (t *TaskCreds) fill(path string, c *creds.CredsEntry) error {
	t.UIDs = [4]uint32{c.GetUid(), c.GetEuid(), c.GetSuid(), c.GetFsuid()}
	t.GIDs = [4]uint32{c.GetGid(), c.GetEgid(), c.GetSgid(), c.GetFsgid()}
	t.Groups = c.GetGroups()
	t.SecureBits = c.GetSecbits()
	newer, err := newerCreds(c.ProtoReflect().GetUnknown())
	if err != nil {
		return fmt.Errorf("%s: %w: %w", path, ErrBadImage, err)
	}
	t.NoNewPrivs = newer.noNewPrivs
	for _, set := range []struct {
		to    *uint64
		words []uint32
	}{
		{&t.Inheritable, c.GetCapInh()},
		{&t.Permitted, c.GetCapPrm()},
		{&t.Effective, c.GetCapEff()},
		{&t.Bounding, c.GetCapBnd()},
		{&t.Ambient, newer.ambient},
	} {
		if len(set.words) > 2 {
			return fmt.Errorf("%s: %w: capability set of %d words", path, ErrBadImage, len(set.words))
		}
		for i, w := range set.words {
			*set.to |= uint64(w) << (32 * i)
		}
	}
	return nil
}

// credsNewer are fields of CRIU's creds_entry that go-criu v7 does not know.
type credsNewer struct {
	noNewPrivs bool
	ambient    []uint32
}

// newerCreds decodes no_new_privs = 18 and cap_amb = 19.
func newerCreds(b []byte) (n credsNewer, err error) {
	for len(b) > 0 {
		num, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return n, protowire.ParseError(size)
		}
		b = b[size:]
		if typ != protowire.VarintType || (num != 18 && num != 19) {
			if num == 18 || num == 19 {
				return n, errors.New("a field of another type")
			}
			if size = protowire.ConsumeFieldValue(num, typ, b); size < 0 {
				return n, protowire.ParseError(size)
			}
			b = b[size:]
			continue
		}
		v, size := protowire.ConsumeVarint(b)
		if size < 0 {
			return n, protowire.ParseError(size)
		}
		b = b[size:]
		if num == 18 {
			n.noNewPrivs = v != 0
		} else {
			n.ambient = append(n.ambient, uint32(v))
		}
	}
	return n, nil
}

// InspectUserNS reads the id maps of the tree's user namespace; both are nil
// when the tree has none of its own. CRIU dumps no nested ones, so more than
// one is an error.
func InspectUserNS(images string) (uids, gids []IDMap, err error) {
	path, err := usernsFile(images)
	if err != nil || path == "" {
		return nil, nil, err
	}
	e, err := readUserNS(path)
	if err != nil {
		return nil, nil, err
	}
	return idMaps(e.GetUidMap()), idMaps(e.GetGidMap()), nil
}

// usernsFile returns the path of the image of the user namespace, or "".
func usernsFile(images string) (string, error) {
	entries, err := os.ReadDir(images)
	if err != nil {
		return "", fmt.Errorf("inspect the images: %w", err)
	}
	var found []string
	for _, entry := range entries {
		if name := entry.Name(); strings.HasPrefix(name, "userns-") && strings.HasSuffix(name, ".img") {
			found = append(found, filepath.Join(images, name))
		}
	}
	switch len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0], nil
	}
	return "", fmt.Errorf("inspect the images: %w: %d user namespaces", ErrBadImage, len(found))
}

func readUserNS(path string) (*userns.UsernsEntry, error) {
	messages, err := readImage(path, magicUserns)
	if err != nil {
		return nil, fmt.Errorf("inspect the images: %w", err)
	}
	if len(messages) != 1 {
		return nil, fmt.Errorf("inspect the images: %s: %w: %d entries", path, ErrBadImage, len(messages))
	}
	e := new(userns.UsernsEntry)
	if err := proto.Unmarshal(messages[0], e); err != nil {
		return nil, fmt.Errorf("inspect the images: %s: %w: %w", path, ErrBadImage, err)
	}
	return e, nil
}

func idMaps(extents []*userns.UidGidExtent) []IDMap {
	maps := make([]IDMap, 0, len(extents))
	for _, x := range extents {
		maps = append(maps, IDMap{ContainerID: x.GetFirst(), HostID: x.GetLowerFirst(), Count: x.GetCount()})
	}
	return maps
}

// RebaseUserNS rewrites the id maps in the images for a clone: each host id
// range that begins in [from, from+count) moves by to-from. Ranges outside
// are an error, for the clone would share ids with something else. It does
// nothing when the tree has no user namespace of its own.
func RebaseUserNS(images string, from, to, count uint32) error {
	path, err := usernsFile(images)
	if err != nil || path == "" {
		return err
	}
	e, err := readUserNS(path)
	if err != nil {
		return err
	}
	for _, x := range slices.Concat(e.GetUidMap(), e.GetGidMap()) {
		first := x.GetLowerFirst()
		if first < from || uint64(first)+uint64(x.GetCount()) > uint64(from)+uint64(count) {
			return fmt.Errorf("rebase %s: host ids %d to %d are not among those of the container", path, first, uint64(first)+uint64(x.GetCount())-1)
		}
		x.LowerFirst = proto.Uint32(first - from + to)
	}
	b, err := proto.Marshal(e)
	if err != nil {
		return fmt.Errorf("rebase %s: %w", path, err)
	}
	return replaceImage(path, encodeImage(magicUserns, b))
}

// MakeReadable gives an image directory and its files the modes a restore
// into a user namespace needs: there CRIU opens images as the namespace's
// root, who is nobody outside. The directory gets 0711 and the images 0644,
// so the directory above must be 0700.
func MakeReadable(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !entry.Type().IsRegular() || !strings.HasSuffix(entry.Name(), ".img") {
			continue
		}
		if err := os.Chmod(filepath.Join(dir, entry.Name()), 0o644); err != nil {
			return fmt.Errorf("make images readable: %w", err)
		}
	}
	return os.Chmod(dir, 0o711)
}

// replaceImage puts new contents in the place of an image, mode and owner
// kept, so that a crash leaves the old or the new one.
func replaceImage(path string, data []byte) (err error) {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".rewrite-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once renamed
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(st.Mode().Perm()), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("rewrite %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}
