package netns

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Reinstate configures the namespace of process pid as it is recorded, after
// the host's part is made there, and before sockets are restored that are bound
// to the addresses. Nothing comes up on the host's side by it. Repeating it
// changes nothing.
//
// It goes on after an error, as most of a configuration is of more use than
// none, and returns all errors: a namespace of which a part is missing, of the
// packet filter maybe, is for the caller to judge.
//
// Errors: ErrInner, ErrNoProcess, ErrHostNamespace.
func (in Inner) Reinstate(ctx context.Context, pid int) (err error) {
	defer wrapOp(fmt.Sprintf("reinstate the network of process %d", pid), "", &err)
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := in.check(); err != nil {
		return err
	}
	if in.Empty() {
		return nil
	}
	ns, err := openOf(pid)
	if err != nil {
		return err
	}
	defer ns.Close()
	groups, err := groupsOf(pid)
	if err != nil {
		return err
	}
	return enter(ns, func() error { return in.reinstate(groups) })
}

// reinstate runs inside the namespace. The order follows what needs what: new
// links take their settings from the namespace, addresses need links, routes
// need addresses and links that are up, filters name links.
func (in Inner) reinstate(groups idMap) error {
	route, err := openTalk(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	errs := []error{
		in.setSysctls(false, groups),
		in.makeLinks(route),
		in.setSysctls(true, groups),
		in.setLinks(route),
	}
	index, err := linkIndexes(route)
	errs = append(
		errs, err,
		in.addAddresses(route, index),
		in.addNeighbours(route, index),
		in.addRoutes(route, index),
		in.addRules(route),
		route.close(),
	)
	if len(in.Filter) > 0 {
		filter, err := openTalk(unix.NETLINK_NETFILTER)
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
		errs = append(errs, in.replayFilter(filter), filter.close())
	}
	return errors.Join(errs...)
}
