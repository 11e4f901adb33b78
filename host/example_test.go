package host_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/ctctl/ctctl/checkpoint"
	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/host"
)

// A container is created from a directory that holds a small root file system,
// snapshotted while it runs, changed, and rolled back: its files and the memory
// of its processes are as they were.
func Example() {
	ctx := context.Background()
	h, err := host.Open(ctx, host.Options{StateRoot: exampleState, RunRoot: exampleRun})
	if err != nil {
		log.Fatal(err)
	}
	defer h.Close()
	if _, err := h.Templates.Import(ctx, "small", smallRoot); err != nil {
		log.Fatal(err)
	}
	// Counts in memory, and says how far it is when it is asked.
	count := "n=0; while :; do n=$((n+1)); if [ -e /ask ]; then echo $n >/answer; rm /ask; fi; sleep 0.01; done"
	if _, err := h.Containers.Create(ctx, "web1", container.CreateOptions{Template: "small", Command: []string{"/bin/sh", "-c", count}}); err != nil {
		log.Fatal(err)
	}
	if err := h.Containers.Start(ctx, "web1"); err != nil {
		log.Fatal(err)
	}
	run := func(script string) string {
		var out bytes.Buffer
		_, err := h.Containers.Exec(ctx, "web1", container.ExecOptions{Args: []string{"/bin/sh", "-c", script}, Stdout: &out, Stderr: &out})
		if err != nil {
			log.Fatal(err)
		}
		return strings.TrimSpace(out.String())
	}
	run("echo precious >/data")
	if _, err := h.Checkpoints.Snapshot(ctx, "web1", checkpoint.SnapshotOptions{Name: "good"}); err != nil {
		log.Fatal(err)
	}
	run("rm /data")
	rolled, err := h.Checkpoints.Rollback(ctx, "web1", "good")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(rolled.Status, run("cat /data"))
	fmt.Println("still counting:", run("touch /ask; while [ -e /ask ]; do sleep 0.01; done; test $(cat /answer) -gt 1 && echo yes"))
	if err := h.Destroy(ctx, "web1", true); err != nil {
		log.Fatal(err)
	}
	// Output:
	// running precious
	// still counting: yes
}
