package quota

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Field is one limit as text.
type Field struct {
	Name  string // as the flag of ctctl set is called: "memory-high"
	Value string // as the parser of that flag reads it: "512M"
}

// Fields returns the limits that are set, in a fixed order. A device that is
// limited in both directions has a field for each.
func (l Limits) Fields() []Field {
	var list []Field
	add := func(name, value string, set bool) {
		if set {
			list = append(list, Field{name, value})
		}
	}
	whole := func(n int64) string { return strconv.FormatInt(n, 10) }
	add("cpus", FormatCPUs(l.CPUs), l.CPUs != 0)
	add("cpu-weight", whole(l.CPUWeight), l.CPUWeight != 0)
	add("cpuset", l.CPUSet, l.CPUSet != "")
	add("memory", FormatBytes(l.MemoryBytes), l.MemoryBytes != 0)
	add("memory-high", FormatBytes(l.MemoryHighBytes), l.MemoryHighBytes != 0)
	add("memory-min", FormatBytes(l.MemoryMinBytes), l.MemoryMinBytes != 0)
	add("swap", FormatSwap(l.SwapBytes), l.SwapBytes != 0)
	add("pids", whole(l.PIDs), l.PIDs != 0)
	add("io-weight", whole(l.IOWeight), l.IOWeight != 0)
	for _, d := range l.IO {
		add("io-read", d.Device+"="+formatRates(d.ReadBPS, d.ReadIOPS), d.ReadBPS != 0 || d.ReadIOPS != 0)
		add("io-write", d.Device+"="+formatRates(d.WriteBPS, d.WriteIOPS), d.WriteBPS != 0 || d.WriteIOPS != 0)
	}
	add("disk", FormatBytes(l.DiskBytes), l.DiskBytes != 0)
	add("disk-warn", whole(l.DiskWarnPercent)+"%", l.DiskWarnPercent != 0)
	return list
}

// String returns for example "cpus 1.5, memory 512M, pids 100"; "none" without
// any limit.
func (l Limits) String() string {
	var parts []string
	for _, f := range l.Fields() {
		parts = append(parts, f.Name+" "+f.Value)
	}
	return cmp.Or(strings.Join(parts, ", "), "none")
}

// FormatCPUs returns n in the shortest form that ParseCPUs reads back to n.
func FormatCPUs(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

// FormatSwap returns n in a form that ParseSwap reads back to n.
func FormatSwap(n int64) string {
	if n == UnlimitedSwap {
		return "unlimited"
	}
	return FormatBytes(n)
}

// formatRates returns what follows the device in ParseIO.
func formatRates(bps, iops int64) string {
	var parts []string
	if bps != 0 {
		parts = append(parts, FormatBytes(bps)+"B/s")
	}
	if iops != 0 {
		parts = append(parts, strconv.FormatInt(iops, 10)+"iops")
	}
	return cmp.Or(strings.Join(parts, ","), "0")
}

// Difference is a limit that is not as it should be.
type Difference struct {
	Name string `json:"name"` // like Field.Name; of io with the device: "io-read /dev/vda"
	Want string `json:"want"` // "" is no limit, or the default
	Have string `json:"have"`
}

// String returns for example "memory is 512M, wanted 1G".
func (d Difference) String() string {
	return d.Name + " is " + cmp.Or(d.Have, "not set") + ", wanted " + cmp.Or(d.Want, "not set")
}

// Diff compares by meaning, in the order of Fields: a weight of 100 is the
// default, the order of devices does not count, and swap counts only with a
// memory limit. It does not know of rounding and of device names that mean the
// same disk: Group.Compare does.
func (l Limits) Diff(have Limits) []Difference {
	wanted, found := l.normal().Fields(), have.normal().Fields()
	value := func(list []Field, name string) string {
		i := slices.IndexFunc(list, func(f Field) bool { return f.key() == name })
		if i < 0 {
			return ""
		}
		return list[i].shown()
	}
	var names []string
	for _, f := range append(slices.Clone(wanted), found...) {
		if !slices.Contains(names, f.key()) {
			names = append(names, f.key())
		}
	}
	var diff []Difference
	for _, n := range names {
		if d := (Difference{Name: n, Want: value(wanted, n), Have: value(found, n)}); d.Want != d.Have {
			diff = append(diff, d)
		}
	}
	return diff
}

// Equal tells that both mean the same, as Diff sees it.
func (l Limits) Equal(other Limits) bool { return len(l.Diff(other)) == 0 }

// key and shown move the device from the value to the name.
func (f Field) key() string {
	if device, _, ok := strings.Cut(f.Value, "="); ok {
		return f.Name + " " + device
	}
	return f.Name
}

func (f Field) shown() string {
	if _, rates, ok := strings.Cut(f.Value, "="); ok {
		return rates
	}
	return f.Value
}

// normal writes what means the same in one way.
func (l Limits) normal() Limits {
	l = l.Clone()
	if l.CPUWeight == DefaultWeight {
		l.CPUWeight = 0
	}
	if l.IOWeight == DefaultWeight {
		l.IOWeight = 0
	}
	if l.MemoryBytes == 0 {
		l.SwapBytes = 0
	}
	if c, err := ParseCPUSet(l.CPUSet); err == nil {
		l.CPUSet = c
	}
	l.IO = slices.DeleteFunc(l.IO, IOLimit.unlimited)
	slices.SortFunc(l.IO, func(a, b IOLimit) int { return strings.Compare(a.Device, b.Device) })
	if len(l.IO) == 0 {
		l.IO = nil
	}
	return l
}
