package criu

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/stats"
	"google.golang.org/protobuf/proto"
)

// DumpStats is what CRIU measured of a dump.
type DumpStats struct {
	// Freezing is how long stopping the tasks took.
	Freezing time.Duration
	// Frozen is how long they were stopped.
	Frozen time.Duration
	// MemDump and MemWrite are the parts of Frozen spent on collecting and
	// on writing memory.
	MemDump, MemWrite time.Duration
	// Pages of 4 KiB (or of the machine's page size).
	PagesScanned, PagesSkippedParent, PagesWritten, PagesLazy uint64
	// ShmemPagesWritten are pages of shared memory.
	ShmemPagesWritten uint64
}

// RestoreStats is what CRIU measured of a restore.
type RestoreStats struct {
	Forking, Restore time.Duration
	PagesRestored    uint64
	PagesCompared    uint64
	PagesSkippedCOW  uint64
}

// ReadDumpStats reads the statistics of the dump whose work directory is dir.
func ReadDumpStats(dir string) (DumpStats, error) {
	st, err := readStats(filepath.Join(dir, stats.StatsDump))
	if err != nil {
		return DumpStats{}, err
	}
	d := st.GetDump()
	return DumpStats{
		Freezing:           microseconds(d.GetFreezingTime()),
		Frozen:             microseconds(d.GetFrozenTime()),
		MemDump:            microseconds(d.GetMemdumpTime()),
		MemWrite:           microseconds(d.GetMemwriteTime()),
		PagesScanned:       d.GetPagesScanned(),
		PagesSkippedParent: d.GetPagesSkippedParent(),
		PagesWritten:       d.GetPagesWritten(),
		PagesLazy:          d.GetPagesLazy(),
		ShmemPagesWritten:  d.GetShpagesWritten(),
	}, nil
}

// ReadRestoreStats reads the statistics of the restore whose work directory
// is dir.
func ReadRestoreStats(dir string) (RestoreStats, error) {
	st, err := readStats(filepath.Join(dir, stats.StatsRestore))
	if err != nil {
		return RestoreStats{}, err
	}
	r := st.GetRestore()
	return RestoreStats{
		Forking:         microseconds(r.GetForkingTime()),
		Restore:         microseconds(r.GetRestoreTime()),
		PagesRestored:   r.GetPagesRestored(),
		PagesCompared:   r.GetPagesCompared(),
		PagesSkippedCOW: r.GetPagesSkippedCow(),
	}, nil
}

func readStats(path string) (*stats.StatsEntry, error) {
	entries, err := readImage(path, magicStats)
	if err != nil {
		return nil, fmt.Errorf("read criu's statistics: %w", err)
	}
	if len(entries) != 1 {
		return nil, fmt.Errorf("read criu's statistics: %s: %w: %d entries", path, ErrBadImage, len(entries))
	}
	st := new(stats.StatsEntry)
	if err := proto.Unmarshal(entries[0], st); err != nil {
		return nil, fmt.Errorf("read criu's statistics: %s: %w: %w", path, ErrBadImage, err)
	}
	return st, nil
}

func microseconds(n uint32) time.Duration { return time.Duration(n) * time.Microsecond }
