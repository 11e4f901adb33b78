package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ctctl/ctctl/checkpoint"
	"github.com/ctctl/ctctl/host"
	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func fixedContainers() []containerView {
	return []containerView{
		{
			Name: "web1", Status: "running", UID: "00112233445566aa", CTID: 1, Template: "trixie", Created: noon, Hostname: "web1", Init: "/sbin/init",
			UserNS: "auto", Restart: "no", NAT: true, PID: 4711, Started: &noon, UptimeMS: 93_784_000, Snapshots: 2, Snapshot: "good", Volume: "c-00112233445566aa-1",
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.157.0.2/32"), netip.MustParsePrefix("fd9c::2/128")},
			Limits:    limitsView{CPUs: 1.5, MemoryBytes: 512 << 20, PIDs: 4096, DiskBytes: 4 << 30},
			Usage:     usageView{MemoryBytes: 123_456_789, PIDs: 17, CPUTimeMS: 65_000, DiskBytes: 1 << 30},
		},
		{
			Name: "db, \"x\"", Status: "stopped", Interrupted: true, UID: "ffeeddccbbaa9988", CTID: 2, Template: "min", Created: noon, Hostname: "db",
			Command: []string{"redis-server", "--save", ""}, UserNS: "host", Onboot: true, Restart: "always", Addresses: []netip.Prefix{},
			Volume: "c-ffeeddccbbaa9988-3", LastExit: &exitView{Code: 137, Time: noon},
		},
	}
}

func TestFormats(t *testing.T) {
	list := containerListing(defaultColumns)
	list.items = fixedContainers()
	all := containerListing(strings.Join(columnNames(), ","))
	all.items = fixedContainers()
	one := containerListing(defaultColumns)
	one.single, one.items = true, fixedContainers()[:1]
	none := containerListing(defaultColumns)
	snaps := snapshotListing()
	snaps.items = asTree(fixedSnapshots())
	tmpl := templateListing()
	tmpl.items = []templateView{{Name: "trixie", Suite: "trixie", Packages: []string{"ca-certificates", "redis-server"}, Source: "deb http://x trixie main", Digest: "sha256:" + strings.Repeat("ab", 32), SizeBytes: 123 << 20, Created: noon, Init: "/sbin/init"}}
	find := findingListing([]host.Finding{{Area: "criu", Status: host.Fail, What: "too old", Cure: "make it new"}})
	for _, format := range formats {
		for name, print := range map[string]func(*bytes.Buffer) error{
			"list":      func(b *bytes.Buffer) error { return list.print(b, format) },
			"columns":   func(b *bytes.Buffer) error { return all.print(b, format) },
			"one":       func(b *bytes.Buffer) error { return one.print(b, format) },
			"none":      func(b *bytes.Buffer) error { return none.print(b, format) },
			"snapshots": func(b *bytes.Buffer) error { return snaps.print(b, format) },
			"templates": func(b *bytes.Buffer) error { return tmpl.print(b, format) },
			"findings":  func(b *bytes.Buffer) error { return find.print(b, format) },
		} {
			t.Run(name+"."+format, func(t *testing.T) {
				var b bytes.Buffer
				if err := print(&b); err != nil {
					t.Fatal(err)
				}
				golden(t, name+"."+format, b.Bytes())
				if format == "json" && !json.Valid(b.Bytes()) {
					t.Error("not JSON")
				}
			})
		}
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", "golden", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs; go test -run Formats -update accepts it:\n%s", path, diff)
	}
}

func fixedSnapshots() []snapshotView {
	of := func(name, parent string, memory bool, current string) snapshotView {
		mf := checkpoint.Manifest{Name: name, Parent: parent, Created: noon, Status: "running", Memory: memory}
		if memory {
			mf.Frozen, mf.Files = 74_983*time.Microsecond, []checkpoint.File{{Bytes: 2 << 20}}
		}
		return snapshotOf(mf, current)
	}
	list := []snapshotView{
		of("base", "", true, "d"), of("a", "base", true, "d"), of("b", "a", false, "d"), of("c", "base", true, "d"),
		of("d", "c", true, "d"), of("orphan", "gone", true, "d"), of("x", "y", true, "d"), of("y", "x", true, "d"),
	}
	list[1].Message = "two\nlines \x1b[31mred"
	return list
}

func TestTheTreeKeepsEverySnapshotOnce(t *testing.T) {
	var names []string
	for _, v := range asTree(fixedSnapshots()) {
		names = append(names, v.branch+v.Name)
	}
	want := []string{"base", "|-a", "| `-b", "`-c", "  `-d", "orphan", "x", "`-y"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
}

func TestSortingIsByValueNotByText(t *testing.T) {
	list := []containerView{{Name: "a", Usage: usageView{MemoryBytes: 9 << 20}}, {Name: "b", Usage: usageView{MemoryBytes: 100 << 20}}, {Name: "c"}}
	for order, want := range map[string]string{"name": "abc", "-name": "cba", "memory": "cab", "-memory": "bac"} {
		if err := sortBy(list, containerColumns, order); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, v := range list {
			got += v.Name
		}
		if got != want {
			t.Errorf("by %s: got %s, want %s", order, got, want)
		}
	}
	if err := sortBy(list, containerColumns, "weight"); exitCode(err) != codeUsage {
		t.Errorf("got %v", err)
	}
}

func TestEveryPromisedColumnIsThere(t *testing.T) {
	for _, want := range []string{"name", "status", "ip", "template", "memory", "cpus", "disk", "uptime", "pid", "snapshots", "uid", "onboot", "hostname"} {
		if !slices.Contains(columnNames(), want) {
			t.Errorf("no column %s", want)
		}
	}
}

func TestDurationsHaveASensiblePrecision(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "", 1500 * time.Microsecond: "1.5 ms", 74983 * time.Microsecond: "74 ms", 2500 * time.Millisecond: "2.5 s",
		65 * time.Second: "1m05s", 3*time.Hour + 4*time.Minute: "3h04m", 50 * time.Hour: "2d02h",
	} {
		if got := spanText(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}
