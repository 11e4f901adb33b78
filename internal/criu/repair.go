package criu

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// EndRepair sets right the TCP connections of processes whose dump was broken
// off because CRIU was killed: it ends their repair mode. Processes and
// connections that are well are not disturbed.
func EndRepair(pids []int) error {
	return endRepair(func() ([]int, error) { return pids, nil })
}

// endRepair takes all TCP sockets of the processes out of repair mode, in
// which a dump puts them to read their state (TCP_REPAIR, Linux 3.5). The
// mode belongs to the socket and outlives a CRIU that was killed; reading
// from such a connection fails with EPERM.
func endRepair(pids func() ([]int, error)) error {
	list, err := pids()
	if err != nil {
		return fmt.Errorf("list the tasks: %w", err)
	}
	var errs []error
	seen := map[string]bool{}
	for _, pid := range list {
		if err := endRepairOf(pid, seen); err != nil {
			errs = append(errs, fmt.Errorf("end the repair mode of the connections of pid %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

func endRepairOf(pid int, seen map[string]bool) error {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		if isGone(err) {
			return nil
		}
		return err
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if isGone(err) {
			return nil
		}
		return err
	}
	defer unix.Close(pidfd)
	var errs []error
	for _, entry := range entries {
		target, err := os.Readlink(dir + "/" + entry.Name())
		if err != nil || !strings.HasPrefix(target, "socket:") || seen[target] {
			continue // closed meanwhile, no socket, or done
		}
		seen[target] = true
		if fd, err := strconv.Atoi(entry.Name()); err == nil {
			errs = append(errs, endRepairOfSocket(pidfd, fd))
		}
	}
	return errors.Join(errs...)
}

func endRepairOfSocket(pidfd, fd int) error {
	sock, err := unix.PidfdGetfd(pidfd, fd, 0) // close-on-exec
	if err != nil {
		if errors.Is(err, unix.EBADF) || isGone(err) {
			return nil
		}
		return err
	}
	defer unix.Close(sock)
	on, err := unix.GetsockoptInt(sock, unix.IPPROTO_TCP, unix.TCP_REPAIR)
	if err != nil || on != 1 {
		return nil // no TCP socket, or none in repair mode
	}
	return unix.SetsockoptInt(sock, unix.IPPROTO_TCP, unix.TCP_REPAIR, 0)
}
