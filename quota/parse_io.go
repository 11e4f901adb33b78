package quota

import (
	"fmt"
	"slices"
	"strings"
)

// IOSetting is what one setting of a direction says: "pool=10MB/s" or
// "/dev/vda=2000iops".
type IOSetting struct {
	Device string
	BPS    *int64 // bytes per second; nil leaves it as it is, 0 takes it away
	IOPS   *int64 // operations per second; likewise
}

// ParseIO reads DEVICE=RATE. The device is a path in /dev or Pool. The rate is
// "10MB/s", "512KiB/s", "10M" (powers of 1024) or "2000iops", or both with a
// comma between. "0", "none", "unlimited" and "max" take both away. Errors match
// ErrBadLimit.
func ParseIO(s string) (IOSetting, error) {
	const cure = `write DEVICE=10MB/s, DEVICE=2000iops or both with a comma, DEVICE being /dev/… or pool; DEVICE=0 is no limit`
	device, rates, ok := strings.Cut(s, "=")
	set := IOSetting{Device: strings.TrimSpace(device)}
	if !ok || strings.TrimSpace(rates) == "" {
		return IOSetting{}, badLimit("io", s, "is not DEVICE=RATE", cure)
	}
	if err := checkDevice(set.Device); err != nil {
		return IOSetting{}, err
	}
	if r := strings.TrimSpace(rates); unlimited(r) || r == "0" {
		set.BPS, set.IOPS = new(int64), new(int64)
		return set, nil
	}
	for rate := range strings.SplitSeq(rates, ",") {
		n, operations, err := parseRate(strings.TrimSpace(rate), cure)
		if err != nil {
			return IOSetting{}, err
		}
		where := &set.BPS
		if operations {
			where = &set.IOPS
		}
		if *where != nil {
			return IOSetting{}, badLimit("io", s, "says two rates of a kind", cure)
		}
		*where = &n
	}
	return set, nil
}

// parseRate demands a unit: a bare number could be either.
func parseRate(s, cure string) (n int64, operations bool, err error) {
	num, unit, ok := splitNumber(s)
	if !ok {
		return 0, false, badLimit("io rate", s, "is not a number with a unit", cure)
	}
	unit = strings.ToLower(unit)
	switch unit {
	case "iops", "io/s", "ops", "ops/s":
		if !num.IsInt() || !num.Num().IsInt64() || num.Num().Int64() > MaxIOPS {
			return 0, false, badLimit("io rate", s, fmt.Sprintf("is not a whole number up to %d", int64(MaxIOPS)), cure)
		}
		return num.Num().Int64(), true, nil
	case "":
		return 0, false, badLimit("io rate", s, "has no unit: bytes or operations?", cure)
	}
	shift, ok := unitShift(strings.TrimSuffix(strings.TrimSuffix(unit, "/s"), "/sec"))
	if !ok || unit == "/s" || unit == "/sec" {
		return 0, false, badLimit("io rate", s, fmt.Sprintf("has the unknown unit %q", unit), cure)
	}
	n, why := scaled(num, shift)
	switch {
	case why != "":
		return 0, false, badLimit("io rate", s, why, cure)
	case n != 0 && n < MinIOBytes:
		return 0, false, badLimit("io rate", s, fmt.Sprintf("is less than %d bytes per second", MinIOBytes), cure)
	}
	return n, false, nil
}

// Read returns the list with the setting in force for reading.
func (s IOSetting) Read(list []IOLimit) []IOLimit {
	return s.change(list, func(l *IOLimit) (bps, iops *int64) { return &l.ReadBPS, &l.ReadIOPS })
}

// Write returns the list with the setting in force for writing.
func (s IOSetting) Write(list []IOLimit) []IOLimit {
	return s.change(list, func(l *IOLimit) (bps, iops *int64) { return &l.WriteBPS, &l.WriteIOPS })
}

// change leaves the given list alone and entries that limit nothing out.
func (s IOSetting) change(list []IOLimit, fields func(*IOLimit) (bps, iops *int64)) []IOLimit {
	out := slices.Clone(list)
	i := slices.IndexFunc(out, func(l IOLimit) bool { return l.Device == s.Device })
	if i < 0 {
		i = len(out)
		out = append(out, IOLimit{Device: s.Device})
	}
	bps, iops := fields(&out[i])
	if s.BPS != nil {
		*bps = *s.BPS
	}
	if s.IOPS != nil {
		*iops = *s.IOPS
	}
	out = slices.DeleteFunc(out, IOLimit.unlimited)
	if len(out) == 0 {
		return nil
	}
	return out
}
