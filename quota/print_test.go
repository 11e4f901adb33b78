package quota

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// every has all limits set.
var every = Limits{
	CPUs: 1.5, CPUWeight: 200, CPUSet: "0-3,6", MemoryBytes: 512 << 20, MemoryHighBytes: 400 << 20, MemoryMinBytes: 64 << 20,
	SwapBytes: 1 << 30, PIDs: 500, IOWeight: 50,
	IO: []IOLimit{
		{Device: "/dev/vdb", ReadIOPS: 2000},
		{Device: Pool, ReadBPS: 10 << 20, WriteBPS: 5000, WriteIOPS: 300},
	},
	DiskBytes: 10 << 30, DiskWarnPercent: 90,
}

func TestLimitsArePrintedAsTheyAreWritten(t *testing.T) {
	const want = "cpus 1.5, cpu-weight 200, cpuset 0-3,6, memory 512M, memory-high 400M, memory-min 64M, swap 1G, pids 500, " +
		"io-weight 50, io-read /dev/vdb=2000iops, io-read pool=10MB/s, io-write pool=5000B/s,300iops, disk 10G, disk-warn 90%"
	if got := every.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := (Limits{}).String(); got != "none" {
		t.Errorf("no limits are %q", got)
	}
	if got := (Limits{MemoryBytes: 1 << 30, SwapBytes: UnlimitedSwap}).String(); got != "memory 1G, swap unlimited" {
		t.Errorf("got %q", got)
	}
}

// parse gives a field back to the parser of its flag.
func parse(l *Limits, f Field) (err error) {
	var io IOSetting
	switch f.Name {
	case "cpus":
		l.CPUs, err = ParseCPUs(f.Value)
	case "cpu-weight":
		l.CPUWeight, err = ParseWeight(f.Value)
	case "cpuset":
		l.CPUSet, err = ParseCPUSet(f.Value)
	case "memory":
		l.MemoryBytes, err = ParseBytes(f.Value)
	case "memory-high":
		l.MemoryHighBytes, err = ParseBytes(f.Value)
	case "memory-min":
		l.MemoryMinBytes, err = ParseBytes(f.Value)
	case "swap":
		l.SwapBytes, err = ParseSwap(f.Value)
	case "pids":
		l.PIDs, err = ParsePIDs(f.Value)
	case "io-weight":
		l.IOWeight, err = ParseWeight(f.Value)
	case "io-read":
		io, err = ParseIO(f.Value)
		l.IO = io.Read(l.IO)
	case "io-write":
		io, err = ParseIO(f.Value)
		l.IO = io.Write(l.IO)
	case "disk":
		l.DiskBytes, err = ParseBytes(f.Value)
	case "disk-warn":
		l.DiskWarnPercent, err = ParsePercent(f.Value)
	default:
		err = fmt.Errorf("no flag for %q", f.Name)
	}
	return err
}

func TestWhatIsPrintedIsReadBack(t *testing.T) {
	for _, want := range []Limits{every, {}, {MemoryBytes: 1 << 30, SwapBytes: UnlimitedSwap}} {
		var got Limits
		for _, f := range want.Fields() {
			if err := parse(&got, f); err != nil {
				t.Error(err)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		b, err := json.Marshal(want)
		var again Limits
		if err := errors.Join(err, json.Unmarshal(b, &again)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, again); diff != "" {
			t.Errorf("as JSON %s:\n%s", b, diff)
		}
	}
}

func TestDiffNamesWhatDiffers(t *testing.T) {
	other := every.Clone()
	other.CPUs, other.SwapBytes, other.PIDs = 2, 0, 0
	other.IO[1].WriteBPS = 0
	other.IO = append(other.IO, IOLimit{Device: "/dev/vdc", WriteIOPS: 1})
	want := []Difference{
		{"cpus", "1.5", "2"},
		{"swap", "1G", ""},
		{"pids", "500", ""},
		{"io-write pool", "5000B/s,300iops", "300iops"},
		{"io-write /dev/vdc", "", "1iops"},
	}
	if diff := cmp.Diff(want, every.Diff(other)); diff != "" {
		t.Error(diff)
	}
	if every.Equal(other) || !every.Equal(every.Clone()) {
		t.Error("Equal and Diff disagree")
	}
	var said []string
	for _, d := range want[:3] {
		said = append(said, d.String())
	}
	if got := strings.Join(said, "; "); got != "cpus is 2, wanted 1.5; swap is not set, wanted 1G; pids is not set, wanted 500" {
		t.Error(got)
	}
}

func TestDiffComparesByMeaning(t *testing.T) {
	for _, pair := range [][2]Limits{
		{{CPUWeight: 100, IOWeight: 100}, {}},
		{{SwapBytes: UnlimitedSwap}, {}},
		{{IO: []IOLimit{{Device: "/dev/a", ReadBPS: 5000}, {Device: "/dev/b", ReadBPS: 5000}}}, {IO: []IOLimit{{Device: "/dev/b", ReadBPS: 5000}, {Device: "/dev/a", ReadBPS: 5000}}}},
		{{IO: []IOLimit{{Device: "/dev/a"}}}, {}},
		{{CPUSet: "3,0-2"}, {CPUSet: "0-3"}},
	} {
		if diff := pair[0].Diff(pair[1]); len(diff) > 0 {
			t.Errorf("%+v and %+v: %v", pair[0], pair[1], diff)
		}
	}
}

func TestParseIOReadsWhatAdminsWrite(t *testing.T) {
	n := func(v int64) *int64 { return &v }
	for in, want := range map[string]IOSetting{
		"pool=10MB/s":                {Pool, n(10 << 20), nil},
		"pool=10M":                   {Pool, n(10 << 20), nil},
		" pool = 1.5 MiB/s ":         {Pool, n(3 << 19), nil},
		"/dev/vda=2000iops":          {"/dev/vda", nil, n(2000)},
		"/dev/vda=2000 IOPS, 8k/sec": {"/dev/vda", n(8192), n(2000)},
		"/dev/disk/by-id/a-b_c=0":    {"/dev/disk/by-id/a-b_c", n(0), n(0)},
		"pool=none":                  {Pool, n(0), n(0)},
		"pool=0iops":                 {Pool, nil, n(0)},
		"pool=0B/s":                  {Pool, n(0), nil},
	} {
		got, err := ParseIO(in)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%q: %v\n%s", in, err, diff)
		}
	}
	for _, in := range append([]string{
		"pool", "pool=", "=10M", "pool=10", "pool=10bps", "pool=10Mbit/s", "pool=1.5iops", "pool=1k", "pool=/s", "pool=10M/s,20M", "pool=10M,",
		"vda=10M", "/dev/=10M", "/dev/../etc/passwd=10M", "/etc=10M", "pool=4294967295iops", "pool=8E/s", "pool=-1M",
	}, garbage...) {
		if got, err := ParseIO(in); !errors.Is(err, ErrBadLimit) || len(err.Error()) > 350 {
			t.Errorf("%q: %+v, %v", in, got, err)
		}
	}
}

func TestAnIOSettingChangesOneDirectionOfOneDevice(t *testing.T) {
	list := []IOLimit{{Device: Pool, ReadBPS: 5000, WriteIOPS: 7}}
	apply := func(s string, f func(IOSetting, []IOLimit) []IOLimit) []IOLimit {
		t.Helper()
		set, err := ParseIO(s)
		if err != nil {
			t.Fatal(err)
		}
		return f(set, list)
	}
	for s, want := range map[string][]IOLimit{
		"pool=9iops":     {{Device: Pool, ReadBPS: 5000, ReadIOPS: 9, WriteIOPS: 7}},
		"pool=none":      {{Device: Pool, WriteIOPS: 7}},
		"/dev/vda=1iops": {list[0], {Device: "/dev/vda", ReadIOPS: 1}},
		"/dev/vda=0":     list,
	} {
		if diff := cmp.Diff(want, apply(s, IOSetting.Read)); diff != "" {
			t.Errorf("%s: %s", s, diff)
		}
	}
	if got := apply("pool=0", IOSetting.Write); !cmp.Equal(got, []IOLimit{{Device: Pool, ReadBPS: 5000}}) {
		t.Errorf("%+v", got)
	}
	if list[0].WriteIOPS != 7 || len(list) != 1 {
		t.Error("the list that was given was changed")
	}
	list = list[:0]
	if got := apply("pool=0", IOSetting.Write); got != nil {
		t.Errorf("%+v", got)
	}
}

func TestTheOtherParsersReadWhatAdminsWrite(t *testing.T) {
	whole := func(parse func(string) (int64, error)) func(string) (any, error) {
		return func(s string) (any, error) { n, err := parse(s); return n, err }
	}
	for name, p := range map[string]struct {
		parse func(string) (any, error)
		good  map[string]any
		bad   []string
	}{
		"weight": {whole(ParseWeight), map[string]any{"1": int64(1), " 100 ": int64(100), "10000": int64(10000), "0": int64(0), "default": int64(0)}, []string{"10001", "1.5", "50%", "max"}},
		"percent": {
			whole(ParsePercent),
			map[string]any{"90%": int64(90), "90 %": int64(90), "1": int64(1), "100": int64(100), "0": int64(0), "none": int64(0)},
			[]string{"101%", "1.5%", "max", "5 percent"},
		},
		"swap": {whole(ParseSwap), map[string]any{"1G": int64(1 << 30), "0": int64(0), "unlimited": int64(-1), "max": int64(-1)}, []string{"none", "-1", "512", "5E"}},
		"cpuset": {
			func(s string) (any, error) { c, err := ParseCPUSet(s); return c, err },
			map[string]any{"0-3,6": "0-3,6", "6, 0-2,3": "0-3,6", "5": "5", "1,1,1": "1", "0,2,4": "0,2,4", "all": "", "none": "", "8191": "8191"},
			[]string{"3-1", "1-", "-1", "a", "0-8192", "1,,2", "1 2", "0x1", "0-8191,0-8191,0-8191,0-8191,0-8191", strings.Repeat("1,", 5000) + "1"},
		},
	} {
		for in, want := range p.good {
			if got, err := p.parse(in); err != nil || got != want {
				t.Errorf("%s %q: %v, %v, want %v", name, in, got, err, want)
			}
		}
		for _, in := range append(p.bad, garbage...) {
			if in == "-1" && name == "swap" || strings.Trim(in, "0123456789") == "" && in != "" && name == "cpuset" && len(in) < 5 {
				continue
			}
			if got, err := p.parse(in); !errors.Is(err, ErrBadLimit) || len(err.Error()) > 300 {
				t.Errorf("%s takes %q as %v, %v", name, in, got, err)
			}
		}
	}
}

func TestValidateRefusesLimitsThatContradictEachOther(t *testing.T) {
	for _, l := range []Limits{
		{CPUWeight: -1},
		{CPUWeight: 10001},
		{IOWeight: 10001},
		{CPUSet: "3-1"},
		{CPUSet: "1,0"}, // to be written 0-1
		{SwapBytes: 1 << 30},
		{MemoryBytes: 1 << 30, SwapBytes: -2},
		{MemoryBytes: 1 << 30, SwapBytes: 100},
		{MemoryBytes: MaxBytes, SwapBytes: MaxBytes},
		{MemoryBytes: 1 << 30, MemoryHighBytes: 2 << 30},
		{MemoryBytes: 1 << 30, MemoryMinBytes: 2 << 30},
		{MemoryHighBytes: 1 << 30, MemoryMinBytes: 2 << 30},
		{MemoryHighBytes: -1},
		{MemoryMinBytes: 5},
		{DiskWarnPercent: 101},
		{DiskWarnPercent: -1},
		{IO: []IOLimit{{Device: Pool}}},
		{IO: []IOLimit{{Device: "vda", ReadBPS: 5000}}},
		{IO: []IOLimit{{Device: "", ReadBPS: 5000}}},
		{IO: []IOLimit{{Device: "/dev/x/../../etc", ReadBPS: 5000}}},
		{IO: []IOLimit{{Device: Pool, ReadBPS: 4095}}},
		{IO: []IOLimit{{Device: Pool, WriteBPS: -1}}},
		{IO: []IOLimit{{Device: Pool, ReadIOPS: -1}}},
		{IO: []IOLimit{{Device: Pool, WriteIOPS: MaxIOPS + 1}}},
		{IO: []IOLimit{{Device: Pool, ReadIOPS: 1}, {Device: Pool, ReadIOPS: 1}}},
		{IO: make([]IOLimit, MaxIODevices+1)},
	} {
		if err := l.Validate(); !errors.Is(err, ErrBadLimit) {
			t.Errorf("%+v: %v, want ErrBadLimit", l, err)
		}
	}
	for _, l := range []Limits{every, {SwapBytes: UnlimitedSwap}, {MemoryBytes: 1 << 30, MemoryHighBytes: 1 << 30, MemoryMinBytes: 1 << 30}} {
		if err := l.Validate(); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
}
