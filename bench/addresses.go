package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/netns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// measured is the container whose addresses are changed, among the others.
	measured = "addresses"
	// added is the address that it is given and that is taken away; byHand is that
	// of the plain tools.
	added, byHand = "10.158.0.1", "10.158.0.2"
	// leastRounds is how often an address is added at least, unless few runs are
	// wanted: adding takes a hundredth of what a snapshot takes.
	leastRounds = 20
)

// cost is what runs of a command took.
type cost struct{ wall, cpu sample }

func (c *cost) add(u usage) { c.wall, c.cpu = append(c.wall, u.wall), append(c.cpu, u.cpu) }

// crowd is all that is measured with so many containers.
type crowd struct {
	containers           int
	add, del             cost // ctctl set
	handAdd, handDel     cost
	start                cost // without cpu: most of it is other processes'
	nothing              cost // netns.Apply
	addPhases, delPhases *phases
}

// addressing compares the change of a running container's address on a host with
// one container and on one with many. One is measured before and after many, so
// that what changes meanwhile on this machine changes both.
func (r *rig) addressing(ctx context.Context) error {
	one := &crowd{containers: 1, addPhases: &phases{}, delPhases: &phases{}}
	many := &crowd{containers: r.containers, addPhases: &phases{}, delPhases: &phases{}}
	rounds := 2 * r.runs
	if r.runs >= leastRounds/2 {
		rounds = max(rounds, leastRounds)
	}
	if err := r.populate(ctx, 0, 1); err != nil {
		return err
	}
	progress("addresses on a host with 1 container")
	if err := r.readdress(ctx, one, (rounds+1)/2); err != nil {
		return err
	}
	progress("starting %d containers", r.containers-1)
	if err := r.populate(ctx, 1, r.containers); err != nil {
		return err
	}
	progress("addresses on a host with %d containers", r.containers)
	if err := r.readdress(ctx, many, rounds); err != nil {
		return err
	}
	progress("removing %d containers", r.containers-1)
	if err := r.destroy(ctx, func(name string) bool { return name != measured }); err != nil {
		return err
	}
	progress("addresses on a host with 1 container")
	if err := r.readdress(ctx, one, (rounds+1)/2); err != nil {
		return err
	}
	if err := r.host.Destroy(ctx, measured, true); err != nil {
		return err
	}
	return printAddresses(one, many)
}

// populate starts the containers from number first on, up to before end, each with
// three addresses. Number 0 is the one that is measured.
func (r *rig) populate(ctx context.Context, first, end int) error {
	var group errgroup.Group
	group.SetLimit(runtime.NumCPU())
	for n := first; n < end; n++ {
		group.Go(func() error {
			name := measured
			if n > 0 {
				name = "crowd-" + strconv.Itoa(n)
			}
			args := []string{"create", "--template", templateName, "--no-probe"}
			for _, a := range addressesOf(n) {
				args = append(args, "--ip", a)
			}
			if _, _, err := r.run(ctx, append(append(args, name, "--"), payload(0)...)...); err != nil {
				return err
			}
			_, _, err := r.run(ctx, "start", name)
			return err
		})
	}
	return group.Wait()
}

func addressesOf(n int) []string {
	end := fmt.Sprintf("%d.%d", n>>8, n&0xff)
	return []string{"10.156." + end + "/32", "10.157." + end + "/32", fmt.Sprintf("fd9c::%x/128", n+1)}
}

// readdress measures ctctl and the plain tools in turn, so that both see the same
// machine.
func (r *rig) readdress(ctx context.Context, c *crowd, rounds int) error {
	info, err := r.host.Containers.Get(ctx, measured)
	if err != nil {
		return err
	}
	if info.Run == nil {
		return errors.New("the container does not run")
	}
	if err := r.calm(); err != nil {
		return err
	}
	for range rounds {
		if err := r.readdressOnce(ctx, c); err != nil {
			return err
		}
		if noTools() == nil {
			if err := r.byHandOnce(ctx, c, info); err != nil {
				return err
			}
		}
		if err := c.applyNothing(ctx, info); err != nil {
			return err
		}
	}
	return r.startAmong(ctx, c)
}

func (r *rig) readdressOnce(ctx context.Context, c *crowd) error {
	for _, step := range []struct {
		flag   string
		cost   *cost
		phases *phases
	}{{"--ip-add", &c.add, c.addPhases}, {"--ip-del", &c.del, c.delPhases}} {
		used, text, err := r.used(ctx, r.ctctl, "set", measured, step.flag, added, "--no-probe")
		if err != nil {
			return err
		}
		step.cost.add(used)
		step.phases.add(text)
	}
	return nil
}

// byHandOnce does the least by which packets find the way: the address inside and
// the route to it on the host.
func (r *rig) byHandOnce(ctx context.Context, c *crowd, info container.Info) error {
	inside := []string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", info.Run.PID)}
	address := []string{byHand + "/32", "dev", info.Config.Network.Interfaces[0].Name}
	route := []string{byHand + "/32", "dev", "ct" + info.Config.UID[:12]}
	for _, step := range []struct {
		op   string
		cost *cost
	}{{"add", &c.handAdd}, {"del", &c.handDel}} {
		in := append(words(inside, "ip", "address", step.op), address...)
		first, _, err := r.used(ctx, in[0], in[1:]...)
		if err != nil {
			return err
		}
		second, _, err := r.used(ctx, "ip", append([]string{"route", step.op}, route...)...)
		if err != nil {
			return err
		}
		step.cost.add(usage{first.wall + second.wall, first.cpu + second.cpu})
	}
	return nil
}

// applyNothing measures what the library takes to find out that all is as it is
// wanted. The processor's time is that of this process, which does nothing else.
func (c *crowd) applyNothing(ctx context.Context, info container.Info) error {
	n := info.Config.Network
	wanted := netns.Config{UID: info.Config.UID, Interfaces: n.Interfaces, Forwards: n.Forwards, Isolated: n.Isolated}
	before, err := processorTime()
	if err != nil {
		return err
	}
	began := time.Now()
	err = netns.Apply(ctx, netns.Target{PID: info.Run.PID, Before: &wanted}, wanted)
	took := time.Since(began)
	after, terr := processorTime()
	if err := errors.Join(err, terr); err != nil {
		return err
	}
	c.nothing.add(usage{took, after - before})
	return nil
}

func processorTime() (time.Duration, error) {
	var u unix.Rusage
	err := unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), err
}

// startAmong measures creating and starting one more container.
func (r *rig) startAmong(ctx context.Context, c *crowd) error {
	for range max(1, r.runs/2) {
		create, start, err := r.startOnce(ctx, map[string]*phases{"create": {}, "start": {}})
		if err != nil {
			return err
		}
		c.start.wall = append(c.start.wall, create+start)
	}
	return nil
}

func printAddresses(one, many *crowd) error {
	t := addressTable(one, many)
	if err := noTools(); err != nil {
		t.notes = append(t.notes, "by hand: not here: "+err.Error())
	}
	if err := t.print(os.Stdout); err != nil {
		return err
	}
	columns := []string{"1 container", fmt.Sprintf("%d", many.containers)}
	for i, op := range []struct {
		flag      string
		one, many *phases
	}{{"--ip-add", one.addPhases, many.addPhases}, {"--ip-del", one.delPhases, many.delPhases}} {
		trace := map[string]*phases{columns[0]: op.one, columns[1]: op.many}
		if err := printPhases(fmt.Sprintf("6.%d Phases of ctctl set %s (ctctl --trace)", i+1, op.flag), columns, columns, trace); err != nil {
			return err
		}
	}
	return nil
}

func addressTable(one, many *crowd) *table {
	n := strconv.Itoa(many.containers)
	t := &table{
		title: "6. An address more and an address less on a running container, on a host with 1 and with " + n + " running containers of 3 addresses",
		head:  []string{"", "1", n, "ratio", "CPU: 1", n, "ratio"},
		notes: []string{
			"CPU: of the command and of what it waits for. 1 is measured half before and half after " + n + ".",
			"by hand: ip twice, once through nsenter: the address inside, and the host's route to it. No check, no packet filter, no record.",
			"netns.Apply: the library's call alone, when all is as wanted already.",
		},
	}
	for _, row := range []struct {
		name string
		a, b cost
	}{
		{"ctctl set --ip-add", one.add, many.add},
		{"ctctl set --ip-del", one.del, many.del},
		{"by hand, add", one.handAdd, many.handAdd},
		{"by hand, delete", one.handDel, many.handDel},
		{"netns.Apply with nothing to do", one.nothing, many.nothing},
		{"ctctl create + ctctl start", one.start, many.start},
	} {
		var cells []string
		for _, pair := range [][2]sample{{row.a.wall, row.b.wall}, {row.a.cpu, row.b.cpu}} {
			a, b := pair[0].median(), pair[1].median()
			cells = append(cells, show(a), show(b), ratio(b, a))
		}
		t.add(append([]string{row.name}, cells...)...)
	}
	return t
}

// noTools says why nothing is measured by hand.
func noTools() error {
	for _, tool := range []string{"ip", "nsenter"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err
		}
	}
	return nil
}
