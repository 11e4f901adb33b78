package quota

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The throttling files of v1: one for each of the four rates, in the order of
// rates.
var throttleFiles = [...]string{
	"blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device",
	"blkio.throttle.read_iops_device", "blkio.throttle.write_iops_device",
}

var throttle = knob{limit: "io", controller: "io", v1: throttleFiles[0], v2: "io.max"}

// rateKeys are the same in a line of io.max.
var rateKeys = [...]string{"rbps", "wbps", "riops", "wiops"}

// rates returns where the four rates are.
func (l *IOLimit) rates() [4]*int64 {
	return [4]*int64{&l.ReadBPS, &l.WriteBPS, &l.ReadIOPS, &l.WriteIOPS}
}

// byDisk resolves the devices. Two entries that mean the same disk contradict
// each other.
func (g Group) byDisk(list []IOLimit) (map[string]IOLimit, error) {
	disks, named := map[string]IOLimit{}, map[string]string{}
	for _, l := range list {
		numbers, err := g.disks(l.Device)
		if err != nil {
			return nil, err
		}
		for _, n := range numbers {
			if other, twice := named[n]; twice {
				return nil, fmt.Errorf("%w: io limits of %s and %s are of the same disk %s; keep one",
					ErrBadLimit, other, l.Device, deviceName(n))
			}
			named[n] = l.Device
			own := l
			own.Device = deviceName(n)
			disks[n] = own
		}
	}
	return disks, nil
}

// planIO takes the limits of all other disks away.
func (g Group) planIO(l Limits) ([]step, error) {
	file, v1, ok, err := g.find(throttle, len(l.IO) > 0)
	if !ok {
		return nil, err
	}
	wanted, err := g.byDisk(l.IO)
	if err != nil {
		return nil, err
	}
	have, err := readThrottles(file, v1)
	if err != nil {
		return nil, err
	}
	for number := range have {
		if _, stays := wanted[number]; !stays {
			wanted[number] = IOLimit{}
		}
	}
	var steps []step
	for _, number := range slices.Sorted(maps.Keys(wanted)) {
		limit := wanted[number]
		if limit == have[number] {
			continue
		}
		steps = append(steps, throttleSteps(file, v1, number, limit)...)
	}
	return steps, nil
}

func throttleSteps(file string, v1 bool, number string, l IOLimit) []step {
	explain := func(err error) error {
		if errors.Is(err, unix.ENODEV) || errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %s: the kernel limits no such disk: %w", ErrNoDevice, deviceName(number), err)
		}
		return err
	}
	if !v1 {
		words := []string{number}
		for i, n := range l.rates() {
			words = append(words, rateKeys[i]+"="+maxOr(*n))
		}
		return []step{{
			limit: "io", file: file, value: strings.Join(words, " "), key: number,
			none: "rbps=max wbps=max riops=max wiops=max", explain: explain,
		}}
	}
	var steps []step
	dir := strings.TrimSuffix(file, throttleFiles[0])
	for i, n := range l.rates() {
		steps = append(steps, step{
			limit: "io", file: dir + throttleFiles[i], value: number + " " + strconv.FormatInt(*n, 10),
			key: number, none: "0", explain: explain,
		})
	}
	return steps
}

// maxOr writes 0 as cgroup2 writes no limit.
func maxOr(n int64) string {
	if n == 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

// readThrottles returns the limits by disk, with the device's name.
func readThrottles(file string, v1 bool) (map[string]IOLimit, error) {
	disks := map[string]IOLimit{}
	if !v1 {
		s, err := readText(file)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(s) {
			number, limit, err := parseIOMax(line)
			if err != nil {
				return nil, err
			}
			disks[number] = limit
		}
		return withNames(disks), nil
	}
	dir := strings.TrimSuffix(file, throttleFiles[0])
	for i, name := range throttleFiles {
		words, err := readWords(dir + name)
		if err != nil {
			return nil, err
		}
		for pair := range slices.Chunk(words, 2) {
			n, err := parseThrottle(pair)
			if err != nil {
				return nil, err
			}
			limit := disks[pair[0]]
			*limit.rates()[i] = n
			disks[pair[0]] = limit
		}
	}
	return withNames(disks), nil
}

// withNames leaves out what limits nothing.
func withNames(disks map[string]IOLimit) map[string]IOLimit {
	for number, l := range disks {
		if l.unlimited() {
			delete(disks, number)
			continue
		}
		l.Device = deviceName(number)
		disks[number] = l
	}
	return disks
}

// parseThrottle reads "254:0 1048576".
func parseThrottle(pair []string) (int64, error) {
	if len(pair) != 2 || !strings.Contains(pair[0], ":") {
		return 0, fmt.Errorf("read the io limits: unexpected %q", pair)
	}
	return strconv.ParseInt(pair[1], 10, 64)
}

// parseIOMax reads "254:0 rbps=1048576 wbps=max riops=max wiops=120".
func parseIOMax(line string) (number string, l IOLimit, err error) {
	words := strings.Fields(line)
	if len(words) == 0 || !strings.Contains(words[0], ":") {
		return "", IOLimit{}, fmt.Errorf("read the io limits: unexpected %q", line)
	}
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		i := slices.Index(rateKeys[:], key)
		if i < 0 || value == "max" {
			continue
		}
		if *l.rates()[i], err = strconv.ParseInt(value, 10, 64); err != nil {
			return "", IOLimit{}, fmt.Errorf("read the io limits: unexpected %q", line)
		}
	}
	return words[0], l, nil
}

func (g Group) readIO(l *Limits) error {
	file, v1, ok, err := g.find(throttle, false)
	if !ok {
		return err
	}
	disks, err := readThrottles(file, v1)
	for _, d := range disks {
		l.IO = append(l.IO, d)
	}
	slices.SortFunc(l.IO, func(a, b IOLimit) int { return strings.Compare(a.Device, b.Device) })
	return err
}

// bfqWeight maps a weight of io to the range of the BFQ scheduler, as systemd
// does (BFQ_WEIGHT in src/basic/cgroup-util.h): 1 to 1000, where 100 is the
// default of both.
func bfqWeight(n int64) int64 {
	if n <= DefaultWeight {
		return n
	}
	return DefaultWeight + (n-DefaultWeight)*(1000-DefaultWeight)/(MaxWeight-DefaultWeight)
}

// fromBFQ is a weight that bfqWeight maps to n.
func fromBFQ(n int64) int64 {
	if n <= DefaultWeight {
		return n
	}
	return DefaultWeight + (n-DefaultWeight)*(MaxWeight-DefaultWeight)/(1000-DefaultWeight)
}

// The weight of io is a matter of the disk's scheduler: io.weight is that of
// io.cost, which has to be turned on for a disk, and BFQ has its own. Cgroup2 may
// have both, v1 has BFQ's only.
var (
	ioWeight = knob{
		limit: "io-weight", controller: "io", v1: "blkio.bfq.weight", v2: "io.weight",
		cure: "load the module bfq, or use io-read and io-write",
	}
	ioWeightBFQ = knob{limit: "io-weight", controller: "io", v2: "io.bfq.weight", cure: ioWeight.cure}
)

func (g Group) planIOWeight(l Limits) ([]step, error) {
	weight := l.IOWeight
	if weight == 0 {
		weight = DefaultWeight
	}
	var steps []step
	bfq, _, hasBFQ, err := g.find(ioWeightBFQ, false)
	if err != nil {
		return nil, err
	}
	if hasBFQ {
		steps = append(steps, step{limit: "io-weight", file: bfq, value: fmt.Sprint("default ", bfqWeight(weight)), key: "default", none: "100"})
	}
	file, v1, ok, err := g.find(ioWeight, l.IOWeight != 0 && !hasBFQ)
	switch {
	case !ok:
		return steps, err
	case v1:
		return []step{{limit: "io-weight", file: file, value: fmt.Sprint(bfqWeight(weight))}}, nil
	}
	return append(steps, step{limit: "io-weight", file: file, value: fmt.Sprint("default ", weight), key: "default", none: "100"}), nil
}

func (g Group) readIOWeight(l *Limits) error {
	for _, k := range [...]knob{ioWeight, ioWeightBFQ} {
		file, v1, ok, err := g.find(k, false)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		n, err := readWeight(file)
		if v1 || k == ioWeightBFQ {
			n = fromBFQ(n)
		}
		if n != DefaultWeight {
			l.IOWeight = n
		}
		return err
	}
	return nil
}

// readWeight reads "100", or "default 100" with lines for single disks.
func readWeight(file string) (int64, error) {
	words, err := readWords(file)
	if err != nil {
		return 0, err
	}
	for i, w := range words {
		if w == "default" && i+1 < len(words) {
			return strconv.ParseInt(words[i+1], 10, 64)
		}
	}
	if len(words) == 0 {
		return 0, fmt.Errorf("read %s: it is empty", file)
	}
	return strconv.ParseInt(words[0], 10, 64)
}
