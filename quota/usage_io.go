package quota

import (
	"errors"
	"slices"
	"strconv"
	"strings"
)

// The files of v1 that count transfers: of the throttling policy, which sees
// every disk, with the groups below.
const (
	ioBytesV1  = "blkio.throttle.io_service_bytes_recursive"
	ioCountsV1 = "blkio.throttle.io_serviced_recursive"
)

func (g Group) ioUsage(u *Usage) error {
	dir, v1 := g.dirOf("io")
	file := ioBytesV1
	if !v1 {
		file = "io.stat"
	}
	if dir == "" || !exists(dir+"/"+file) {
		u.Missing = append(u.Missing, "io")
		return nil
	}
	disks := map[string]*IOUsage{}
	var err error
	if v1 {
		err = errors.Join(readIOV1(dir+"/"+ioBytesV1, disks, true), readIOV1(dir+"/"+ioCountsV1, disks, false))
	} else {
		err = readIOStat(dir+"/"+file, disks)
	}
	if err != nil {
		return err
	}
	var l Limits
	if err := g.readIO(&l); err != nil {
		return err
	}
	for number, d := range disks {
		d.Device = deviceName(number)
	}
	for _, limit := range l.IO {
		i := limit
		found := false
		for _, d := range disks {
			if d.Device == limit.Device {
				d.Limit, found = i, true
			}
		}
		if !found {
			disks[limit.Device] = &IOUsage{Device: limit.Device, Limit: i}
		}
	}
	for _, d := range disks {
		d.Limit.Device = d.Device
		u.IO = append(u.IO, *d)
	}
	slices.SortFunc(u.IO, func(a, b IOUsage) int { return strings.Compare(a.Device, b.Device) })
	return nil
}

// diskOf returns the entry of a disk, "254:0".
func diskOf(disks map[string]*IOUsage, number string) *IOUsage {
	if disks[number] == nil {
		disks[number] = new(IOUsage)
	}
	return disks[number]
}

// readIOV1 reads lines like "254:0 Read 4096"; the last one, a total, has no disk.
func readIOV1(path string, disks map[string]*IOUsage, bytes bool) error {
	words, err := readWords(path)
	if err != nil {
		return err
	}
	for len(words) >= 3 && strings.Contains(words[0], ":") {
		n, err := strconv.ParseInt(words[2], 10, 64)
		if err != nil {
			return err
		}
		d := diskOf(disks, words[0])
		switch {
		case words[1] == "Read" && bytes:
			d.ReadBytes = n
		case words[1] == "Read":
			d.Reads = n
		case words[1] == "Write" && bytes:
			d.WriteBytes = n
		case words[1] == "Write":
			d.Writes = n
		}
		words = words[3:]
	}
	return nil
}

// readIOStat reads lines like "254:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0".
func readIOStat(path string, disks map[string]*IOUsage) error {
	s, err := readText(path)
	if err != nil {
		return err
	}
	for line := range strings.Lines(s) {
		words := strings.Fields(line)
		if len(words) < 2 || !strings.Contains(words[0], ":") {
			continue
		}
		d := diskOf(disks, words[0])
		into := map[string]*int64{"rbytes": &d.ReadBytes, "wbytes": &d.WriteBytes, "rios": &d.Reads, "wios": &d.Writes}
		for _, w := range words[1:] {
			key, value, _ := strings.Cut(w, "=")
			if into[key] == nil {
				continue
			}
			if *into[key], err = strconv.ParseInt(value, 10, 64); err != nil {
				return err
			}
		}
	}
	return nil
}
