package integration_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/netns"
)

// A changes is what container.Set is asked for, as words that cross a process's
// boundary: "pids 200", "ip+ 10.98.9.2/32".
type changes []string

// edit does them.
func (c changes) edit(cfg *container.Config) error {
	for _, one := range c {
		verb, value, _ := strings.Cut(one, " ")
		if err := editOne(cfg, verb, value); err != nil {
			return err
		}
	}
	return nil
}

func editOne(cfg *container.Config, verb, value string) (err error) {
	number, _ := strconv.ParseFloat(value, 64)
	switch verb {
	case "pids":
		cfg.Limits.PIDs = int64(number)
	case "memory":
		cfg.Limits.MemoryBytes = int64(number) << 20
	case "cpus":
		cfg.Limits.CPUs = number
	case "weight":
		cfg.Limits.CPUWeight = int64(number)
	case "disk":
		cfg.Limits.DiskBytes = int64(number) << 20
	case "hostname":
		cfg.Hostname = value
	case "onboot":
		cfg.Onboot = value == "yes"
	case "env":
		cfg.Env = []string{value}
	case "mtu":
		cfg.Network.Interfaces[0].MTU = int(number)
	case "rate":
		cfg.Network.Interfaces[0].Rate.EgressBits = int64(number) * 1e6
	case "publish":
		cfg.Network.Publish(netns.Forward{Protocol: "tcp", HostPort: uint16(number), Port: ledgerPort})
	case "unpublish":
		err = cfg.Network.Unpublish(netns.Forward{Protocol: "tcp", HostPort: uint16(number)})
	case "nic+":
		err = cfg.Network.AddInterface(netns.Interface{Name: value, Addresses: []netip.Prefix{netip.MustParsePrefix(nicAddress)}})
	case "nic-":
		err = cfg.Network.RemoveInterface(value)
	case "route+":
		err = cfg.Network.AddRoute("", netns.Route{To: netip.MustParsePrefix(value)})
	case "route-":
		err = cfg.Network.RemoveRoute("", netip.MustParsePrefix(value))
	case "ip+", "ip-":
		var p netip.Prefix
		if p, err = netip.ParsePrefix(value); err == nil && verb == "ip+" {
			return cfg.Network.AddAddress("", p)
		}
		if err == nil {
			err = cfg.Network.RemoveAddress("", p.Addr())
		}
	default:
		err = errors.New("no such change: " + verb)
	}
	return err
}

// Addresses that random changes add and remove; the last is the neighbour's.
var spareAddresses = []string{"10.98.9.2/32", "10.98.9.3/32", "10.98.9.4/32", "fd98::9:2/128", "fd98::9:3/128", neighbourAddress}

const nicAddress = "10.98.8.2/32"

const neighbourAddress = "10.98.9.99/32"

// randomChanges are some that a container can follow, and now and then one that
// it can't.
func randomChanges(r *rand.Rand) (c changes) {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	for range 1 + r.IntN(4) {
		var one string
		switch r.IntN(13) {
		case 0:
			one = "pids " + pick("200", "300", "400", "0", "2", "-1")
		case 1:
			one = "memory " + pick("256", "300", "512", "0", "1", "16")
		case 2:
			one = "cpus " + pick("0.5", "1", "1.5", "0", "0.001")
		case 3:
			one = "weight " + pick("0", "50", "200", "20000")
		case 4:
			one = "hostname " + pick("alpha", "beta", "gamma", "bad name")
		case 5:
			one = "onboot " + pick("yes", "no")
		case 6:
			one = "rate " + pick("0", "100", "200")
		case 7:
			one = fmt.Sprintf("%s %d", pick("publish", "unpublish"), 8000+r.IntN(3))
		case 8:
			one = pick("nic+", "nic-") + " eth1"
		case 9:
			one = pick("route+", "route-") + " 10.55.0.0/16"
		default:
			one = pick("ip+", "ip+", "ip-") + " " + pick(spareAddresses...)
		}
		c = append(c, one)
	}
	return c
}

// impossible says why a running ledger can't have a valid configuration: others
// have the address, or it uses more already.
func impossible(now, next container.Config) error {
	for _, p := range next.Network.Addresses() {
		if p.String() == neighbourAddress {
			return errors.New("the neighbour's address")
		}
	}
	if n := next.Limits.PIDs; n == 2 && n != now.Limits.PIDs {
		return errors.New("more tasks exist")
	}
	if n := next.Limits.MemoryBytes; n == 16<<20 && n != now.Limits.MemoryBytes {
		return errors.New("more memory is in use")
	}
	return nil
}
