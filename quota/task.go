package quota

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// readTask reads the stat of one thread; /proc/TID/stat would add up the times
// of all threads of the process.
func readTask(tid int) (Task, error) {
	id := strconv.Itoa(tid)
	s, err := readText("/proc/" + id + "/task/" + id + "/stat")
	if err != nil {
		return Task{}, err
	}
	return parseStat(tid, s)
}

// parseStat: comm may hold spaces and brackets, so the last bracket counts,
// proc_pid_stat(5).
func parseStat(tid int, s string) (Task, error) {
	open, end := strings.IndexByte(s, '('), strings.LastIndexByte(s, ')')
	if open < 0 || end < open || len(s) < end+3 {
		return Task{}, fmt.Errorf("read the state of task %d: unexpected %q", tid, s)
	}
	name := strconv.Quote(s[open+1 : end])
	return Task{PID: tid, Command: name[1 : len(name)-1], State: s[end+2]}, nil
}

// those returns the tasks for which want is true.
func those(tids []int, want func(Task) bool) ([]Task, error) {
	var list []Task
	for _, tid := range tids {
		t, err := readTask(tid)
		if vanished(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if want(t) {
			list = append(list, t)
		}
	}
	return list, nil
}

// threadsFile lists the thread ids of one cgroup.
func (f freezer) threadsFile() string {
	if f.v1 {
		return "tasks"
	}
	return "cgroup.threads"
}

func (f freezer) threads() ([]int, error) { return idsBelow(f.dir, f.threadsFile()) }

// settle waits until the tasks of a frozen group really stand. "frozen 1" in
// cgroup.events is not enough, for three reasons in the kernel:
//
//   - Of a cgroup that has both tasks and cgroups below it, it is said when
//     either all its tasks or all cgroups below it are frozen.
//   - A task on its way into the wait of vfork(2) counts before it sleeps, and
//     a task that has just been thawed still counts while it wakes up.
//   - A task in vfork counts, see Freeze.
//
// After the write to cgroup.freeze has returned, every task has been told, so a
// task in an interruptible sleep (S) or stopped (T, t) stands. One that runs (R)
// or sleeps uninterruptibly (D) does not yet. Tasks forked while the states were
// read are found by listing again.
//
// With the v1 freezer, which looks at each task, FROZEN holds; there all tasks
// are in state D, and only the vfork is to be found.
func (f freezer) settle(ctx context.Context) ([]Task, error) {
	begin := time.Now()
	for p := pollFirst; ; p = p.next() {
		tids, err := f.threads()
		if err != nil {
			return nil, err
		}
		busy, err := those(tids, func(t Task) bool { return t.State == 'D' || t.State == 'R' && !f.v1 })
		if err != nil {
			return nil, err
		}
		var asleep, vfork []Task
		for _, t := range busy {
			switch {
			case t.State != 'D':
			case inFork(t.PID):
				vfork = append(vfork, t)
			case !f.v1:
				asleep = append(asleep, t)
			}
		}
		if len(vfork) > 0 && len(asleep) == 0 {
			return vfork, errVfork
		}
		if f.v1 {
			return nil, nil
		}
		if len(busy) == 0 {
			again, err := f.threads()
			if err != nil || slices.Equal(tids, again) {
				return nil, err
			}
		}
		if err := ctx.Err(); err != nil {
			return busy, err
		}
		if len(vfork) > 0 || len(asleep) > 0 && time.Since(begin) > sleepAttempt {
			return asleep, errStillFreezing
		}
		if err := p.sleep(); err != nil {
			return nil, err
		}
	}
}

// inFork tells whether the task waits for its vfork child: that is in the
// kernel's function kernel_clone, before Linux 5.10 _do_fork.
func inFork(tid int) bool {
	wchan, err := readText("/proc/" + strconv.Itoa(tid) + "/wchan")
	return err == nil && (strings.Contains(wchan, "fork") || strings.Contains(wchan, "kernel_clone"))
}

// running returns the tasks that keep the group from being frozen, for the
// error message: it does its best and never fails. Tasks in vfork count as
// frozen; with the v1 freezer all that are frozen are in state D.
func (f freezer) running() []Task {
	tids, err := f.threads()
	if err != nil {
		return nil
	}
	list, err := those(tids, func(t Task) bool {
		if f.v1 {
			return t.State == 'R' || t.State == 'S'
		}
		return t.State == 'R' || t.State == 'D' && !inFork(t.PID)
	})
	if err != nil {
		return nil
	}
	return list
}
