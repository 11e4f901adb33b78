package vmrig

import (
	"context"
	"fmt"
	"time"

	"github.com/ctctl/ctctl/integration/vm/wire"
)

const guestPort = wire.Port

// Save keeps the whole state of the machine, memory and disk, under a name.
// Nothing should be running through Run.
func (m *Machine) Save(state string) error { return m.monitor.human("savevm " + state) }

// Load puts the machine back into a saved state. Its clock is set to now; what
// was running through Run is forgotten.
func (m *Machine) Load(ctx context.Context, state string) error {
	if err := m.monitor.human("loadvm " + state); err != nil {
		return err
	}
	if err := m.Continue(); err != nil {
		return err
	}
	return m.settle(ctx)
}

// settle waits for a machine that was put into a saved state, and tells it the time.
func (m *Machine) settle(ctx context.Context) error {
	if _, err := m.Wait(ctx); err != nil {
		return err
	}
	c, err := m.hand()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	_, err = c.do(ctx, wire.Request{Op: wire.Clock, Time: time.Now()}, ignore)
	return err
}

// Freeze stops the machine between two instructions; Continue lets it go on.
func (m *Machine) Freeze() error { return m.monitor.execute("stop", nil, nil) }

// Continue lets a frozen machine go on.
func (m *Machine) Continue() error { return m.monitor.execute("cont", nil, nil) }

// Reset is the button: the guest boots again, and is not asked.
func (m *Machine) Reset() error { return m.monitor.execute("system_reset", nil, nil) }

// SetLink plugs the cable of an interface in or out, which the guest notices.
func (m *Machine) SetLink(cable int, up bool) error {
	return m.monitor.execute("set_link", map[string]any{"name": fmt.Sprintf("nic%d", cable), "up": up}, nil)
}

// Throttle limits the root disk to so many bytes per second; 0 lifts the limit.
func (m *Machine) Throttle(bytesPerSecond int64) error {
	// The disk is the PCI device's virtio part.
	limits := map[string]any{"id": "/machine/peripheral/root/virtio-backend", "bps": bytesPerSecond}
	for _, none := range []string{"bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"} {
		limits[none] = 0
	}
	return m.monitor.execute("block_set_io_throttle", limits, nil)
}

// Plug adds a disk while the machine runs.
func (m *Machine) Plug(d Disk) error {
	node := "plugged-" + d.Serial
	add := map[string]any{
		"driver": "raw", "node-name": node, "read-only": !d.Writable,
		"file": map[string]any{"driver": "file", "filename": d.Path, "locking": "off"},
	}
	if err := m.monitor.execute("blockdev-add", add, nil); err != nil {
		return err
	}
	return m.monitor.execute("device_add", map[string]any{
		"driver": "virtio-blk-pci", "drive": node, "serial": d.Serial, "id": node,
	}, nil)
}

// Reboot waits until the guest has booted anew. It returns when it answers.
func (m *Machine) awaitReboot(ctx context.Context, before string) error {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	for {
		id, err := m.Wait(ctx)
		if err != nil {
			return err
		}
		if id != before {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: it does not boot anew: %w\n%s", m.Name, ErrNoAnswer, m.tail("console.log"))
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Reboot asks the guest's systemd for a reboot and waits until it is up again.
func (m *Machine) Reboot(ctx context.Context) error {
	before, err := m.Wait(ctx)
	if err != nil {
		return err
	}
	if _, err := m.Run(ctx, Command{Args: []string{"systemctl", "reboot"}}); err != nil {
		return err
	}
	return m.awaitReboot(ctx, before)
}
