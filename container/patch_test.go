package container

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/ctctl/ctctl/netns"
	"github.com/ctctl/ctctl/quota"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// Configurations are compared as sets where they are sets.
var asSets = cmp.Options{
	cmpopts.EquateEmpty(),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmpopts.SortSlices(func(a, b netip.Prefix) bool { return a.String() < b.String() }),
	cmpopts.SortSlices(func(a, b netns.Interface) bool { return a.Name < b.Name }),
	cmpopts.SortSlices(func(a, b netns.Forward) bool { return a.HostPort < b.HostPort }),
	cmpopts.SortSlices(func(a, b quota.IOLimit) bool { return a.Device < b.Device }),
}

func randomConfig(r *rand.Rand) Config {
	c := valid()
	c.Limits = quota.Limits{MemoryBytes: r.Int64N(3) << 30, PIDs: r.Int64N(3) * 100, CPUs: float64(r.IntN(3)), SwapBytes: 1<<62 - r.Int64N(2)}
	for _, d := range []string{quota.Pool, "/dev/vda"} {
		if r.IntN(2) == 0 {
			c.Limits.IO = append(c.Limits.IO, quota.IOLimit{Device: d, ReadBPS: 1 + r.Int64N(2)})
		}
	}
	c.Hostname = []string{"a", "b"}[r.IntN(2)]
	c.Network = Network{Isolated: r.IntN(2) == 0}
	for i, name := range []string{"eth0", "eth1", "eth2"} {
		if r.IntN(3) == 0 {
			continue
		}
		n := netns.Interface{Name: name, Index: i, MTU: 1400 + r.IntN(2)}
		for k := range byte(4) {
			if r.IntN(2) == 0 {
				n.Addresses = append(n.Addresses, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i), k + 1}), 32))
			}
		}
		if r.IntN(2) == 0 {
			n.Routes = []netns.Route{{To: netip.MustParsePrefix("10.9.0.0/16"), Metric: r.IntN(2)}}
		}
		if r.IntN(2) == 0 {
			n.Rate = netns.Rate{EgressBits: r.Int64N(2) * 1e6}
		}
		c.Network.Interfaces = append(c.Network.Interfaces, n)
	}
	for port := range uint16(3) {
		if r.IntN(2) == 0 {
			c.Network.Forwards = append(c.Network.Forwards, netns.Forward{Protocol: "tcp", HostPort: port + 1, Port: 80})
		}
	}
	return c
}

func TestAPatchMakesTheOneConfigurationOfTheOther(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		a, b := randomConfig(r), randomConfig(r)
		layers, err := layersWith(a, nil, b, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := overlaid(a, layers)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(b, got, asSets); diff != "" {
			t.Fatalf("with the patch %s:\n%s", layers, diff)
		}
	}
}

func TestAPatchOfTheSameIsNone(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 200 {
		c := randomConfig(r)
		if layers, err := layersWith(c, nil, c, time.Time{}); err != nil || len(layers) != 0 {
			t.Fatalf("%s, %v", layers, err)
		}
	}
}

// Each change that ends takes back what it did, and nothing of the others.
func TestLayersEndEachByItself(t *testing.T) {
	base := valid()
	soon, later := time.Now().Add(time.Hour), time.Now().Add(2*time.Hour)
	add := func(c Config, address string) Config {
		c, err := cloned(c)
		if err == nil {
			err = c.Network.AddAddress("eth0", netip.MustParsePrefix(address))
		}
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	var layers []Layer
	for address, until := range map[string]time.Time{"10.0.0.8/32": soon, "10.0.0.9/32": later} {
		now, err := overlaid(base, layers)
		if err == nil {
			layers, err = layersWith(base, layers, add(now, address), until)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	got, err := overlaid(base, lasting(layers, soon.Add(time.Minute)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(add(base, "10.0.0.9/32"), got, asSets); diff != "" {
		t.Error(diff)
	}
	got, err = overlaid(base, lasting(layers, later.Add(time.Minute)))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(base, got, asSets); diff != "" {
		t.Error(diff)
	}
}

func TestWhatASavedChangeTouchesIsNoLongerHidden(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		a, over, saved := randomConfig(r), randomConfig(r), randomConfig(r)
		layers, err := layersWith(a, nil, over, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		p, err := patchBetween(a, saved)
		if err != nil {
			t.Fatal(err)
		}
		if layers, err = layersWithout(layers, p); err != nil {
			t.Fatal(err)
		}
		got, err := overlaid(saved, layers)
		if err != nil {
			t.Fatal(err)
		}
		// Whatever the saved change touched is as it says.
		if a.Limits.PIDs != saved.Limits.PIDs && got.Limits.PIDs != saved.Limits.PIDs {
			t.Fatalf("pids %d, saved %d", got.Limits.PIDs, saved.Limits.PIDs)
		}
		if a.Limits.PIDs == saved.Limits.PIDs && got.Limits.PIDs != over.Limits.PIDs {
			t.Fatalf("pids %d, unsaved %d", got.Limits.PIDs, over.Limits.PIDs)
		}
		for _, f := range saved.Network.Forwards {
			if has := cmp.Equal(got.Network.Forwards, saved.Network.Forwards, asSets); !has && !contains(got.Network.Forwards, f) && !contains(a.Network.Forwards, f) {
				t.Fatalf("forward %v, which was saved, is hidden", f)
			}
		}
	}
}

func contains(list []netns.Forward, f netns.Forward) bool {
	for _, o := range list {
		if o == f {
			return true
		}
	}
	return false
}
