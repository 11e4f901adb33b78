package container

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/ctctl/ctctl/netns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// takenBy is what containers have of the host's network, saved or not, and what
// those want that are just being changed.
type takenBy struct {
	addresses map[netip.Addr]string
	forwards  []takenForward
	ctids     map[uint32]bool
}

type takenForward struct {
	netns.Forward
	by string
}

// taken reads it of all containers but one. With needles, only of those whose files
// have one of them in their text: decoding hundreds of files to find out about one
// address takes longer than the rest of a change. It runs under the host's lock.
//
// Every file is read every time, as admins edit them by hand: nothing has to be kept
// in step with them.
func (m *Manager) taken(except string, needles ...string) (takenBy, error) {
	all := takenBy{addresses: map[netip.Addr]string{}, ctids: map[uint32]bool{}}
	path := filepath.Join(m.StateRoot, "containers")
	entries, err := readDir(path)
	if err != nil || len(entries) == 0 {
		return all, err
	}
	dir, err := os.Open(path)
	if err != nil {
		return all, err
	}
	var group errgroup.Group
	parts := make([]takenBy, min(maxReaders, runtime.GOMAXPROCS(0)))
	for n := range parts {
		group.Go(func() (err error) {
			r := takenReader{m: m, dir: int(dir.Fd()), needles: needles}
			for i := n; i < len(entries) && err == nil; i += len(parts) {
				if name := entries[i].Name(); entries[i].IsDir() && name != except && CheckName(name) == nil {
					err = r.read(name)
				}
			}
			parts[n] = r.takenBy
			return err
		})
	}
	if err := errors.Join(group.Wait(), dir.Close()); err != nil {
		return all, err
	}
	for _, p := range parts {
		maps.Copy(all.addresses, p.addresses)
		maps.Copy(all.ctids, p.ctids)
		all.forwards = append(all.forwards, p.forwards...)
	}
	return all, nil
}

// maxReaders bounds how many containers' files are read at a time.
const maxReaders = 4

// takenReader reads one container after the other.
type takenReader struct {
	takenBy
	m       *Manager
	dir     int // descriptor of the directory of the containers
	needles []string
	buffers [2][4 << 10]byte
}

func (r *takenReader) read(name string) error {
	config, err := r.slurp(0, name, r.m.configFile(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // half made, or being destroyed
	}
	if err != nil {
		return err
	}
	state, err := r.slurp(1, name, r.m.stateFile(name))
	if ignoreAbsent(err) != nil {
		return err
	}
	if len(r.needles) > 0 && !mentions(config, r.needles) && !mentions(state, r.needles) {
		return nil
	}
	var c Config
	var s State
	if err := configSchema.Decode(config, &c); err != nil {
		return fmt.Errorf("%s: %w", r.m.configFile(name), err)
	}
	if err == nil {
		if err := stateSchema.Decode(state, &s); err != nil {
			return fmt.Errorf("%s: %w", r.m.stateFile(name), err)
		}
	}
	if r.ctids == nil {
		r.addresses, r.ctids = map[netip.Addr]string{}, map[uint32]bool{}
	}
	r.ctids[c.CTID] = true
	r.add(name, c.Network)
	if len(s.Overlay) > 0 {
		r.add(name, r.m.effective(c, s).Network)
	}
	if s.Intent != nil && s.Intent.Network != nil {
		r.add(name, *s.Intent.Network)
	}
	return nil
}

// slurp is os.ReadFile for hundreds of small files: with half its system calls. What
// it returns is valid until it is called for the next container.
func (r *takenReader) slurp(n int, name, path string) ([]byte, error) {
	fd, err := unix.Openat(r.dir, name+"/"+filepath.Base(path), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	buf := r.buffers[n][:]
	size, err := unix.Read(fd, buf)
	if cerr := unix.Close(fd); err != nil || cerr != nil || size == len(buf) {
		return os.ReadFile(path)
	}
	return buf[:size], nil
}

func mentions(text []byte, needles []string) bool {
	return slices.ContainsFunc(needles, func(n string) bool {
		return bytes.Contains(text, []byte(n)) || strings.ContainsAny(n, "abcdef") && bytes.Contains(bytes.ToLower(text), []byte(n))
	})
}

// needlesFor are texts of which a configuration with one of the addresses or
// forwards of n has at least one, however an admin has written them: IPv6 has many
// notations, of which the end before the prefix's length differs least: hexadecimal
// digits of either case, or as of IPv4 (RFC 4291, 2.2).
func needlesFor(n Network) (out []string) {
	for _, p := range n.Addresses() {
		if p.Addr().Is4() {
			out = append(out, p.Addr().String())
			continue
		}
		b := p.Addr().As16()
		last := strconv.FormatUint(uint64(b[14])<<8|uint64(b[15]), 16)
		out = append(out, last+"/", netip.AddrFrom4([4]byte(b[12:])).String()+"/")
		if last == "0" {
			out = append(out, ":/")
		}
	}
	for _, f := range n.Forwards {
		out = append(out, strconv.Itoa(int(f.HostPort)))
	}
	return out
}

func (t *takenBy) add(name string, n Network) {
	for _, p := range n.Addresses() {
		t.addresses[p.Addr()] = name
	}
	for _, f := range n.Forwards {
		t.forwards = append(t.forwards, takenForward{f, name})
	}
}

// refuse answers ErrTaken when something of n is another's.
func (t takenBy) refuse(n Network) error {
	for _, p := range n.Addresses() {
		if other, ok := t.addresses[p.Addr()]; ok {
			return fmt.Errorf("%w: address %s belongs to container %s", ErrTaken, p.Addr(), other)
		}
	}
	for _, f := range n.Forwards {
		for _, other := range t.forwards {
			if clash(f, other.Forward) {
				return fmt.Errorf("%w: port %d/%s of the host is published by container %s", ErrTaken, f.HostPort, f.Protocol, other.by)
			}
		}
	}
	return nil
}

// clash says whether two forwards listen at the same place.
func clash(a, b netns.Forward) bool {
	if a.Protocol != b.Protocol || a.HostPort != b.HostPort {
		return false
	}
	return !a.HostAddress.IsValid() || !b.HostAddress.IsValid() || a.HostAddress == b.HostAddress
}

// newOutside is the part of b's addresses and forwards that a has not.
func newOutside(a, b Network) Network {
	var out Network
	if added := newAddresses(a, b); len(added) > 0 {
		out.Interfaces = []netns.Interface{{Addresses: added}}
	}
	for _, f := range b.Forwards {
		if !slices.Contains(a.Forwards, f) {
			out.Forwards = append(out.Forwards, f)
		}
	}
	return out
}

// newAddresses are those that b has and a has not.
func newAddresses(a, b Network) (out []netip.Prefix) {
	had := map[netip.Addr]bool{}
	for _, p := range a.Addresses() {
		had[p.Addr()] = true
	}
	for _, p := range b.Addresses() {
		if !had[p.Addr()] {
			out = append(out, p)
		}
	}
	return out
}
