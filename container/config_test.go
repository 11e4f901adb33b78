package container

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/ctctl/ctctl/netns"
	"github.com/ctctl/ctctl/profile"
	"github.com/ctctl/ctctl/quota"
	"github.com/google/go-cmp/cmp"
	"github.com/moby/sys/mountinfo"
)

func valid() Config {
	return Config{
		Name: "web1", UID: "0123456789abcdef", CTID: 7, Template: "debian", Hostname: "web1", Command: []string{"/bin/sh"},
		UserNS: "auto", Limits: quota.Limits{PIDs: 100}, Network: Network{Interfaces: []netns.Interface{{Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.7/32")}}}},
	}
}

func TestValidateNamesTheFieldThatIsWrong(t *testing.T) {
	if err := valid().Validate(); err != nil {
		t.Fatalf("a good configuration is refused: %v", err)
	}
	for _, tt := range []struct {
		want string
		set  func(*Config)
	}{
		{"uid", func(c *Config) { c.UID = "0123" }},
		{"ctid", func(c *Config) { c.CTID = 0 }},
		{"ctid", func(c *Config) { c.CTID = maxCTID + 1 }},
		{"userns", func(c *Config) { c.UserNS = "private" }},
		{"restart", func(c *Config) { c.Restart = "sometimes" }},
		{"stopTimeoutSeconds", func(c *Config) { c.StopTimeout = -1 }},
		{"stopSignal", func(c *Config) { c.StopSignal = "SIGNOPE" }},
		{"profile.checkpointable", func(c *Config) { c.Profile.Checkpointable = "maybe" }},
		{"profile.without", func(c *Config) { c.Profile.Without = []string{"no-io-uring", "no-such-entry"} }},
		{"workdir", func(c *Config) { c.Workdir = "srv" }},
		{"command", func(c *Config) { c.Command = nil }},
		{"command[0]", func(c *Config) { c.Command = []string{""} }},
		{"hostname", func(c *Config) { c.Hostname = "a b" }},
		{"hostname", func(c *Config) { c.Hostname = "" }},
		{"env[1]", func(c *Config) { c.Env = []string{"A=1", "B"} }},
		{"limits", func(c *Config) { c.Limits.PIDs = -1 }},
		{"network.interfaces[0].addresses[1]", func(c *Config) {
			first := &c.Network.Interfaces[0]
			first.Addresses = append(first.Addresses, first.Addresses[0])
		}},
		{"network.interfaces[0].addresses[0]", func(c *Config) { c.Network.Interfaces[0].Addresses = []netip.Prefix{{}} }},
	} {
		c := valid()
		tt.set(&c)
		err := c.Validate()
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), ": "+tt.want+": ") {
			t.Errorf("want an error of field %s, got %v", tt.want, err)
		}
	}
}

func TestTheDelegatedCgroupHasOneName(t *testing.T) {
	if profile.Leaf != quota.Own {
		t.Errorf("the profile has %q, quota %q", profile.Leaf, quota.Own)
	}
}

func TestNamesAreLimitedToWhatEveryLayerCanCarry(t *testing.T) {
	for _, good := range []string{"a", "0", "web-1", strings.Repeat("a", 63)} {
		if err := CheckName(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "-a", "A", "a_b", "a.b", "../x", "a/b", "a b", "ä", "a\n", strings.Repeat("a", 64)} {
		if err := CheckName(bad); !errors.Is(err, ErrName) {
			t.Errorf("%q: want ErrName, got %v", bad, err)
		}
	}
}

func TestIDRangesDoNotOverlapAndStayBelowTheSignBit(t *testing.T) {
	c := valid()
	c.CTID = 1
	first := c.IDs()
	c.CTID = 2
	if second := c.IDs(); second.Base != first.Base+first.Size {
		t.Errorf("ranges %+v and %+v are not side by side", first, second)
	}
	c.CTID = maxCTID
	if last := c.IDs(); uint64(last.Base)+uint64(last.Size) > 0x7FFE0000 {
		t.Errorf("the last range ends at %#x", uint64(last.Base)+uint64(last.Size))
	}
	c.UserNS = "host"
	if c.IDs() != nil {
		t.Error("a container in the host's user namespace has an id range")
	}
}

func TestAutomaticAddressesFollowTheNumber(t *testing.T) {
	a := AutoNetwork{V4: netip.MustParsePrefix("10.157.0.0/16"), V6: netip.MustParsePrefix("fd9c::/64")}
	for ctid, want := range map[uint32][]string{
		1:    {"10.157.0.2/32", "fd9c::2/128"},
		254:  {"10.157.0.255/32", "fd9c::ff/128"},
		255:  {"10.157.1.0/32", "fd9c::100/128"},
		4093: {"10.157.15.254/32", "fd9c::ffe/128"},
	} {
		var got []string
		for _, p := range a.addresses(ctid) {
			got = append(got, p.String())
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("ctid %d: %s", ctid, d)
		}
	}
	if got := (AutoNetwork{}).addresses(1); len(got) != 0 {
		t.Errorf("without prefixes there are addresses: %v", got)
	}
}

func TestSignalsAreReadInEverySpelling(t *testing.T) {
	for s, want := range map[string]syscall.Signal{
		"TERM": 15, "SIGTERM": 15, "sigterm": 15, "15": 15, "9": 9, "RTMIN": 34, "SIGRTMIN+3": 37, "RTMIN+30": 64,
	} {
		got, err := ParseSignal(s)
		if err != nil || got != want {
			t.Errorf("%q: want %d, got %d, %v", s, want, got, err)
		}
	}
	for _, s := range []string{"", "0", "65", "-1", "NOPE", "RTMIN+31", "RTMIN-1", "RTMINx", "SIG"} {
		if got, err := ParseSignal(s); err == nil {
			t.Errorf("%q is read as %d", s, got)
		}
	}
}

func TestTheUsualStopSignalFitsWhatPID1Is(t *testing.T) {
	for _, tt := range []struct {
		system  bool
		program string
		want    syscall.Signal
	}{
		{false, "redis-server", 15}, {false, "systemd", 15}, {true, "systemd", 37}, {true, "busybox", 12}, {true, "init", 0},
	} {
		if got := usualStop(tt.system, tt.program); got != tt.want {
			t.Errorf("%+v: got %d", tt, got)
		}
	}
}

func TestNumbersGoRoundAndSkipThoseInUse(t *testing.T) {
	used := map[uint32]bool{2: true, 4093: true, 1: true}
	for _, tt := range []struct {
		last, want uint32
	}{{0, 3}, {2, 3}, {3, 4}, {4091, 4092}, {4092, 3}} {
		if got, ok := nextFree(tt.last, used); !ok || got != tt.want {
			t.Errorf("after %d: want %d, got %d", tt.last, tt.want, got)
		}
	}
	for i := range uint32(maxCTID) {
		used[i+1] = true
	}
	if got, ok := nextFree(7, used); ok {
		t.Errorf("all are used, but %d is given", got)
	}
}

func TestForeignPoolsAreTheOthersOnly(t *testing.T) {
	info := `100 1 0:50 / /var/lib/ctctl/pool rw,noatime - btrfs /dev/loop0 rw
101 1 0:51 / /srv/other/pool rw,noatime - btrfs /dev/loop1 rw
102 1 0:52 / /srv/pool rw - btrfs /dev/sdb1 rw
103 1 0:53 / /home rw - btrfs /dev/loop2 rw
104 1 0:54 / /x/pool rw - ext4 /dev/loop3 rw
`
	mounts, err := mountinfo.GetMountsFromReader(strings.NewReader(info), nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"/srv/other/pool"}, foreignPools(mounts, "/var/lib/ctctl")); d != "" {
		t.Error(d)
	}
}

func TestNetworksThatAreHiddenBehindTheHost(t *testing.T) {
	for name, tt := range map[string]struct {
		link netns.Interface
		want bool
	}{
		"routed":           {netns.Interface{}, false},
		"routed, NAT":      {netns.Interface{NAT: true}, true},
		"the host's":       {netns.Interface{Bridge: "br0"}, false},
		"ctctl's own":      {netns.Interface{Bridge: netns.OwnBridge}, true},
		"the host's, NAT":  {netns.Interface{Bridge: "br0", NAT: true}, true},
		"ctctl's own, NAT": {netns.Interface{Bridge: netns.OwnBridge, NAT: true}, true},
	} {
		if got := (Network{Interfaces: []netns.Interface{tt.link}}).NAT(); got != tt.want {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}
