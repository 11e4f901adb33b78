package container

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/ctctl/ctctl/netns"
)

// numbered are containers with an address each, 10.0.1.n.
func numbered(count int) (all []Config) {
	for n := range count {
		c := valid()
		c.Name, c.Hostname = fmt.Sprintf("ct%d", n), fmt.Sprintf("ct%d", n)
		c.UID, c.CTID = fmt.Sprintf("%016x", n+1), uint32(n+1)
		c.Network.Interfaces = []netns.Interface{{Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.1.%d/32", n))}}}
		all = append(all, c)
	}
	return all
}

func TestEveryOtherContainerIsAskedForAnAddress(t *testing.T) {
	const count = 3*maxReaders + 1
	m, _ := placed(t, numbered(count)...)
	for n := 1; n < count; n++ {
		want := fmt.Sprintf("ct%d", n)
		_, err := m.Set(t.Context(), "ct0", Change{Edit: address(fmt.Sprintf("10.0.1.%d/32", n)), NoProbe: true})
		if !errors.Is(err, ErrTaken) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("the address of %s: got %v", want, err)
		}
	}
	taken, err := m.taken("ct0")
	if err != nil || len(taken.addresses) != count-1 || len(taken.ctids) != count-1 {
		t.Errorf("got %+v, %v", taken, err)
	}
}

func TestAnAddressThatAnAdminWroteIntoAFileIsSeenAtOnce(t *testing.T) {
	m, _ := placed(t, valid(), other())
	file := m.configFile("web2")
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	set := func(a string) error {
		_, err := m.Set(t.Context(), "web1", Change{Edit: address(a), NoProbe: true})
		return err
	}
	for written, asked := range map[string]string{
		"10.0.0.99/32":                      "10.0.0.99/24",
		"FD00:0:0:0:0:0:0:2A/64":            "fd00::2a/128",
		"fd00::/64":                         "fd00::/128",
		"10.0.0.98/32" + `", "192.0.2.1/32`: "10.0.0.98/32",
		"10.0.0.97/32" + `"` + strings.Repeat(" ", 9000) + `, "192.0.2.2/32`: "192.0.2.2/32", // beyond what is read at once
	} {
		text := strings.Replace(string(before), "10.0.0.8/32", written, 1)
		// In place, so that the directory and the inode stay as they were.
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := set(asked); !errors.Is(err, ErrTaken) {
			t.Errorf("%s: got %v", asked, err)
		}
		if err := os.WriteFile(file, before, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := set(asked); err != nil {
			t.Errorf("%s, when it was taken out again: %v", asked, err)
		}
	}
}

func TestAFileThatMentionsTheAddressAndCannotBeReadIsNotPassedOver(t *testing.T) {
	m, _ := placed(t, valid(), other())
	if err := os.WriteFile(m.configFile("web2"), []byte(`{"network": "10.0.0.99/32`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := m.Set(t.Context(), "web1", Change{Edit: address("10.0.0.99/32"), NoProbe: true})
	if err == nil || !strings.Contains(err.Error(), m.configFile("web2")) {
		t.Errorf("got %v", err)
	}
}

func TestOfManyThatWantOneAddressAtATimeOneGetsIt(t *testing.T) {
	const count = 6
	m, _ := placed(t, numbered(count)...)
	errs := make([]error, count)
	var all sync.WaitGroup
	for n := range count {
		all.Go(func() {
			_, errs[n] = m.Set(t.Context(), fmt.Sprintf("ct%d", n), Change{Edit: address("10.0.2.1/32"), NoProbe: true})
		})
	}
	all.Wait()
	done := 0
	for n, err := range errs {
		switch {
		case err == nil:
			done++
		case !errors.Is(err, ErrTaken):
			t.Errorf("ct%d: %v", n, err)
		}
	}
	if done != 1 {
		t.Errorf("%d have it", done)
	}
}
