package vmrig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const qemu = "qemu-system-x86_64"

// bootTimeout bounds what a machine takes from power on to an answer. Emulated on
// an idle machine of two cores it is about twenty seconds, on a busy one minutes.
const bootTimeout = 15 * time.Minute

// Config describes a machine. Name, Image and Dir are needed.
type Config struct {
	Name      string
	Image     string // directory made by scripts/vm-image.sh
	Dir       string // where its files are; made if needed
	CPUs      int    // 0: 2
	MemoryMiB int    // 0: 2048
	Disks     []Disk // besides the root
	Cables    []Cable
}

// Disk is a disk of a machine. In the guest it is
// /dev/disk/by-id/virtio-SERIAL.
type Disk struct {
	Path     string // of a raw image on this machine
	Serial   string // at most 20 bytes
	Writable bool   // then the machine's state can't be saved
}

// Cable connects a network interface of the machine with a Switch.
type Cable struct {
	Tap string // the interface on our side
	MAC string
}

// Machine is a virtual machine. Its methods are for one goroutine at a time, but
// Run, Put and Get, which are for any number.
type Machine struct {
	Config
	rig *Rig

	mu      sync.Mutex // guards what Load and PowerCut replace
	cmd     *exec.Cmd
	ended   chan struct{}
	monitor *monitor
	client  *client
	boots   int
}

func (m *Machine) path(name string) string { return filepath.Join(m.Dir, name) }

// ConsoleLog is the file that everything is in that the guest's consoles showed,
// over all boots.
func (m *Machine) ConsoleLog() string { return m.path("console.log") }

// Start turns the power on. Wait waits for the guest.
func (m *Machine) Start(ctx context.Context) error { return m.start(ctx) }

// StartFrom turns the power on in a state that Save has saved, in which the guest
// answers at once.
func (m *Machine) StartFrom(ctx context.Context, state string) error {
	if err := m.start(ctx, "-loadvm", state); err != nil {
		return err
	}
	return m.settle(ctx)
}

func (m *Machine) start(ctx context.Context, more ...string) error {
	args, err := m.arguments(ctx)
	if err != nil {
		return err
	}
	if m.boots++; m.boots > 1 {
		if err := m.separate(); err != nil {
			return err
		}
	}
	log, err := os.OpenFile(m.path("qemu.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	// Not bound to ctx: the machine outlives the call, and ends with the rig.
	cmd := exec.CommandContext(context.WithoutCancel(ctx), qemu, append(args, more...)...)
	cmd.WaitDelay = time.Second
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := m.rig.begin(cmd); err != nil {
		return fmt.Errorf("%s: %w", m.Name, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // how it ended is in its log
	}()
	m.mu.Lock()
	m.cmd, m.ended = cmd, ended
	m.mu.Unlock()
	return m.connect(ctx)
}

// separate marks the next boot in the console's log.
func (m *Machine) separate() error {
	f, err := os.OpenFile(m.ConsoleLog(), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "\n==== power on, for the %dth time ====\n", m.boots)
	return errors.Join(err, f.Close())
}

// connect waits for QEMU's sockets, which it makes before the machine runs.
func (m *Machine) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		monitor, err := dialMonitor(ctx, m.path("qmp"))
		if err == nil {
			m.monitor = monitor
			break
		}
		select {
		case <-m.ended:
			return fmt.Errorf("%s: %w: %s", m.Name, ErrGone, m.tail("qemu.log"))
		case <-ctx.Done():
			return errors.Join(err, m.PowerCut())
		case <-time.After(20 * time.Millisecond):
		}
	}
	client, err := dialGuest(ctx, m.path("agent"))
	if err != nil {
		return errors.Join(err, m.PowerCut())
	}
	m.mu.Lock()
	m.client = client
	m.mu.Unlock()
	return nil
}

// Wait waits until the guest answers and returns its boot id.
func (m *Machine) Wait(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	c, err := m.hand()
	if err != nil {
		return "", err
	}
	id, err := c.hello(ctx)
	if err != nil {
		return "", fmt.Errorf("%s: boot: %w\n%s", m.Name, err, m.tail("console.log"))
	}
	return id, nil
}

// hand is the connection to the program in the guest.
func (m *Machine) hand() (*client, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.client == nil {
		return nil, fmt.Errorf("%s: %w", m.Name, ErrGone)
	}
	return m.client, nil
}

// Run runs a command in the guest. That it fails is in the result, not an error.
func (m *Machine) Run(ctx context.Context, cmd Command) (Result, error) {
	c, err := m.hand()
	if err != nil {
		return Result{}, err
	}
	r, err := c.run(ctx, cmd)
	if err != nil {
		return r, fmt.Errorf("%s: %w", m.Name, err)
	}
	return r, nil
}

// Put writes a file of the guest. What is larger than some MiB comes faster on a
// disk.
func (m *Machine) Put(ctx context.Context, content io.Reader, path string, mode os.FileMode) error {
	c, err := m.hand()
	if err != nil {
		return err
	}
	return c.put(ctx, content, path, mode)
}

// Get copies a file of the guest to w.
func (m *Machine) Get(ctx context.Context, path string, w io.Writer) error {
	c, err := m.hand()
	if err != nil {
		return err
	}
	return c.get(ctx, path, w)
}

// PowerCut ends the machine at once. What the guest has not yet written to its
// disk is lost. It is no error when the machine is off.
func (m *Machine) PowerCut() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd == nil {
		return nil
	}
	if err := m.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-m.ended
	errs := []error{m.rig.end(m.cmd.Process.Pid)}
	if m.client != nil {
		errs = append(errs, m.client.close())
	}
	if m.monitor != nil {
		errs = append(errs, m.monitor.close())
	}
	m.cmd, m.client, m.monitor = nil, nil, nil
	return errors.Join(errs...)
}

// On says whether QEMU runs.
func (m *Machine) On() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cmd == nil {
		return false
	}
	select {
	case <-m.ended:
		return false
	default:
		return true
	}
}

// tail is the end of one of the machine's logs.
func (m *Machine) tail(name string) string {
	raw, err := os.ReadFile(m.path(name))
	if err != nil {
		return err.Error()
	}
	return string(raw[max(0, len(raw)-3000):])
}

// arguments makes QEMU's command line, and the files that it names.
func (m *Machine) arguments(ctx context.Context) ([]string, error) {
	if err := m.prepare(ctx); err != nil {
		return nil, err
	}
	args := []string{
		"-name", m.Name, "-nodefaults", "-no-user-config", "-display", "none", "-M", "pc",
		"-smp", strconv.Itoa(m.CPUs), "-m", strconv.Itoa(m.MemoryMiB),
		"-kernel", filepath.Join(m.Image, "kernel"), "-initrd", m.path("initramfs"),
		"-append", "console=ttyS0 root=/dev/vda panic=-1 quiet loglevel=4 systemd.show_status=0 mitigations=off",
		"-chardev", "file,id=console,append=on,path=" + m.ConsoleLog(), "-serial", "chardev:console",
		"-qmp", "unix:" + m.path("qmp") + ",server=on,wait=off",
		"-chardev", "socket,id=agent,server=on,wait=off,path=" + m.path("agent"),
		"-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=" + guestPort,
		"-device", "virtio-rng-pci",
		"-blockdev", "driver=qcow2,node-name=root,file.driver=file,file.filename=" + m.path("root.qcow2"),
		"-device", "virtio-blk-pci,drive=root,serial=root,id=root",
	}
	args = append(args, m.rig.accel.args...)
	for i, d := range m.Disks {
		node := fmt.Sprintf("disk%d", i)
		args = append(args, "-blockdev", d.blockdev(node), "-device", "virtio-blk-pci,drive="+node+",serial="+d.Serial)
	}
	for i, c := range m.Cables {
		id := fmt.Sprintf("net%d", i)
		args = append(args, "-netdev", "tap,id="+id+",script=no,downscript=no,ifname="+c.Tap,
			"-device", "virtio-net-pci,netdev="+id+",id=nic"+strconv.Itoa(i)+",mac="+c.MAC)
	}
	return args, nil
}

func (d Disk) blockdev(node string) string {
	s := "driver=raw,node-name=" + node + ",file.driver=file,file.filename=" + d.Path
	if !d.Writable {
		s += ",read-only=on,file.locking=off"
	}
	return s
}

// prepare makes the overlay at the first start, and the initramfs.
func (m *Machine) prepare(ctx context.Context) error {
	if m.CPUs == 0 {
		m.CPUs = 2
	}
	if m.MemoryMiB == 0 {
		m.MemoryMiB = 2048
	}
	if err := m.rig.hold(m.Image); err != nil {
		return err
	}
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return err
	}
	if err := initramfs(m.path("initramfs"), m.rig.guest, filepath.Join(m.Image, "modules")); err != nil {
		return err
	}
	overlay := m.path("root.qcow2")
	if _, err := os.Stat(overlay); err == nil {
		return nil
	}
	_, err := tool(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", filepath.Join(m.Image, "root.ext4"), overlay)
	return err
}
