package main

import (
	"testing"

	"github.com/ctctl/ctctl/quota"
	"github.com/google/go-cmp/cmp"
)

func TestEachOfVzctlsTwoLimitsOfTransfersLeavesTheOtherAlone(t *testing.T) {
	before := []quota.IOLimit{{Device: quota.Pool, ReadBPS: 1 << 20, WriteBPS: 1 << 20, ReadIOPS: 500, WriteIOPS: 500}}
	bandwidth := []quota.IOLimit{{Device: quota.Pool, ReadBPS: 1 << 20, WriteBPS: 1 << 20}}
	operations := []quota.IOLimit{{Device: quota.Pool, ReadIOPS: 500, WriteIOPS: 500}}
	for _, test := range []struct {
		flag, value string
		want        []quota.IOLimit
	}{
		{"iolimit", "0", operations},
		{"iolimit", "unlimited", operations},
		{"iolimit", "max", operations},
		{"iopslimit", "0", bandwidth},
		{"iopslimit", "none", bandwidth},
		{"iolimit", "2", []quota.IOLimit{{Device: quota.Pool, ReadBPS: 2 << 20, WriteBPS: 2 << 20, ReadIOPS: 500, WriteIOPS: 500}}},
		{"iopslimit", "7", []quota.IOLimit{{Device: quota.Pool, ReadBPS: 1 << 20, WriteBPS: 1 << 20, ReadIOPS: 7, WriteIOPS: 7}}},
	} {
		for _, p := range limitParsers {
			if p.flag != test.flag {
				continue
			}
			change, err := p.read(test.value)
			if err != nil {
				t.Errorf("--%s %s: %v", test.flag, test.value, err)
				continue
			}
			l := quota.Limits{IO: before}
			change(&l)
			if diff := cmp.Diff(test.want, l.IO); diff != "" {
				t.Errorf("--%s %s: (-want +got)\n%s", test.flag, test.value, diff)
			}
		}
	}
}
