package container

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/ctctl/ctctl/internal/undo"
	"golang.org/x/sys/unix"
)

// The files inside that say who the container is. They are written when the
// container is made, and when it is asked for: in between they are its admin's.
const (
	hostnameFile = "etc/hostname"
	hostsFile    = "etc/hosts"
	resolvFile   = "etc/resolv.conf"
)

// maxIdentityBytes bounds what is read of such a file.
const maxIdentityBytes = 1 << 20

// resolvMark is the first line of a resolv.conf of ours.
const resolvMark = "# Written by ctctl: ctctl set --dns and --search change it.\n"

// applyFiles writes the files that a change of the host name or of DNS touches.
// What they were goes into the intent first, so that a kill can be undone.
func (l *Locked) applyFiles(c change, undos *undo.Stack) (err error) {
	was, is := l.Config.Hostname, c.saved.Hostname // which for a while may be another than the one in effect
	rename := was != is
	resolve := !slices.Equal(c.from.Network.DNS, c.to.Network.DNS) || !slices.Equal(c.from.Network.Search, c.to.Network.Search)
	if !rename && !resolve {
		return nil
	}
	root, err := l.openRoot(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.close()) }()
	files, err := root.identity(c, was, resolve)
	if err != nil || len(files) == 0 {
		return err
	}
	in := l.State.Intent
	for name := range files {
		was, err := root.read(name)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		in.Files = append(in.Files, File{Name: name, Was: bytesOf(was)})
	}
	if err := l.SaveState(); err != nil {
		return err
	}
	undos.Push("files", func(context.Context) error { return l.putBack(in.Files) })
	for name, text := range files {
		if err := root.write(name, text); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// bytesOf is for JSON, which would not keep a text that is no UTF-8.
func bytesOf(text *string) *[]byte {
	if text == nil {
		return nil
	}
	b := []byte(*text)
	return &b
}

// identity is what the files are to say; those in a directory that is not there
// are left out.
func (r innerRoot) identity(c change, was string, resolve bool) (map[string]string, error) {
	files := map[string]string{}
	if is := c.saved.Hostname; was != is {
		files[hostnameFile] = is + "\n"
		hosts, err := r.read(hostsFile)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", hostsFile, err)
		}
		if hosts != nil {
			files[hostsFile] = renamed(*hosts, was, is)
		}
	}
	if resolve {
		files[resolvFile] = resolvConf(c.to)
	}
	return files, nil
}

// renamed exchanges the name in the line of Debian's for the host itself.
func renamed(hosts, from, to string) string {
	var out strings.Builder
	for line := range strings.Lines(hosts) {
		words := strings.Fields(line)
		if len(words) > 1 && words[0] == "127.0.1.1" && slices.Contains(words[1:], from) {
			for i, w := range words {
				if w == from {
					words[i] = to
				}
			}
			line = words[0] + "\t" + strings.Join(words[1:], " ") + "\n"
		}
		out.WriteString(line)
	}
	return out.String()
}

// resolvConf is resolv.conf(5) for a configuration: what it says, and without
// name servers those of the host.
func resolvConf(c Config) string {
	var b strings.Builder
	b.WriteString(resolvMark)
	if len(c.Network.Search) > 0 {
		b.WriteString("search " + strings.Join(c.Network.Search, " ") + "\n")
	}
	for _, a := range c.Network.DNS {
		b.WriteString("nameserver " + a.String() + "\n")
	}
	if len(c.Network.DNS) > 0 || !c.Network.NAT() {
		return b.String()
	}
	for line := range strings.Lines(hostResolver()) {
		if f := strings.Fields(line); len(f) > 1 && (f[0] == "nameserver" || f[0] == "search" && len(c.Network.Search) == 0) {
			b.WriteString(strings.TrimRight(line, "\n") + "\n")
		}
	}
	return b.String()
}

// putBack undoes what applyFiles wrote.
func (l *Locked) putBack(files []File) (err error) {
	if len(files) == 0 {
		return nil
	}
	status, run, err := l.Status()
	if err != nil {
		return err
	}
	root, err := l.openRoot(change{status: status, run: run})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.close()) }()
	for _, f := range files {
		if f.Was == nil {
			err = errors.Join(err, root.remove(f.Name))
			continue
		}
		err = errors.Join(err, root.write(f.Name, string(*f.Was)))
	}
	return err
}

// innerRoot is a container's root directory. Everything below it is hostile: files
// are opened within it and nowhere else.
type innerRoot struct{ end }

// openRoot opens the root that a running init sees, or the volume.
func (l *Locked) openRoot(c change) (r innerRoot, err error) {
	path := l.m.Volumes.Path(l.State.Volume)
	if c.up() {
		path = fmt.Sprintf("/proc/%d/root", c.run.PID)
		if ids := l.Config.IDs(); ids != nil {
			r.owner = int(ids.Base)
		}
	}
	r.Container = l.Config.Name
	if r.root, err = unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return r, fmt.Errorf("open the container's root: %w", err)
	}
	if c.up() && !c.run.Alive() { // the pid may be somebody else's now
		return r, errors.Join(ErrDied, r.close())
	}
	return r, nil
}

// read answers nil for a file that is not there.
func (r innerRoot) read(name string) (text *string, err error) {
	fd, err := r.open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // documented
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%w: it is no regular file", ErrConfig)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxIdentityBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxIdentityBytes {
		return nil, fmt.Errorf("%w: it is larger than %d bytes", ErrConfig, maxIdentityBytes)
	}
	s := string(bytes.Clone(b))
	return &s, nil
}

func (r innerRoot) write(name, text string) error {
	err := asOwner(r.owner, func() error { return writeIn(r.root, name, text) })
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s leads to a directory that is not there", ErrConfig, name)
	}
	return err
}

// remove takes away a file that was made, where its directory is one.
func (r innerRoot) remove(name string) error {
	dir, base := split(name)
	fd, err := r.open(dir, unix.O_PATH|unix.O_DIRECTORY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return ignoreAbsent(asOwner(r.owner, func() error { return unix.Unlinkat(fd, base, 0) }))
}
