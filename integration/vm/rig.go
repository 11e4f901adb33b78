package vmrig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ctctl/ctctl/internal/statefile"
	"golang.org/x/sys/unix"
)

// cacheEnv names the directory where images are kept between runs.
const (
	cacheEnv     = "CTCTL_TEST_CACHE"
	defaultCache = "/var/tmp/ctctl-cache"
	workPrefix   = "/var/tmp/ctctl-vm-"
	guestPackage = "github.com/ctctl/ctctl/integration/vm/guest"
)

// CacheDir is where images are kept between runs.
func CacheDir() string {
	if dir := os.Getenv(cacheEnv); dir != "" {
		return dir
	}
	return defaultCache
}

// Rig is what the machines of one test run share.
type Rig struct {
	Dir string // scratch, removed by Close

	lock  *statefile.Lock
	accel accelerator
	guest string // the program for the guests

	mu       sync.Mutex
	machines []*Machine
	running  map[int]bool // process ids
	images   map[string]*os.File
	peak     int64 // bytes

	stop    chan struct{}
	sampled chan struct{}
}

// New clears away what a killed run has left, and prepares for machines of an
// image's kind. The sources must be there: the program for the guests is built
// from them.
func New(ctx context.Context, image string) (_ *Rig, err error) {
	if err := reap(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(filepath.Dir(workPrefix), filepath.Base(workPrefix)+"*")
	if err != nil {
		return nil, err
	}
	r := &Rig{Dir: dir, running: map[int]bool{}, images: map[string]*os.File{}, stop: make(chan struct{}), sampled: make(chan struct{})}
	go r.sample()
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
		}
	}()
	if r.lock, err = statefile.TryLock(dir+"/lock", "vm tests"); err != nil {
		return nil, err
	}
	if r.accel, err = accelerate(ctx, filepath.Join(image, "kernel"), CacheDir()); err != nil {
		return nil, err
	}
	r.guest = filepath.Join(dir, "guest")
	return r, r.buildGuest(ctx)
}

func (r *Rig) buildGuest(ctx context.Context) error {
	cmd := outside(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", r.guest, guestPackage)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the program for the guests: %w\n%s", err, out)
	}
	return nil
}

// Accelerator is kvm or tcg.
func (r *Rig) Accelerator() string { return r.accel.name }

// Machine describes a machine of this rig, which is off.
func (r *Rig) Machine(c Config) *Machine {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.Dir == "" {
		c.Dir = filepath.Join(r.Dir, fmt.Sprintf("%s-%d", c.Name, len(r.machines)))
	}
	m := &Machine{Config: c, rig: r}
	r.machines = append(r.machines, m)
	return m
}

// hold keeps an image from being replaced while its machines may start.
func (r *Rig) hold(image string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.images[image] != nil {
		return nil
	}
	f, err := os.Open(image)
	if err != nil {
		return err
	}
	// The script that makes images locks those that it removes.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("lock %s: %w", image, err), f.Close())
	}
	r.images[image] = f
	return nil
}

// Disk makes an image of a file system with the content of a directory, in the
// rig's directory. Size is in the units of mke2fs(8), 512M for example.
func (r *Rig) Disk(ctx context.Context, name, dir, size string) (string, error) {
	out := filepath.Join(r.Dir, name)
	return out, disk(ctx, out, dir, size)
}

// Peak is the most memory, in bytes, that all machines together have used.
func (r *Rig) Peak() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.peak
}

// begin starts a machine's QEMU and writes down its process id, for the run after
// one that is killed.
func (r *Rig) begin(cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running[cmd.Process.Pid] = true
	return os.WriteFile(r.pidFile(cmd.Process.Pid), nil, 0o600)
}

// end takes note that a machine's QEMU has ended.
func (r *Rig) end(pid int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, pid)
	return os.Remove(r.pidFile(pid))
}

func (r *Rig) pidFile(pid int) string { return filepath.Join(r.Dir, "pid-"+strconv.Itoa(pid)) }

// Close ends all machines and removes everything.
func (r *Rig) Close() error {
	close(r.stop)
	<-r.sampled
	r.mu.Lock()
	machines := r.machines
	r.mu.Unlock()
	var errs []error
	for _, m := range machines {
		errs = append(errs, m.PowerCut())
	}
	for _, f := range r.images {
		errs = append(errs, f.Close())
	}
	errs = append(errs, statefile.RemoveTree(r.Dir))
	if r.lock != nil {
		errs = append(errs, r.lock.Unlock())
	}
	return errors.Join(errs...)
}

// sample measures the memory of all machines, until Close.
func (r *Rig) sample() {
	defer close(r.sampled)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-tick.C:
		}
		r.mu.Lock()
		var sum int64
		for pid := range r.running {
			sum += residentBytes(pid)
		}
		r.peak = max(r.peak, sum)
		r.mu.Unlock()
	}
}

// residentBytes is 0 for a process that has ended.
func residentBytes(pid int) int64 {
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(raw))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// reap ends the machines of runs that were killed, and removes their files. A run
// that goes on holds its lock.
func reap() error {
	dirs, err := filepath.Glob(workPrefix + "*")
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		lock, err := statefile.TryLock(dir+"/lock", "clear up")
		if errors.Is(err, statefile.ErrBusy) || errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := errors.Join(killRecorded(dir), statefile.RemoveTree(dir), lock.Unlock()); err != nil {
			return err
		}
	}
	return nil
}

// killRecorded kills the processes that are written down, if they still are what
// they were: QEMUs with files in that directory.
func killRecorded(dir string) error {
	notes, err := filepath.Glob(dir + "/pid-*")
	if err != nil {
		return err
	}
	for _, note := range notes {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(note), "pid-"))
		if err != nil {
			continue
		}
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !strings.HasPrefix(string(line), qemu) || !strings.Contains(string(line), dir+"/") {
			continue
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return err
		}
	}
	return nil
}
