package preflight

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrGone means that the first process has ended.
var ErrGone = errors.New("the container's first process has ended")

// defaultGhostLimit is what this program lets CRIU save of a deleted file.
const defaultGhostLimit = 256 << 20

// secondLook is how long after the beginning what may pass is looked at again, and
// laterLooks when again what would be a failure: on a busy machine a process takes
// its time to end.
const secondLook = 30 * time.Millisecond

var laterLooks = []time.Duration{100 * time.Millisecond, 300 * time.Millisecond, time.Second}

// Target is a running container.
type Target struct {
	// Init is its first process, as the caller sees it.
	Init int
	// PIDs lists every process in its cgroup; those that do not descend from Init
	// were started from outside and are in no image. nil looks at the descendants
	// alone.
	PIDs func() ([]int, error)
	// Name is the container's, for the commands in cures.
	Name string
	// External are the mount points inside whose sources lie outside and are
	// named to CRIU.
	External []string
	// GhostLimitBytes is how large a deleted open file may be; 0 is 256 MiB.
	GhostLimitBytes int64
	// FreezerV1 says that the processes are frozen by the v1 freezer.
	FreezerV1 bool
	// Paused says that they are frozen already: then sleeping uninterruptibly
	// means nothing.
	Paused bool
}

// examination is one Examine.
type examination struct {
	t       Target
	begin   time.Time
	root    *process
	depth   int        // of the container's pid namespace below the caller's, from 1
	list    []*process // the tree, its first process first
	tree    map[int]*process
	strays  []*process // in the cgroup but not in the tree
	own     map[string]string
	spaces  map[string]bool // every namespace of the tree
	mounts  mountTable
	unread  map[string]bool // inodes of netlink sockets
	base    string          // cgroup path of the container
	threads int

	mu          sync.Mutex
	found       []Finding
	doubts      []doubt
	holders     map[string]*holder // of sockets by their link
	mapped      map[string]bool    // files that are mapped and are well
	shared      map[string]int64   // bytes of shared memory by inode
	descriptors int
	sockets     int
	mappings    int
}

// doubt is a finding that counts if it is still there at a second look.
type doubt struct {
	finding Finding
	still   func(*reader) bool
}

// Examine looks at every process of a container without stopping any. It takes
// about 0.2 ms a process, and secondLook at least when something is in doubt.
//
// Errors: ErrGone, the context's, and those of PIDs and of a /proc that does not
// let itself be read. What has ended meanwhile is no error.
func Examine(ctx context.Context, t Target) (Report, error) {
	x := &examination{
		t: t, begin: time.Now(), tree: map[int]*process{}, spaces: map[string]bool{}, unread: map[string]bool{},
		holders: map[string]*holder{}, mapped: map[string]bool{}, shared: map[string]int64{},
	}
	if x.t.GhostLimitBytes == 0 {
		x.t.GhostLimitBytes = defaultGhostLimit
	}
	r := new(reader)
	for _, do := range []func(*reader) error{x.collect, x.namespaces, x.readNetlink} {
		if err := do(r); err != nil {
			return Report{}, fmt.Errorf("pre-flight: %w", err)
		}
		if err := ctx.Err(); err != nil {
			return Report{}, err
		}
	}
	if err := x.walk(ctx); err != nil {
		return Report{}, fmt.Errorf("pre-flight: %w", err)
	}
	if err := x.checkConnections(r); err != nil {
		return Report{}, fmt.Errorf("pre-flight: %w", err)
	}
	tmpfs, files := x.checkMounts(r)
	if err := x.lookAgain(ctx, r); err != nil {
		return Report{}, err
	}
	return x.report(tmpfs, files), nil
}

// mostWorkers bounds how many look at processes at once: this is done beside a
// running container.
const mostWorkers = 4

// walk looks at the descriptors and mappings of every process.
func (x *examination) walk(ctx context.Context) error {
	n := min(mostWorkers, runtime.GOMAXPROCS(0), len(x.list))
	work := make(chan *process, len(x.list))
	for _, p := range x.list {
		work <- p
	}
	close(work)
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			r := new(reader)
			for p := range work {
				if ctx.Err() != nil {
					errs[i] = ctx.Err()
					return
				}
				if err := x.look(r, p); err != nil && !vanished(err) {
					errs[i] = fmt.Errorf("process %d: %w", p.pid, err)
					return
				}
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

func (x *examination) look(r *reader, p *process) error {
	if p.ended() {
		return nil
	}
	if err := x.lookAtDescriptors(r, p); err != nil {
		return err
	}
	x.lookAtDirectories(p)
	return x.lookAtMappings(r, p)
}

// add records a finding of a rule's kind. words fill the places in its texts.
func (x *examination) add(r *reader, p *process, fd int, code, rule, what string, words map[string]string) {
	f := x.finding(r, p, fd, code, rule, what, words)
	x.mu.Lock()
	defer x.mu.Unlock()
	x.found = append(x.found, f)
}

// doubtful records a finding that counts if still is true later on.
func (x *examination) doubtful(f Finding, still func(*reader) bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.doubts = append(x.doubts, doubt{f, still})
}

func (x *examination) finding(r *reader, p *process, fd int, code, name, what string, words map[string]string) Finding {
	k := rules[name]
	f := Finding{Level: k.level, Area: k.area, Code: code, FD: fd, What: what, Transient: k.transient, same: what}
	w := map[string]string{"CT": x.t.Name}
	if x.t.Name == "" {
		w["CT"] = "CONTAINER"
	}
	if p != nil {
		x.identify(r, p)
		f.PID, f.HostPID, f.Command, f.Unit = p.inner, p.pid, p.comm, p.unit
		w["pid"], w["hostpid"] = fmt.Sprint(p.inner), fmt.Sprint(p.pid)
		w["stop"] = stopCommand(p, w["CT"])
	}
	for key, value := range words {
		w[key] = value
	}
	f.CRIU, f.Cure = fill(k.criu, w), fill(k.cure, w)
	return f
}

// identify reads what only findings need.
func (x *examination) identify(r *reader, p *process) {
	if p.unit != "" {
		return
	}
	if b, err := r.read(p.path+"/cgroup", mostStatus); err == nil {
		p.unit = unitOf(b, x.base)
	}
}

// stopCommand ends a process in the way that suits it.
func stopCommand(p *process, container string) string {
	switch {
	case p.inner == 1:
		return "ctctl restart " + container
	case strings.HasSuffix(p.unit, ".service"):
		return fmt.Sprintf("ctctl exec %s systemctl stop %s", container, p.unit)
	case p.inner == 0:
		return fmt.Sprintf("kill %d", p.pid)
	default:
		return fmt.Sprintf("ctctl exec %s kill %d", container, p.inner)
	}
}

// lookAgain keeps what was in doubt and is still so.
func (x *examination) lookAgain(ctx context.Context, r *reader) error {
	if err := x.lookAt(ctx, r, secondLook); err != nil {
		return err
	}
	harmless := func(d doubt) bool { return d.finding.Level != Fail }
	for _, after := range laterLooks {
		for _, d := range x.doubts {
			if harmless(d) {
				x.found = append(x.found, d.finding)
			}
		}
		x.doubts = slices.DeleteFunc(x.doubts, harmless)
		if err := x.lookAt(ctx, r, after); err != nil {
			return err
		}
	}
	for _, d := range x.doubts {
		x.found = append(x.found, d.finding)
	}
	return nil
}

// lookAt drops the doubts that have no reason any more, so long after the beginning.
func (x *examination) lookAt(ctx context.Context, r *reader, after time.Duration) error {
	if len(x.doubts) == 0 {
		return nil
	}
	wait := time.NewTimer(after - time.Since(x.begin))
	defer wait.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wait.C:
	}
	if err := x.readNetlink(r); err != nil {
		return err
	}
	x.doubts = slices.DeleteFunc(x.doubts, func(d doubt) bool { return !d.still(r) })
	return nil
}

// Figures of the frozen time, measured with CRIU 4.2: a start of its own, then
// for each process what it takes to seize it and put code into it, for each tmpfs
// a tar, and writing memory.
const (
	frozenBase    = 60 * time.Millisecond
	frozenProcess = 15 * time.Millisecond
	frozenTmpfs   = 30 * time.Millisecond
	frozenGiB     = 750 * time.Millisecond
)

func (x *examination) report(tmpfs int, files int64) Report {
	rep := Report{Processes: len(x.list), Threads: x.threads, Descriptors: x.descriptors}
	var anon, shmem, distinct int64
	for _, p := range x.list {
		anon += p.anon
		shmem += p.shmem
	}
	for _, n := range x.shared {
		distinct += n
	}
	// Resident shared memory is counted by each process that has it.
	rep.EstimatedBytes = anon + min(shmem, distinct) + files
	rep.EstimatedFrozen = frozenBase + time.Duration(len(x.list))*frozenProcess + time.Duration(tmpfs)*frozenTmpfs +
		time.Duration(float64(rep.EstimatedBytes)/(1<<30)*float64(frozenGiB))
	rep.finish(x.found, map[string]string{
		Processes:   fmt.Sprintf("%d processes, %d threads", len(x.list), x.threads),
		Namespaces:  "one of each kind, and mount namespaces",
		Descriptors: fmt.Sprintf("%d descriptors", x.descriptors),
		Sockets:     fmt.Sprintf("%d sockets", x.sockets),
		Mappings:    fmt.Sprintf("%d mappings", x.mappings),
		Mounts:      fmt.Sprintf("%d mounts", len(x.mounts.byID)),
	})
	return rep
}
