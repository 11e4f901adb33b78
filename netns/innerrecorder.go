package netns

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Recorder records what is configured inside a network namespace. Made while
// the container runs, it opens everything, so that Capture, for which the
// container is frozen, only has to read.
type Recorder struct {
	pid      int
	foreign  bool // the namespace is of another user namespace than ours
	ns       *os.File
	groups   idMap
	ours     ours
	links    map[string]bool   // those that a new namespace has
	usual    map[string]string // the values that a container begins with
	route    *talk
	filter   *talk
	ipsec    *talk // nil if the kernel has none
	settings []sysctlFile
	opened   map[string]bool // the links with settings among these
}

// captureTime bounds Capture, for which a container stands still that decides
// itself how much there is to read.
const captureTime = 2 * time.Second

var errRecordTime = fmt.Errorf("%w: or it takes longer than %v to read", ErrInnerSize, captureTime)

// NewRecorder prepares for the namespace of process pid, of which the host made
// what c says. The caller closes it. It takes about 30 ms, most of it for
// hundreds of open files.
//
// Errors: ErrNoProcess, ErrHostNamespace.
func NewRecorder(ctx context.Context, pid int, c Config) (r *Recorder, err error) {
	defer wrapOp(fmt.Sprintf("prepare to record the network of process %d", pid), "", &err)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r = &Recorder{pid: pid, ours: oursOf(c)}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
			r = nil
		}
	}()
	if r.ns, err = openOf(pid); err != nil {
		return r, err
	}
	if r.groups, err = groupsOf(pid); err != nil {
		return r, err
	}
	if r.foreign, err = hasOwnUsers(pid); err != nil {
		return r, err
	}
	if err := r.learnUsual(); err != nil {
		return r, err
	}
	if err := r.learnMTUs(c); err != nil {
		return r, err
	}
	return r, enter(r.ns, r.open)
}

// learnUsual looks at a new namespace.
func (r *Recorder) learnUsual() error {
	r.links = make(map[string]bool)
	err := inNew(func() error {
		files, err := openSysctls(".")
		if err != nil {
			return err
		}
		r.usual = readSysctls(files)
		t, err := openTalk(unix.NETLINK_ROUTE)
		if err != nil {
			return errors.Join(err, closeSysctls(files))
		}
		index, err := linkIndexes(t)
		for name := range index {
			r.links[name] = true
		}
		return errors.Join(err, t.close(), closeSysctls(files))
	})
	if err != nil {
		return fmt.Errorf("look at a new network namespace: %w", err)
	}
	// A link of the container begins with what the namespace gives new links.
	for key, value := range maps.Clone(r.usual) {
		of, isLink := linkOfSysctl(key)
		if !isLink || key != of.model {
			continue
		}
		parts := strings.Split(key, "/")
		for name := range r.ours.interfaces {
			parts[2] = name
			r.usual[strings.Join(parts, "/")] = value
		}
	}
	maps.Copy(r.usual, r.ours.sysctls)
	return nil
}

// learnMTUs asks the host's ends of the interfaces for their MTUs, where the
// configuration leaves them to the bridge or the kernel.
func (r *Recorder) learnMTUs(c Config) error {
	t, err := openTalk(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	_, mtus, err := linksByName(t)
	for _, i := range c.Interfaces {
		if i.MTU == 0 {
			r.ours.mtu[i.Name] = mtus[c.hostLink(i.Index)]
		}
	}
	return errors.Join(err, t.close())
}

// open runs inside the namespace.
func (r *Recorder) open() (err error) {
	if r.route, err = openTalk(unix.NETLINK_ROUTE); err != nil {
		return err
	}
	if r.filter, err = openTalk(unix.NETLINK_NETFILTER); err != nil {
		return err
	}
	if r.ipsec, err = openTalk(unix.NETLINK_XFRM); errors.Is(err, unix.EPROTONOSUPPORT) {
		r.ipsec, err = nil, nil
	}
	if err != nil {
		return err
	}
	if r.settings, err = openSysctls("."); err != nil {
		return err
	}
	r.opened = make(map[string]bool)
	for _, f := range r.settings {
		if parts := strings.Split(f.key, "/"); len(parts) == 4 {
			r.opened[parts[2]] = true
		}
	}
	return nil
}

// Close gives back what NewRecorder opened.
func (r *Recorder) Close() error {
	var errs []error
	for _, t := range []*talk{r.route, r.filter, r.ipsec} {
		if t != nil {
			errs = append(errs, t.close())
		}
	}
	if r.ns != nil {
		errs = append(errs, r.ns.Close())
	}
	return errors.Join(append(errs, closeSysctls(r.settings))...)
}

// Capture records the namespace. It may be repeated.
//
// Errors: ErrInnerSize.
func (r *Recorder) Capture(ctx context.Context) (in Inner, err error) {
	defer wrapOp(fmt.Sprintf("record the network of process %d", r.pid), "", &err)
	if err := ctx.Err(); err != nil {
		return Inner{}, err
	}
	for _, t := range []*talk{r.route, r.filter, r.ipsec} {
		if t != nil {
			t.until = time.Now().Add(captureTime)
		}
	}
	links, err := in.readLinks(r.route, r.ours, r.links)
	if err != nil {
		return Inner{}, err
	}
	for _, read := range []func() error{
		func() error { return in.readAddresses(r.route, r.ours, links) },
		func() error { return in.readNeighbours(r.route, r.ours, links) },
		func() error { return in.readRoutes(r.route, r.ours, links) },
		func() error { return in.readRules(r.route, r.ours, r.foreign) },
		func() error { return in.readFilter(r.filter) },
		func() error { return in.missOthers(r.route, links) },
		func() error { return in.missIPsec(r.ipsec) },
		func() error { return in.missLegacyTables(r.pid) },
		func() error { return r.readSettings(&in, links.fresh) },
	} {
		if err := read(); err != nil {
			return Inner{}, err
		}
	}
	if !in.Empty() || len(in.Missing) > 0 {
		in.Version = innerVersion
	}
	if in.size() > maxInnerBytes {
		return Inner{}, ErrInnerSize
	}
	return in, nil
}

// readSettings also opens those of links that are newer than the Recorder.
func (r *Recorder) readSettings(in *Inner, fresh []string) (err error) {
	if len(fresh) == 0 && sameSysctls(r.settings, r.usual) {
		return nil
	}
	files := r.settings
	var late []string
	for _, name := range fresh {
		if r.opened[name] {
			continue
		}
		for _, dir := range []string{"ipv4/conf/", "ipv6/conf/", "ipv4/neigh/", "ipv6/neigh/"} {
			late = append(late, dir+name)
		}
	}
	if len(late) > 0 {
		var more []sysctlFile
		if err := enter(r.ns, func() (err error) {
			more, err = openSysctls(late...)
			return err
		}); err != nil {
			return errors.Join(err, closeSysctls(more))
		}
		defer func() { err = errors.Join(err, closeSysctls(more)) }()
		files = append(files[:len(files):len(files)], more...)
	}
	values := readSysctls(files)
	if value, ok := values[groupRange]; ok {
		values[groupRange] = r.groups.within(value)
	}
	in.Sysctls = changedSysctls(values, r.usual)
	return nil
}

// missLegacyTables names the tables of iptables before nftables, which the
// kernel lists only by name.
func (in *Inner) missLegacyTables(pid int) error {
	for _, family := range []string{"ip", "ip6", "arp"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s_tables_names", pid, family))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, name := range strings.Fields(string(b)) {
			in.miss("table %s of the old iptables (%s)", name, family)
		}
	}
	return nil
}

// miss notes what will not be brought back.
func (in *Inner) miss(format string, args ...any) {
	if len(in.Missing) < maxInnerItems {
		in.Missing = append(in.Missing, fmt.Sprintf(format, args...))
	}
}

// size is about what the record takes as JSON, in bytes.
func (in Inner) size() int {
	const item = 200 // names of fields, short strings and numbers
	n := item * (len(in.Links) + len(in.Addresses) + len(in.Neighbours) + len(in.Rules))
	encoded := func(b []byte) { n += item/4 + len(b)*4/3 }
	for _, l := range in.Links {
		encoded(l.Data)
		encoded(l.Port)
	}
	for _, r := range in.Routes {
		encoded(r.Message)
		n += 20 * len(r.Links)
	}
	for _, r := range in.Rules {
		encoded(r.Message)
	}
	for _, f := range in.Filter {
		encoded(f.Data)
	}
	for key, value := range in.Sysctls {
		n += len(key) + len(value) + item/10
	}
	for _, what := range in.Missing {
		n += len(what)
	}
	return n
}

// Capture records the namespace of process pid in one go; see [NewRecorder] for
// a container that is not to stay frozen for longer than needed.
//
// Errors: ErrNoProcess, ErrHostNamespace, ErrInnerSize.
func Capture(ctx context.Context, pid int, c Config) (in Inner, err error) {
	r, err := NewRecorder(ctx, pid, c)
	if err != nil {
		return Inner{}, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	return r.Capture(ctx)
}
