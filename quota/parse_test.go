package quota

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func TestParseBytesReadsWhatAdminsWrite(t *testing.T) {
	for in, want := range map[string]int64{
		"512M": 512 << 20, "512m": 512 << 20, "512MB": 512 << 20, "512MiB": 512 << 20, "512Mi": 512 << 20,
		"2GiB": 2 << 30, "2 GiB": 2 << 30, "1.5G": 3 << 29, " 1.5G\n": 3 << 29, "0.5T": 1 << 39,
		"64k": 64 << 10, "1P": 1 << 50, "3E": 3 << 60, "1048576": 1 << 20, "1048576B": 1 << 20,
		"0.3G": 322122547, "0": 0, "0G": 0, "none": 0, "Unlimited": 0, "max": 0,
		"4611686018427387903": MaxBytes,
	} {
		if got, err := ParseBytes(in); err != nil || got != want {
			t.Errorf("ParseBytes(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
}

var garbage = []string{
	"", " ", "-1", "-1G", "+1G", "1,5G", "1e9", "0x10", "1_000", "NaN", "nan", "Inf", "-Inf", "infinity", "1..5G",
	".5G", "5.G", "1.5.5", "1G1", "1G extra", "G", "1X", "1KK", "1Gx", "½G", "１G", "1\x00G", "1G\x00", "1/2", "1G;ls",
	strings.Repeat("9", 100), "1" + strings.Repeat("0", 5000) + "G",
}

func TestParsersRefuseGarbageAndNameTheCure(t *testing.T) {
	for name, p := range map[string]struct {
		parse func(string) error
		more  []string
	}{
		"bytes": {func(s string) error { _, err := ParseBytes(s); return err }, []string{
			"4E", "5E", "16E", "4611686018427387904", "9223372036854775808", "18446744073709551616", "1.5", "0.1", "1.5B", "0.0001K", "150%", "2 cores",
		}},
		"cpus": {func(s string) error { _, err := ParseCPUs(s); return err }, []string{
			"1G", "500m", "0.001", "8193", "1%%", "0.0000000000000000000000000000000000001", "1 corez", "819201%",
		}},
		"pids": {func(s string) error { _, err := ParsePIDs(s); return err }, []string{
			"1.5", "1k", "4194305", "9223372036854775808", "10%",
		}},
	} {
		for _, in := range append(p.more, garbage...) {
			err := p.parse(in)
			if !errors.Is(err, ErrBadLimit) {
				t.Errorf("%s: %q gives %v, want ErrBadLimit", name, in, err)
				continue
			}
			if s := err.Error(); !strings.Contains(s, "0 is no limit") || len(s) > 300 {
				t.Errorf("%s: the error for %q should be short and name the cure: %s", name, in, s)
			}
		}
	}
}

func TestParseCPUsReadsWhatAdminsWrite(t *testing.T) {
	for in, want := range map[string]float64{
		"1.5": 1.5, "1.5 cores": 1.5, "1core": 1, "2 cpus": 2, "1 CPU": 1, "150%": 1.5, "150 %": 1.5, "12.5%": 0.125,
		"0.01": 0.01, "8192": 8192, "0": 0, "0%": 0, "none": 0, "max": 0,
	} {
		if got, err := ParseCPUs(in); err != nil || got != want {
			t.Errorf("ParseCPUs(%q) = %v, %v, want %v", in, got, err, want)
		}
	}
}

func TestParsePIDsReadsWhatAdminsWrite(t *testing.T) {
	for in, want := range map[string]int64{"512": 512, " 1 ": 1, "4194304": MaxPIDs, "0": 0, "max": 0, "unlimited": 0} {
		if got, err := ParsePIDs(in); err != nil || got != want {
			t.Errorf("ParsePIDs(%q) = %d, %v, want %d", in, got, err, want)
		}
	}
}

func TestValidateRefusesWhatIsOutOfRange(t *testing.T) {
	good := []Limits{
		{},
		{CPUs: 0.01, MemoryBytes: 4 << 20, PIDs: 1, DiskBytes: 1 << 20},
		{CPUs: MaxCPUs, MemoryBytes: MaxBytes, PIDs: MaxPIDs, DiskBytes: MaxBytes},
	}
	for _, l := range good {
		if err := l.Validate(); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
	bad := []Limits{
		{CPUs: -1},
		{CPUs: 0.001},
		{CPUs: MaxCPUs + 1},
		{CPUs: math.NaN()},
		{CPUs: math.Inf(1)},
		{CPUs: math.Inf(-1)},
		{MemoryBytes: -1},
		{MemoryBytes: 512},
		{MemoryBytes: MaxBytes + 1},
		{MemoryBytes: math.MinInt64},
		{PIDs: -1},
		{PIDs: MaxPIDs + 1},
		{DiskBytes: -1},
		{DiskBytes: 100},
		{DiskBytes: math.MaxInt64},
	}
	for _, l := range bad {
		if err := l.Validate(); !errors.Is(err, ErrBadLimit) {
			t.Errorf("%+v: %v, want ErrBadLimit", l, err)
		}
	}
	if err := (Limits{MemoryBytes: 512}).Validate(); !strings.Contains(err.Error(), "512M") {
		t.Errorf("%v does not propose 512M", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range append([]string{"512M", "1.5G", "150%", "2 cores", "max", "0", "0-3,6", "pool=10MB/s,20iops", "/dev/vda=0"}, garbage...) {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := ParseBytes(s); err == nil {
			if n < 0 || n > MaxBytes {
				t.Errorf("ParseBytes(%q) = %d", s, n)
			}
			if again, err := ParseBytes(FormatBytes(n)); err != nil || again != n {
				t.Errorf("%d is formatted as %s, which is read as %d, %v", n, FormatBytes(n), again, err)
			}
		} else if n != 0 || !errors.Is(err, ErrBadLimit) {
			t.Errorf("ParseBytes(%q) = %d, %v", s, n, err)
		}
		if n, err := ParseCPUs(s); err == nil {
			if err := (Limits{CPUs: n}).Validate(); err != nil {
				t.Errorf("ParseCPUs(%q) = %v: %v", s, n, err)
			}
		} else if !errors.Is(err, ErrBadLimit) {
			t.Errorf("ParseCPUs(%q): %v", s, err)
		}
		if n, err := ParsePIDs(s); err == nil {
			if err := (Limits{PIDs: n}).Validate(); err != nil {
				t.Errorf("ParsePIDs(%q) = %v: %v", s, n, err)
			}
		}
		if n, err := ParseSwap(s); err == nil {
			if err := (Limits{SwapBytes: n, MemoryBytes: MinMemoryBytes}).Validate(); err != nil && n <= MaxBytes-MinMemoryBytes {
				t.Errorf("ParseSwap(%q) = %v: %v", s, n, err)
			}
		}
		if set, err := ParseCPUSet(s); err == nil {
			if err := (Limits{CPUSet: set}).Validate(); err != nil {
				t.Errorf("ParseCPUSet(%q) = %q: %v", s, set, err)
			}
		}
		if set, err := ParseIO(s); err == nil {
			if err := (Limits{IO: set.Write(set.Read(nil))}).Validate(); err != nil {
				t.Errorf("ParseIO(%q) = %+v: %v", s, set, err)
			}
		}
	})
}

func FuzzReadingOfKernelFiles(f *testing.F) {
	f.Add("1 (a) S 1")
	f.Add("1 (a) b) (c) D")
	f.Add("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw")
	f.Add("max 100000")
	f.Add(")(")
	f.Add("254:0 rbps=1048576 wbps=max riops=max wiops=120")
	f.Add("some avg10=0.12 avg60=3 avg300=100.00 total=1234567")
	f.Add("0-3,6")
	f.Fuzz(func(_ *testing.T, s string) {
		_, _ = parseStat(1, s)
		_, _ = parseMounts(strings.NewReader(s))
		_, _ = parseCPUMax(s)
		_, _, _ = parseIOMax(s)
		_, _ = parseStall(s)
		_, _ = parseCPUs(s)
	})
}

func TestParseStatTakesTheLastBracket(t *testing.T) {
	got, err := parseStat(7, "7 (a) R (\n) D 1 7 7")
	if want := (Task{PID: 7, Command: `a) R (\n`, State: 'D'}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, s := range []string{"", "7", "7 (", "7 (a", "7 a)", "7 (a)", "7 (a) "} {
		if _, err := parseStat(7, s); err == nil {
			t.Errorf("%q is taken", s)
		}
	}
}
