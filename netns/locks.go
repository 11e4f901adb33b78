package netns

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/nftables"
)

// lockTablePrefix begins the names of the tables with which CRIU's nftables
// network lock drops every packet in a namespace, 127.0.0.1 included.
const lockTablePrefix = "CRIU-"

// CleanLocks deletes CRIU's lock tables in the network namespace of process
// pid. CRIU leaves them behind when a restore fails, or when a dump ends the
// tasks while the namespace lives on. No table is no error.
//
// Errors: ErrNoProcess, ErrHostNamespace.
func CleanLocks(ctx context.Context, pid int) (err error) {
	defer wrapOp(fmt.Sprintf("clean network locks of process %d", pid), "", &err)
	if err := ctx.Err(); err != nil {
		return err
	}
	ns, err := openOf(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	conn, err := openFilter(int(ns.Fd()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.CloseLasting()) }()
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return fmt.Errorf("list tables: %w", err)
	}
	for _, t := range tables {
		if !strings.HasPrefix(t.Name, lockTablePrefix) {
			continue
		}
		conn.DelTable(t)
		if err := conn.Flush(); err != nil && !isAbsent(err) {
			return fmt.Errorf("delete table %s: %w", t.Name, err)
		}
	}
	return nil
}
