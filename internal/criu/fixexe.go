package criu

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/checkpoint-restore/go-criu/v7/crit/images/fdinfo"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/fown"
	"github.com/checkpoint-restore/go-criu/v7/crit/images/mm"
	remap "github.com/checkpoint-restore/go-criu/v7/crit/images/remap-file-path"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// magicMM marks mm-PID.img, a task's memory layout and program.
const magicMM = 0x57492820

// separateExes gives tasks whose program shares its entry in files.img with an
// O_PATH descriptor an entry of its own.
//
// CRIU (4.2.1, criu/cr-dump.c, dump_task_exe_link) takes for the program of a task
// the id of any descriptor of the same file that it has dumped before, whatever that
// was opened for. Restoring it opens the program like that, and an O_PATH descriptor
// is none for PR_SET_MM_MAP: `prctl PR_SET_MM_MAP failed with -9`. systemd since 256
// starts all its children from an O_PATH descriptor of systemd-executor and keeps it.
func (f *fixer) separateExes(context.Context) error {
	byID := map[uint32]*fdinfo.FileEntry{}
	opened := false
	for _, e := range f.files {
		if isPathOnly(e) {
			byID[e.GetId()] = e
			opened = true
		}
	}
	if !opened {
		return nil
	}
	tasks, err := f.exesAmong(byID)
	if err != nil || len(tasks) == 0 {
		return err
	}
	own := map[uint32]uint32{} // the new id for an old one
	for _, t := range tasks {
		if own[t.was] == 0 {
			if own[t.was], err = f.addExe(byID[t.was]); err != nil {
				return err
			}
		}
	}
	// First what is referred to: an entry that nobody uses yet does no harm.
	if err := f.save(); err != nil {
		return err
	}
	if err := f.copyRemaps(own); err != nil {
		return err
	}
	for _, t := range tasks {
		if err := f.giveExe(t, own[t.was]); err != nil {
			return err
		}
		f.note(FixExe, t.name, "%s has id %#x, no longer that of an O_PATH descriptor", byID[t.was].GetReg().GetName(), own[t.was])
	}
	return nil
}

// giveExe writes another id of its program to a task's image.
func (f *fixer) giveExe(t exeTask, id uint32) error {
	t.entry.ExeFileId = proto.Uint32(id)
	b, err := proto.Marshal(t.entry)
	if err != nil {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	return replaceImage(filepath.Join(f.dir, t.name), encodeImage(magicMM, b))
}

func isPathOnly(e *fdinfo.FileEntry) bool {
	return e.GetReg() != nil && e.GetReg().GetFlags()&unix.O_PATH != 0
}

// exeTask is an image that names a task's program.
type exeTask struct {
	name  string
	was   uint32 // the program's id when it was dumped
	entry *mm.MmEntry
}

// exesAmong returns the tasks whose program is one of these files.
func (f *fixer) exesAmong(byID map[uint32]*fdinfo.FileEntry) (tasks []exeTask, err error) {
	dir, err := os.ReadDir(f.dir)
	if err != nil {
		return nil, err
	}
	for _, d := range dir {
		name := d.Name()
		if !strings.HasPrefix(name, "mm-") || filepath.Ext(name) != ".img" || !d.Type().IsRegular() {
			continue
		}
		entries, err := readImageLimited(filepath.Join(f.dir, name), magicMM)
		if err != nil {
			return nil, err
		}
		if len(entries) != 1 {
			return nil, fmt.Errorf("%s: %w: %d entries", name, ErrBadImage, len(entries))
		}
		e := new(mm.MmEntry)
		if err := proto.Unmarshal(entries[0], e); err != nil {
			return nil, fmt.Errorf("%s: %w: %w", name, ErrBadImage, err)
		}
		if byID[e.GetExeFileId()] != nil {
			tasks = append(tasks, exeTask{name, e.GetExeFileId(), e})
		}
	}
	return tasks, nil
}

// addExe copies an open file as CRIU would have stored it for a program alone:
// opened for reading, no owner.
func (f *fixer) addExe(e *fdinfo.FileEntry) (uint32, error) {
	id, err := f.freeID()
	if err != nil {
		return 0, err
	}
	c := proto.CloneOf(e)
	c.Id, c.Reg.Id = proto.Uint32(id), proto.Uint32(id)
	c.Reg.Flags, c.Reg.Pos = proto.Uint32(0), proto.Uint64(0)
	none := proto.Uint32(0)
	c.Reg.Fown = &fown.FownEntry{Uid: none, Euid: none, Signum: none, PidType: none, Pid: none}
	return id, f.add(c)
}

// copyRemaps lets new entries of deleted files lead to the same contents as the
// old ones.
func (f *fixer) copyRemaps(ids map[uint32]uint32) error {
	const name = "remap-fpath.img"
	path := filepath.Join(f.dir, name)
	entries, err := readImageLimited(path, magicRemap)
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	had := len(entries)
	for _, b := range entries[:had] {
		var e remap.RemapFilePathEntry
		if err := proto.Unmarshal(b, &e); err != nil {
			return fmt.Errorf("%s: %w: %w", name, ErrBadImage, err)
		}
		id := ids[e.GetOrigId()]
		if id == 0 {
			continue
		}
		e.OrigId = proto.Uint32(id)
		if b, err = proto.Marshal(&e); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		entries = append(entries, b)
	}
	if len(entries) == had {
		return nil
	}
	return replaceImage(path, encodeImage(magicRemap, entries...))
}
