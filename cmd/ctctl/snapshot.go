package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ctctl/ctctl/checkpoint"
	"github.com/urfave/cli/v2"
)

func snapshotCommand() *cli.Command {
	return &cli.Command{
		Name:  "snapshot",
		Usage: "take, list, delete and look into snapshots",
		Subcommands: []*cli.Command{
			{
				Name: "create", Usage: "take a snapshot: memory, processes and files of the same instant", ArgsUsage: "NAME [SNAP]",
				Description: "A running container stands still while its memory is written, and goes on. SNAP is made from the\n" +
					"time when it is left out.",
				Flags: []cli.Flag{
					&cli.BoolFlag{Name: "disk-only", Usage: "leave the processes out: what a power cut would leave"},
					&cli.StringFlag{Name: "message", Aliases: []string{"m"}, Usage: "`TEXT` that says what it is for"},
					noPreflightFlag(),
				},
				Action: runSnapshotCreate,
			},
			{
				Name: "list", Usage: "list the snapshots of a container", ArgsUsage: "NAME", Action: runSnapshotList,
				Description: "Each stands below the one that the container was at when it was taken. A star marks the one that\n" +
					"the container is at: what it was when it was taken or rolled back to, plus what happened since.",
			},
			{
				Name: "delete", Usage: "delete a snapshot; those that followed it stay", ArgsUsage: "NAME SNAP",
				Action: func(c *cli.Context) error {
					return withSnapshot(c, 2, "deleting", func(ctx context.Context, s *session, a []string) error {
						return s.done(s.Checkpoints.Delete(ctx, a[0], a[1]), "deleted snapshot %s of %s", a[1], a[0])
					})
				},
			},
			{
				Name: "mount", Usage: "show the files of a snapshot, read-only, in a directory of the host", ArgsUsage: "NAME SNAP DIR",
				Action: func(c *cli.Context) error {
					return withSnapshot(c, 3, "mounting", func(ctx context.Context, s *session, a []string) error {
						return s.done(s.Checkpoints.Mount(ctx, a[0], a[1], a[2]), "mounted; ctctl snapshot umount %s ends it", a[2])
					})
				},
			},
			{
				Name: "umount", Usage: "end what mount began", ArgsUsage: "DIR",
				Action: func(c *cli.Context) error {
					args, err := arguments(c, 1, 1)
					if err != nil {
						return err
					}
					return withHost(c, "unmounting "+args[0], func(ctx context.Context, s *session) error {
						return s.done(s.Checkpoints.Umount(ctx, args[0]), "unmounted %s", args[0])
					})
				},
			},
		},
	}
}

// noPreflightFlag is for the commands that checkpoint.
func noPreflightFlag() cli.Flag {
	return &cli.BoolFlag{Name: "no-preflight", Usage: "do not look first, with everything running, for what CRIU can't save"}
}

// withSnapshot checks NAME, SNAP and so many arguments in all.
func withSnapshot(c *cli.Context, count int, doing string, do func(ctx context.Context, s *session, args []string) error) error {
	args, err := arguments(c, count, count)
	if err != nil {
		return err
	}
	if err := containerName(c, args[0]); err != nil {
		return err
	}
	if err := snapshotName(c, args[1]); err != nil {
		return err
	}
	return withHost(c, doing+" "+args[0]+" "+args[1], func(ctx context.Context, s *session) error { return do(ctx, s, args) })
}

func snapshotName(c *cli.Context, name string) error {
	if checkpoint.CheckName(name) != nil {
		return misuse(c, "%s is no snapshot name: use a-z, 0-9, '.', '_' and '-', 1 to 63 characters, beginning with a letter or digit, but not with suspend-, and not ending in .tmp", quoteWord(name))
	}
	return nil
}

// maxMessage bounds a snapshot's description; it is read whenever they are listed.
const maxMessage = 4096

func runSnapshotCreate(c *cli.Context) error {
	args, err := arguments(c, 1, 2)
	if err != nil {
		return err
	}
	o := checkpoint.SnapshotOptions{DiskOnly: c.Bool("disk-only"), Message: c.String("message")}
	if err := containerName(c, args[0]); err != nil {
		return err
	}
	if len(args) > 1 {
		o.Name = args[1]
		if err := snapshotName(c, o.Name); err != nil {
			return err
		}
	}
	if len(o.Message) > maxMessage {
		return misuse(c, "--message: a text of %d bytes, at most %d", len(o.Message), maxMessage)
	}
	return withHost(c, "taking a snapshot of "+args[0], func(ctx context.Context, s *session) error {
		s.Checkpoints.NoPreflight = c.Bool("no-preflight")
		mf, err := s.Checkpoints.Snapshot(ctx, args[0], o)
		if err != nil {
			return err
		}
		s.talk.stop()
		if len(mf.Retried) > 0 {
			s.confirm("it took %d tries: %s", mf.Tries, strings.Join(mf.Retried, "; "))
		}
		l := snapshotListing()
		l.single, l.items = true, []snapshotView{snapshotOf(mf, mf.Name)}
		if l.columns, err = pick(l.columns, "name,frozen,memory,size"); err != nil {
			return err
		}
		l.columns[0].text = l.columns[0].raw // no star
		return emit(c, l)
	})
}

// snapshotView is a snapshot as json and yaml show it.
type snapshotView struct {
	Name        string    `json:"name"`
	Created     time.Time `json:"created"`
	Parent      string    `json:"parent,omitempty"`
	Current     bool      `json:"current"`
	Safety      bool      `json:"safety"`
	Status      string    `json:"status"`
	Memory      bool      `json:"memory"`
	MemoryBytes int64     `json:"memory_image_bytes"`
	FrozenMS    float64   `json:"frozen_ms"`
	// Tries is how often the container was stopped for it, Retried why again.
	Tries   int      `json:"tries,omitempty"`
	Retried []string `json:"retried,omitempty"`
	Message string   `json:"message,omitempty"`
	Kernel  string   `json:"kernel,omitempty"`
	CRIU    string   `json:"criu,omitempty"`

	branch string // what draws the tree
}

func snapshotOf(mf checkpoint.Manifest, current string) snapshotView {
	return snapshotView{
		Name: mf.Name, Created: mf.Created.UTC().Truncate(time.Millisecond), Parent: mf.Parent, Current: mf.Name == current, Safety: mf.Safety,
		Status: string(mf.Status), Memory: mf.Memory, MemoryBytes: mf.SizeBytes(), FrozenMS: span(mf.Frozen), Message: mf.Message,
		Kernel: mf.Kernel, CRIU: mf.CRIU, Tries: mf.Tries, Retried: mf.Retried,
	}
}

func snapshotListing() listing[snapshotView] {
	return listing[snapshotView]{
		kind: "Snapshot",
		id:   func(v snapshotView) string { return v.Name },
		columns: []column[snapshotView]{
			{name: "name", text: func(v snapshotView) string {
				if v.Current {
					return v.branch + v.Name + " *"
				}
				return v.branch + v.Name
			}, raw: func(v snapshotView) string { return v.Name }},
			{name: "taken", text: func(v snapshotView) string { return timeText(v.Created) }, raw: func(v snapshotView) string { return timeRaw(v.Created) }},
			{name: "status", text: func(v snapshotView) string { return v.Status }},
			{name: "memory", text: func(v snapshotView) string { return yesNo(v.Memory) }},
			{name: "size", text: func(v snapshotView) string { return limitText(v.MemoryBytes) }, raw: func(v snapshotView) string { return number(v.MemoryBytes) }},
			{name: "frozen", text: func(v snapshotView) string { return spanText(time.Duration(v.FrozenMS * 1e6)) }, raw: func(v snapshotView) string { return fmt.Sprint(v.FrozenMS) }},
			{name: "message", text: func(v snapshotView) string { return v.Message }},
		},
	}
}

func runSnapshotList(c *cli.Context) error {
	name, err := oneContainer(c)
	if err != nil {
		return err
	}
	return withHost(c, "listing", func(ctx context.Context, s *session) error {
		list, current, err := s.Checkpoints.List(ctx, name) // what can be read, and an error
		s.talk.stop()
		if err != nil && len(list) == 0 {
			return err
		}
		l := snapshotListing()
		for _, mf := range list {
			l.items = append(l.items, snapshotOf(mf, current))
		}
		l.items = asTree(l.items)
		return errors.Join(err, emit(c, l))
	})
}

// asTree puts each snapshot below its parent and draws the branches. One whose
// parent is not there is a root; none is lost whatever the parents say.
func asTree(list []snapshotView) []snapshotView {
	byName := map[string]bool{}
	children := map[string][]snapshotView{}
	for _, v := range list {
		byName[v.Name] = true
	}
	for _, v := range list {
		parent := v.Parent
		if !byName[parent] || parent == v.Name {
			parent = ""
		}
		children[parent] = append(children[parent], v)
	}
	var out []snapshotView
	done := map[string]bool{}
	var walk func(parent, indent string)
	walk = func(parent, indent string) {
		for i, v := range children[parent] {
			if done[v.Name] {
				continue
			}
			done[v.Name] = true
			below := indent
			if parent != "" {
				last := i == len(children[parent])-1
				v.branch = indent + pickText(last, "`-", "|-")
				below = indent + pickText(last, "  ", "| ")
			}
			out = append(out, v)
			walk(v.Name, below)
		}
	}
	walk("", "")
	for _, v := range list { // parents that go round in a circle
		if !done[v.Name] {
			done[v.Name] = true
			out = append(out, v)
			walk(v.Name, "")
		}
	}
	return out
}

func pickText(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}
