package storage

import (
	"fmt"

	"github.com/docker/go-units"
)

// maxWatermarkBytes bounds what Watermark keeps free.
const maxWatermarkBytes = 1 << 30

// Watermark is the free space in bytes that must remain after an operation:
// a twentieth of the store, at most 1 GiB. A copy-on-write file system that is
// really full can't even delete reliably.
func Watermark(totalBytes int64) int64 {
	return min(max(totalBytes, 0)/20, maxWatermarkBytes)
}

// CheckRoom refuses, with ErrNoSpace and the figures, an operation that would
// write needBytes and leave less than the watermark free.
func CheckRoom(c Capacity, needBytes int64) error {
	needBytes = max(needBytes, 0)
	keep := Watermark(c.TotalBytes)
	if usable := c.FreeBytes - keep; needBytes > usable || usable < 0 {
		return fmt.Errorf("%w: needs %s, and %s of %s are free, of which %s must stay free",
			ErrNoSpace, iec(needBytes), iec(c.FreeBytes), iec(c.TotalBytes), iec(keep))
	}
	return nil
}

func iec(bytes int64) string { return units.BytesSize(float64(max(bytes, 0))) }
