package vmrig

import (
	"context"
	"errors"
	"fmt"
)

// Switch is a network that machines are connected to: a bridge in the calling
// process's network namespace, which should be one of its own.
type Switch struct {
	name  string
	ports int
}

// NewSwitch makes a switch. The name is that of the bridge, of at most 10 bytes.
func NewSwitch(ctx context.Context, name string) (*Switch, error) {
	for _, args := range [][]string{
		{"link", "add", name, "type", "bridge", "forward_delay", "0"},
		{"link", "set", name, "up"},
	} {
		if _, err := tool(ctx, "ip", args...); err != nil {
			return nil, err
		}
	}
	return &Switch{name: name}, nil
}

// Cable gives a new one, plugged in at the switch, for a machine's Config. Its
// MAC address tells the guest which interface it is.
func (s *Switch) Cable(ctx context.Context) (Cable, error) {
	s.ports++
	c := Cable{
		Tap: fmt.Sprintf("%s-%d", s.name, s.ports),
		MAC: fmt.Sprintf("52:54:00:%02x:%02x:%02x", s.name[0], s.name[len(s.name)-1], s.ports),
	}
	for _, args := range [][]string{
		{"tuntap", "add", c.Tap, "mode", "tap"},
		{"link", "set", c.Tap, "master", s.name, "up"},
	} {
		if _, err := tool(ctx, "ip", args...); err != nil {
			return c, err
		}
	}
	return c, nil
}

// Pull takes a cable out at the switch's end: the machine's interface stays up,
// and nothing comes through any more.
func (s *Switch) Pull(ctx context.Context, c Cable) error {
	_, err := tool(ctx, "ip", "link", "set", c.Tap, "nomaster")
	return err
}

// Connect puts a pulled cable back.
func (s *Switch) Connect(ctx context.Context, c Cable) error {
	_, err := tool(ctx, "ip", "link", "set", c.Tap, "master", s.name)
	return err
}

// Close removes the switch and its cables, whose machines must be off.
func (s *Switch) Close(ctx context.Context) error {
	var errs []error
	for n := 1; n <= s.ports; n++ {
		_, err := tool(ctx, "ip", "link", "del", fmt.Sprintf("%s-%d", s.name, n))
		errs = append(errs, err)
	}
	_, err := tool(ctx, "ip", "link", "del", s.name)
	return errors.Join(append(errs, err)...)
}
