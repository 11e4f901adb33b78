package quota

import (
	"fmt"
	"math"
)

// The ranges of limits.
const (
	// MinCPUs is what the kernel's smallest quota, 1 ms in a period of 100 ms, gives.
	MinCPUs = 0.01
	// MaxCPUs is the largest CONFIG_NR_CPUS of Linux on amd64.
	MaxCPUs = 8192
	// MinMemoryBytes catches a forgotten unit ("512" for "512M"); no init runs in less.
	MinMemoryBytes = 4 << 20
	// MinDiskBytes catches a forgotten unit too.
	MinDiskBytes = 1 << 20
	// MaxBytes leaves room for rounding to pages and sectors without overflow.
	MaxBytes = 1<<62 - 1
	// MaxPIDs is PID_MAX_LIMIT of 64-bit Linux: no more tasks can exist.
	MaxPIDs = 4 << 20
)

// Limits are the limits of one group. Zero means no limit.
type Limits struct {
	// CPUs is cpu time per time, in CPUs: 1.5 is one and a half. Resolution 0.00001.
	CPUs float64 `json:"cpus,omitempty"`
	// MemoryBytes bounds memory and swap together. The kernel rounds it down to pages.
	MemoryBytes int64 `json:"memoryBytes,omitempty"`
	// PIDs bounds tasks, that is processes and threads.
	PIDs int64 `json:"pids,omitempty"`
	// DiskBytes is enforced by the storage driver, not by Apply.
	DiskBytes int64 `json:"diskBytes,omitempty"`
}

// Validate returns an error that matches ErrBadLimit if a limit is out of range.
func (l Limits) Validate() error {
	if err := checkCPUs(l.CPUs); err != nil {
		return err
	}
	if err := checkBytes("memory", l.MemoryBytes, MinMemoryBytes); err != nil {
		return err
	}
	if err := checkPIDs(l.PIDs); err != nil {
		return err
	}
	return checkBytes("disk", l.DiskBytes, MinDiskBytes)
}

func checkCPUs(n float64) error {
	switch {
	case n == 0:
		return nil
	case math.IsNaN(n) || n < MinCPUs || n > MaxCPUs:
		return fmt.Errorf("%w: cpus %v is not between %v and %d; 0 is no limit", ErrBadLimit, n, MinCPUs, MaxCPUs)
	}
	return nil
}

func checkPIDs(n int64) error {
	if n < 0 || n > MaxPIDs {
		return fmt.Errorf("%w: pids %d is not between 1 and %d; 0 is no limit", ErrBadLimit, n, MaxPIDs)
	}
	return nil
}

func checkBytes(what string, n, least int64) error {
	switch {
	case n == 0:
		return nil
	case n < 0 || n > MaxBytes:
		return fmt.Errorf("%w: %s %d bytes is not between %d and %d; 0 is no limit", ErrBadLimit, what, n, least, int64(MaxBytes))
	case n < least:
		return fmt.Errorf("%w: %s %d bytes is less than %d MiB; if another unit was meant, write it: %dM",
			ErrBadLimit, what, n, least>>20, n)
	}
	return nil
}
