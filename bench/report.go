package main

import (
	"fmt"
	"os"
	"slices"
	"time"
)

func printCheckpoints(all []*figures) error {
	for _, t := range []*table{snapshotTable(all), rollbackTable(all), suspendTable(all)} {
		if err := t.print(os.Stdout); err != nil {
			return err
		}
	}
	for i, op := range traced {
		var columns []string
		trace := map[string]*phases{}
		for _, f := range all {
			column := fmt.Sprintf("%d MiB", f.mib)
			columns, trace[column] = append(columns, column), f.trace[op]
		}
		if err := printPhases(fmt.Sprintf("5.%d Phases of ctctl %s (ctctl --trace)", i+1, op), columns, columns, trace); err != nil {
			return err
		}
	}
	return nil
}

func snapshotTable(all []*figures) *table {
	t := &table{
		title: "2. Snapshot of a running container, and CRIU alone: dump, the container left running, with the same options",
		head:  []string{"touched memory", "ctctl", "criu", "ratio"},
		notes: []string{
			"pause: the longest time without an answer, of clients who send a byte every millisecond. One waits for the answer",
			"before it sends the next: if that byte is lost in CRIU's packet filter, TCP sends it again only after 200 ms.",
			"pauses when nothing happens: of both clients, in a second.",
			"frozen: ctctl from the freeze to the thaw; CRIU as its statistics say.",
			"criu is asked over its RPC: its command line can't dump a console whose other end is outside.",
			"ctctl also takes the disk at the same instant, digests the images and makes them durable; CRIU does none of that.",
		},
	}
	for _, f := range all {
		size := fmt.Sprintf("%d MiB: ", f.mib)
		t.compare(size+"pause of a client who waits for each answer", f.snapshotPauses.waits, f.dumpPauses.waits)
		t.compare(size+"pause of a client who does not", f.snapshotPauses.gaps, f.dumpPauses.gaps)
		t.compare(size+"frozen", f.trace["snapshot create"].times["frozen"], f.dumpFrozen)
		t.compare(size+"whole command", f.snapshot, f.dump)
		t.add(size+"pauses when nothing happens", show(f.idle.wait), show(f.idle.gap), "")
	}
	return t
}

// compare makes a row of the medians of ours and theirs.
func (t *table) compare(name string, ours, theirs sample) {
	t.add(name, show(ours.median()), show(theirs.median()), ratio(ours.median(), theirs.median()))
}

func rollbackTable(all []*figures) *table {
	t := &table{
		title: "3. Rollback of a running container, and CRIU alone",
		head:  []string{"touched memory", "ctctl", "criu restore", "ratio", "criu dump + restore", "ratio"},
		notes: []string{
			"ctctl first takes a snapshot of the state that is given up, so it does what CRIU does in a dump and a restore.",
			"without an answer: how long a client gets none who pings every millisecond and connects anew when its connection is dead.",
		},
	}
	for _, f := range all {
		raw, both := f.restore.median(), f.dump.median()+f.restore.median()
		for name, s := range pairs("whole command", f.rollback, "without an answer", f.rollbackOutage) {
			t.add(fmt.Sprintf("%d MiB: %s", f.mib, name), show(s.median()), show(raw), ratio(s.median(), raw), show(both), ratio(s.median(), both))
		}
	}
	return t
}

func suspendTable(all []*figures) *table {
	t := &table{
		title: "4. Suspend and resume, and CRIU alone: dump for the one, restore for the other",
		head:  []string{"touched memory", "ctctl", "criu", "ratio"},
		notes: []string{
			"first answer: from the start of ctctl resume to an answer over the connection that was open before the suspend.",
			"criu restore: the same image on the same disk into a network namespace without links.",
		},
	}
	for _, f := range all {
		size := fmt.Sprintf("%d MiB: ", f.mib)
		t.compare(size+"suspend", f.suspend, f.dump)
		t.compare(size+"resume", f.resume, f.restore)
		t.compare(size+"resume, first answer", f.resumeAnswer, f.restore)
	}
	return t
}

// pairs goes over two named samples in order.
func pairs(first string, a sample, second string, b sample) func(func(string, sample) bool) {
	return func(yield func(string, sample) bool) {
		if yield(first, a) {
			yield(second, b)
		}
	}
}

// printPhases prints a table of phases, a column for each key of trace.
func printPhases(title string, columns, keys []string, trace map[string]*phases) error {
	t := &table{title: title, head: append([]string{"phase, median"}, columns...)}
	var order []string
	for _, k := range keys {
		for _, p := range trace[k].order {
			if !slices.Contains(order, p) {
				order = append(order, p)
			}
		}
	}
	for _, p := range order {
		row := []string{p}
		for _, k := range keys {
			row = append(row, showPhase(trace[k].median(p)))
		}
		t.add(row...)
	}
	if len(order) == 0 {
		t.notes = append(t.notes, "no trace was printed")
	}
	return t.print(os.Stdout)
}

func showPhase(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(d.Microseconds())/1000)
}
