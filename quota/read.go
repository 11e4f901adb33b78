package quota

import (
	"fmt"
	"math"
)

// Read returns the limits in force, ErrNotFound if the group does not exist.
// Devices are named as the kernel names disks, never Pool. DiskBytes and
// DiskWarnPercent are always 0.
func (g Group) Read() (Limits, error) {
	if err := g.check(); err != nil {
		return Limits{}, err
	}
	if !g.Exists() {
		return Limits{}, fmt.Errorf("read limits: %s: %w", g.name, ErrNotFound)
	}
	var l Limits
	for _, read := range [...]func(*Limits) error{
		g.readMemory, g.readPIDs, g.readCPU, g.readCPUWeight, g.readCPUSet, g.readIO, g.readIOWeight,
	} {
		if err := read(&l); err != nil && !vanished(err) {
			return Limits{}, fmt.Errorf("read limits of %s: %w", g.name, err)
		}
	}
	return l, nil
}

// Effective returns what Read returns when l is in force on this host: rounded
// as the kernel rounds, with the disks for their devices, without what is the
// default, and without DiskBytes and DiskWarnPercent. Errors: ErrBadLimit,
// ErrNoDevice.
func (g Group) Effective(l Limits) (Limits, error) {
	if err := l.Validate(); err != nil {
		return Limits{}, err
	}
	l = l.normal()
	l.DiskBytes, l.DiskWarnPercent = 0, 0
	l.CPUs = math.Round(l.CPUs*cpuPeriod) / cpuPeriod
	l.MemoryBytes, l.MemoryHighBytes, l.MemoryMinBytes = pages(l.MemoryBytes), pages(l.MemoryHighBytes), pages(l.MemoryMinBytes)
	if l.SwapBytes != UnlimitedSwap {
		l.SwapBytes = pages(l.SwapBytes)
	} else if !g.keepsUnlimitedSwap() {
		l.SwapBytes = 0
	}
	if _, _, ok, _ := g.find(cpuSet, false); ok && l.CPUSet != "" {
		set, _ := parseCPUs(l.CPUSet)
		var err error
		if l.CPUSet, err = g.cpuSetOf(set); err != nil {
			return Limits{}, err
		}
	}
	if _, v1, ok, _ := g.find(ioWeight, false); (!ok || v1) && l.IOWeight != 0 {
		l.IOWeight = fromBFQ(bfqWeight(l.IOWeight))
		l = l.normal()
	}
	disks, err := g.byDisk(l.IO)
	if err != nil {
		return Limits{}, err
	}
	l.IO = nil
	for _, d := range disks {
		l.IO = append(l.IO, d)
	}
	return l.normal(), nil
}

// Compare returns how the limits in force differ from those wanted. Errors: as
// of Read and Effective.
func (g Group) Compare(want Limits) ([]Difference, error) {
	have, err := g.Read()
	if err != nil {
		return nil, err
	}
	want, err = g.Effective(want)
	if err != nil {
		return nil, fmt.Errorf("compare limits of %s: %w", g.name, err)
	}
	return want.Diff(have), nil
}
