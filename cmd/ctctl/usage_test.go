package main

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/quota"
)

func fixedUsage() container.Usage {
	return container.Usage{
		Name: "web1", Status: container.Running, Since: noon, Until: noon.Add(time.Hour),
		Figures: []container.Figure{
			{Resource: container.ResourceCPU, Limit: 1.5 * container.Millionths, Failures: 1234, CPUTime: 93 * time.Minute},
			{Resource: container.ResourceMemory, Held: 20 << 20, MaxHeld: 512 << 20, Limit: 512 << 20, Failures: 46},
			{Resource: container.ResourceMemoryHigh, Limit: quota.Unlimited},
			{Resource: container.ResourceOOM, Limit: quota.Unlimited, Failures: 2},
			{Resource: container.ResourceSwap, Limit: 0},
			{Resource: container.ResourcePIDs, Held: 17, MaxHeld: 90, Limit: quota.Unlimited},
			{
				Resource: container.ResourceIO + " /dev/vda", Limit: quota.Unlimited, Failures: 3, Read: 3 << 30, Written: 5 << 20,
				IOLimit: quota.IOLimit{Device: "/dev/vda", ReadBPS: 10 << 20, WriteIOPS: 200},
			},
			{Resource: container.ResourceDisk, Held: 1 << 30, MaxHeld: 3 << 30, Limit: 4 << 30},
		},
		Pressure: quota.Pressure{CPU: &quota.Stall{Some: quota.StallTime{Avg10: 12.5, Avg60: 3}}},
		Waited:   map[string]time.Duration{container.ResourceCPU: 90 * time.Second, container.ResourceIO: 0},
		Now:      quota.Usage{Time: noon.Add(time.Hour), Life: "a", CPU: quota.CPUUsage{Time: 93 * time.Minute}},
	}
}

func fixedTop() []topView {
	u := fixedUsage()
	before := u.Now
	before.Time, before.CPU.Time = u.Now.Time.Add(-2*time.Second), u.Now.CPU.Time-time.Second
	first := topOf(u, before)
	first.UptimeMS = 93_784_000
	u.Name, u.Status, u.Figures, u.Now = "b", container.Paused, nil, quota.Usage{}
	return []topView{first, topOf(u, quota.Usage{})}
}

func TestFormatsOfUsage(t *testing.T) {
	top := topListing()
	top.items = fixedTop()
	stopped := container.Usage{Name: "x", Status: container.Stopped, Since: noon, Until: noon, Missing: []string{container.ResourceDisk}}
	for _, format := range formats {
		for name, print := range map[string]func(*bytes.Buffer) error{
			"usage":         func(b *bytes.Buffer) error { return printUsage(b, format, usageOf(fixedUsage())) },
			"usage-stopped": func(b *bytes.Buffer) error { return printUsage(b, format, usageOf(stopped)) },
			"top":           func(b *bytes.Buffer) error { return top.print(b, format) },
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

func TestTimesInDaysAreUnderstood(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"90m": 90 * time.Minute, "24h": 24 * time.Hour, "7d": 7 * 24 * time.Hour, "1.5d": 36 * time.Hour,
		"": 0, "0": 0, "7": 0, "d": 0, "-1d": 0, "1e9d": 0, "NaNd": 0, "Infd": 0,
	} {
		got, err := parseSpan(in)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("%q: got %v, %v", in, got, err)
		}
	}
}
