// Package host opens a machine's state root and hands out what keeps its
// containers: the one package a Go program needs to import.
//
//	h, err := host.Open(ctx, host.Options{})
//	…
//	defer h.Close()
//	c, err := h.Containers.Create(ctx, "web1", container.CreateOptions{Template: "debian", Auto: true})
//	err = h.Containers.Start(ctx, "web1")
//	snap, err := h.Checkpoints.Snapshot(ctx, "web1", checkpoint.SnapshotOptions{Name: "good"})
//	rolled, err := h.Checkpoints.Rollback(ctx, "web1", "good")
//
// A running container has a supervisor process, which is the running executable
// started again (Linux containers need such a re-execution anyway). It happens in
// the init functions of the packages imported here; a program need not do
// anything for it, but must not have init functions with lasting effects.
package host
