package netns

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestEachLinkHasItsOwnAddresses(t *testing.T) {
	requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32")
	c.Interfaces = append(c.Interfaces, Interface{Name: "eth1", Index: 1, Addresses: []netip.Prefix{netip.MustParsePrefix("10.9.0.6/32")}})
	plug(t, ct, c)
	for index, other := range []string{"10.9.0.6", "10.9.0.5"} {
		mac, _ := MACFor(c.UID, index)
		inside, host := ct.capture(t, c.Interfaces[index].Name), hostSpace(t).capture(t, c.hostLink(index))
		inside.send(t, rawEther(everyone, mac, 0x800, rawIP4(other, "10.9.0.255", 17, rawUDP("borrowed"))))
		inside.send(t, rawEther(everyone, mac, 0x800, rawIP4(c.Interfaces[index].Addresses[0].Addr().String(), "10.9.0.255", 17, rawUDP("own"))))
		host.until(t, []byte("own")) // capture comes before the filter
	}
	report, err := PolicyOf(ctx, c)
	must(t, err)
	for _, d := range report.Drops {
		if want := d.Reason == ReasonIPv4; (d.Packets == 1) != want {
			t.Errorf("%+v", d)
		}
	}
}

// A link that comes back under its name is pinned as before.
func TestPolicyHoldsForALinkThatIsMadeAgain(t *testing.T) {
	requireHost(t)
	c := config(1, "10.9.0.5/32")
	c.Interfaces[0].NAT = true
	// Without the link: all of it, or at least NAT.
	must(t, preparePolicy(ctx, c))
	if got := strings.Join(ruleset(t), "\n"); !strings.Contains(got, "nat4 0a090005") {
		t.Errorf("NAT is not prepared:\n%s", got)
	}
	for range 2 {
		ct := newSpace(t, true)
		plug(t, ct, c)
		inside := ct.capture(t, "eth0")
		mac, _ := MACFor(c.UID, 0)
		inside.send(t, rawEther(everyone, mac, 0x800, rawIP4("10.9.0.99", "10.9.0.255", 17, rawUDP("forged"))))
		waitForDrop(t, c, ReasonIPv4)
		must(t, Leave(ctx, c, true))
	}
}

func TestAnIsolatedContainerIsSilent(t *testing.T) {
	requireHost(t)
	host, ct := hostSpace(t), newSpace(t, true)
	c := config(1, "10.9.0.5/32", "fd09::5/128")
	plug(t, ct, c)
	var conns [][2]interface {
		Write([]byte) (int, error)
		Read([]byte) (int, error)
		SetReadDeadline(time.Time) error
		Close() error
	}
	for _, address := range []string{"10.9.0.5:0", "[fd09::5]:0"} {
		l := ct.listen(t, address)
		client, server := connect(t, host, l)
		echo(t, client, server)
		conns = append(conns, [2]interface {
			Write([]byte) (int, error)
			Read([]byte) (int, error)
			SetReadDeadline(time.Time) error
			Close() error
		}{client, server})
		defer client.Close()
		defer server.Close()
	}
	c.Isolated = true
	must(t, applyPolicy(ctx, c))
	for _, pair := range conns {
		for i, end := range pair {
			_, err := end.Write([]byte("hello"))
			must(t, err)
			must(t, pair[1-i].SetReadDeadline(time.Now().Add(100*time.Millisecond)))
			if n, err := pair[1-i].Read(make([]byte, 5)); err == nil {
				t.Errorf("%d bytes passed", n)
			}
		}
	}
	if _, err := host.dial("10.9.0.5:9", 200*time.Millisecond); err == nil || errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("the container answered: %v", err)
	}
	report, err := PolicyOf(ctx, c)
	must(t, err)
	for _, d := range report.Drops {
		if d.Packets == 0 {
			t.Errorf("nothing counted: %+v", d)
		}
	}
	c.Isolated = false
	must(t, applyPolicy(ctx, c))
	for _, pair := range conns {
		for i, end := range pair { // what was sent meanwhile arrives
			got := make([]byte, 5)
			must(t, end.SetReadDeadline(time.Now().Add(30*time.Second)))
			if _, err := end.Read(got); err != nil || string(got) != "hello" {
				t.Errorf("end %d: got %q, %v", i, got, err)
			}
		}
	}
}

// Containers start at the same time, and the first of them make the table.
func TestPoliciesAppliedAtOnceAreAllComplete(t *testing.T) {
	requireHost(t)
	t.Cleanup(func() {
		_, err := reapPolicy(ctx, func(string) bool { return false })
		must(t, errors.Join(err, Forget(ctx)))
	})
	const n = 8
	var started, ended sync.WaitGroup
	started.Add(1)
	results := make([]error, n)
	for i := range n {
		ended.Go(func() {
			started.Wait()
			results[i] = preparePolicy(ctx, full(i+1))
		})
	}
	started.Done()
	ended.Wait()
	must(t, errors.Join(results...))
	for i := range n {
		before := generation(t)
		must(t, preparePolicy(ctx, full(i+1)))
		if after := generation(t); after != before {
			t.Errorf("container %d is not complete", i+1)
		}
	}
}

// A link that is still missing takes nothing from the others.
func TestPreparingPinsTheLinksThatExist(t *testing.T) {
	requireHost(t)
	ct := newSpace(t, true)
	c := config(1, "10.9.0.5/32")
	plug(t, ct, c)
	more := c
	more.Interfaces = append(slices.Clone(c.Interfaces), Interface{Name: "eth1", Index: 1, Addresses: prefixes("10.9.0.6/32")})
	must(t, preparePolicy(ctx, more))
	inside := ct.capture(t, "eth0")
	mac, _ := MACFor(c.UID, 0)
	inside.send(t, rawEther(everyone, mac, 0x800, rawIP4("10.9.0.99", "10.9.0.255", 17, rawUDP("forged"))))
	waitForDrop(t, c, ReasonIPv4)
}

// waitForDrop waits until a packet was dropped for a reason.
func waitForDrop(t *testing.T, c Config, reason string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		report, err := PolicyOf(ctx, c)
		must(t, err)
		for _, d := range report.Drops {
			if d.Reason == reason && d.Packets > 0 {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing dropped: %+v", report)
		}
	}
}
