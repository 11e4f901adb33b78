package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/ctctl/ctctl/internal/runc"
	"github.com/ctctl/ctctl/quota"
)

// CgroupFile is beside CRIU's images, like NetworkFile: what the container has made
// of its own cgroup, a quota.Tree as JSON. A container without one has no file.
const CgroupFile = "ctctl-cgroups.img"

// cgroupLimit is more bytes than any quota.Tree has.
const cgroupLimit = 64 << 20

// cgroupVersion is of the file; a newer one may have what must not be left out.
const cgroupVersion = 1

type cgroupRecord struct {
	Version int `json:"version"`
	quota.Tree
}

// WriteCgroups puts the record of a container's own cgroups beside its images.
func WriteCgroups(images string, t quota.Tree) error {
	if len(t.Dirs) == 0 {
		return nil
	}
	b, err := json.Marshal(cgroupRecord{Version: cgroupVersion, Tree: t})
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(images, CgroupFile), b, 0o600)
}

// readCgroups reads CgroupFile; the tree is empty where there is none.
func readCgroups(images string) (quota.Tree, error) {
	f, err := os.Open(filepath.Join(images, CgroupFile))
	if errors.Is(err, os.ErrNotExist) {
		return quota.Tree{}, nil
	}
	if err != nil {
		return quota.Tree{}, err
	}
	defer f.Close()
	var r cgroupRecord
	dec := json.NewDecoder(io.LimitReader(f, cgroupLimit))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return quota.Tree{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	if r.Version != cgroupVersion {
		return quota.Tree{}, fmt.Errorf("%s: version %d is not known", f.Name(), r.Version)
	}
	return r.Tree, nil
}

// CgroupIDs is the range of ids that the container's cgroups belong to.
func (c Config) CgroupIDs() quota.IDs { return cgroupIDs(c.IDs()) }

func cgroupIDs(r *runc.IDRange) quota.IDs {
	if r == nil {
		return quota.IDs{}
	}
	return quota.IDs{Base: r.Base, Size: r.Size}
}

// ownCgroups are those of a container that is being restored, around CRIU's own
// work: it makes only the ones with tasks, and without their owners.
type ownCgroups struct {
	group quota.Group
	tree  quota.Tree
	ids   quota.IDs // of the container now
	log   *slog.Logger
}

// makeCgroups makes the directories, before there is a process to be in them.
func (s *supervisor) makeCgroups(req launchRequest, rt *runc.Restored) (*ownCgroups, error) {
	o := &ownCgroups{group: s.group, ids: cgroupIDs(req.Spec.IDs), log: s.log}
	var err error
	if o.tree, err = readCgroups(req.Image.Dir); err != nil {
		return nil, err
	}
	if rt.Delegates() != (len(o.tree.Dirs) > 0) {
		return nil, errors.New("the image's record of cgroups does not fit its description of the container")
	}
	if !rt.Delegates() {
		return o, nil
	}
	if err := s.group.Make(); err != nil {
		return nil, err
	}
	return o, s.group.MakeTree(o.tree, o.ids)
}

// roots tell CRIU where the top of the dumped tree is now, as far as it is not where
// CRIU itself is.
func (o *ownCgroups) roots() map[string]string {
	if len(o.tree.Dirs) == 0 {
		return nil
	}
	return map[string]string{"": filepath.Join(o.group.Name(), quota.Own)}
}

// enable turns controllers on when init has gone down from the top to its own
// cgroup. Before, it could not have passed through; later, what processes watch
// would not be there to be opened.
func (o *ownCgroups) enable() error {
	missing, err := o.group.EnableTree(o.tree, o.ids)
	if len(missing) > 0 {
		o.log.Warn("cgroup controllers that were enabled inside are not here", "controllers", missing)
	}
	return err
}

// set is for when all tasks are there and none has run.
func (o *ownCgroups) set() error {
	refused, err := o.group.SetTree(o.tree)
	for _, what := range refused {
		o.log.Warn("of the cgroups inside this does not come back", "what", what)
	}
	return err
}

// clear removes what only CRIU was in.
func (o *ownCgroups) clear(ctx context.Context) {
	if len(o.tree.Dirs) == 0 {
		return
	}
	if err := o.group.RemoveRestorer(ctx); err != nil { // it goes with the container then
		o.log.Warn("clean up after the restore", "err", err)
	}
}
