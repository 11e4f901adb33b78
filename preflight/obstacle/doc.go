// Package obstacle makes, for tests, small trees of processes of which one holds
// something that may stand in the way of a checkpoint: an io_uring, a nested
// namespace, a file of the host. It is no part of the product.
//
// A program that starts trees must be ready to become a part of one:
//
//	if ran, err := obstacle.Main(); ran {
//		// report err and exit
//	}
package obstacle

import (
	"fmt"
	"maps"
	"os"
	"slices"
)

// kind is one obstacle, made by a process inside a tree.
type kind struct {
	make func() error
	// give makes what the process gets as standard input and output.
	give func(*Tree) (*os.File, error)
	// join is done from outside when the rest is ready.
	join func(*Tree) error
}

// kinds are all obstacles by name. init, because the parts of the program refer
// to it.
var kinds = map[string]kind{}

func init() {
	for _, some := range []map[string]kind{anonymousKinds, socketKinds, fileKinds, taskKinds, mountKinds, outsideKinds} {
		maps.Copy(kinds, some)
	}
}

// Names lists the obstacles.
func Names() []string { return slices.Sorted(maps.Keys(kinds)) }

// keep holds what an obstacle consists of until the process ends.
var keep []any

// step is one system call's result with its name.
func step(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
