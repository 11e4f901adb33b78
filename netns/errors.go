package netns

import (
	"errors"
	"fmt"
)

var (
	// ErrConfig is wrapped by every refusal of a configuration; nothing was changed.
	ErrConfig = errors.New("invalid network configuration")
	// ErrNoIPv6 refuses an IPv6 address on a host whose kernel runs without IPv6.
	ErrNoIPv6 = errors.New("IPv6 is disabled on this host")
	// ErrAddressInUse means that the host already reaches the address through
	// another link, or owns it itself.
	ErrAddressInUse = errors.New("address in use")
	// ErrLinkName means that a link with the wanted name exists which is no veth.
	ErrLinkName = errors.New("link name is taken by a link that is no veth")
	// ErrNoBridge refuses an interface whose bridge the host does not have.
	ErrNoBridge = errors.New("no such bridge")
	// ErrNoLink means that a link is not there: Attach was not called, or the
	// container's namespace has ended and took the pair with it.
	ErrNoLink = errors.New("no such link")
	// ErrHostNamespace means that the process lives in the network namespace of
	// the caller: it is no container's, and must not be reconfigured.
	ErrHostNamespace = errors.New("process shares the network namespace of the host")
	// ErrNoProcess means that the process whose namespace is wanted has ended.
	ErrNoProcess = errors.New("no such process")
	// ErrPortInUse means that a forward of the same port of the host belongs to
	// another container, or that a process of the host listens there.
	ErrPortInUse = errors.New("port in use")
	// ErrUnsupported means that the kernel lacks a part, see [UnsupportedError].
	ErrUnsupported = errors.New("not supported by the kernel")
)

// wrapOp adds the operation and the link's name to a function's error, once.
func wrapOp(op, name string, err *error) {
	if *err == nil {
		return
	}
	if name == "" {
		*err = fmt.Errorf("%s: %w", op, *err)
		return
	}
	*err = fmt.Errorf("%s %s: %w", op, name, *err)
}
