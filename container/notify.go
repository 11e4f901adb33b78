package container

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/ctctl/ctctl/internal/runc"
	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/internal/thread"
	"github.com/ctctl/ctctl/profile"
	"golang.org/x/sys/unix"
)

// notifySocket is where systemd says that it has booted (sd_notify(3)), in the
// directory that it leaves to whoever runs the container
// (systemd.io/CONTAINER_INTERFACE).
const (
	notifyDir    = "host" // below /run
	notifyName   = "notify"
	notifySocket = "/run/" + notifyDir + "/" + notifyName
)

// notifyPause slows down who sends what is not waited for: the supervisor is not
// held by the container's limits.
const notifyPause = 10 * time.Millisecond

// maxNotice is as long as systemd takes a notification.
const maxNotice = 4096

// readiness is RUN_ROOT/UID/ready.json: whether the boot of this run is complete. There
// is none for an init that says nothing, nor after a restore.
type readiness struct {
	Started time.Time `json:"started"`
	Booted  time.Time `json:"booted,omitzero"`
}

var readySchema = statefile.Schema{Kind: "container-ready", Version: 1}

func (m *Manager) readyFile(uid string) string { return filepath.Join(m.runDir(uid), "ready.json") }

// notifies says whether an init tells that it has booted.
func notifies(spec runc.Spec) bool { return spec.Profile.Found.Init == profile.Systemd }

// withNotify is the environment of an init that notifies.
func withNotify(env []string) []string {
	return append(slices.Clip(env), "NOTIFY_SOCKET="+notifySocket)
}

// hearBoot listens for the notification of an init that is about to be executed,
// until it has come or endNotices is called. Without it WaitReady asks.
func (s *supervisor) hearBoot(pid int) error {
	s.endNotices()
	owner := 0
	if s.req.Spec.IDs != nil {
		owner = int(s.req.Spec.IDs.Base)
	}
	conn, err := listenInside(pid, owner)
	if err != nil {
		return err
	}
	r := readiness{Started: time.Now().UTC()}
	if err := readySchema.Write(s.m.readyFile(s.req.UID), &r); err != nil {
		return errors.Join(err, conn.Close())
	}
	s.notices = conn
	go func() { // ends when its socket is closed
		defer conn.Close()
		if !awaitNotice(conn, pid) {
			return
		}
		r.Booted = time.Now().UTC()
		if err := readySchema.Write(s.m.readyFile(s.req.UID), &r); err != nil {
			s.log.Error("record that it has booted", "err", err)
		}
		s.log.Info("booted", "duration", r.Booted.Sub(r.Started))
	}()
	return nil
}

// endNotices is idempotent.
func (s *supervisor) endNotices() {
	if s.notices != nil {
		s.notices.Close() // it may be closed already
		s.notices = nil
	}
}

// listenInside makes the socket in the container's /run, which has to be a mount of
// its own: no file of the container's root is touched. It belongs to the
// container's root, whose number is owner.
func listenInside(pid, owner int) (*net.UnixConn, error) {
	run, err := openRun(pid)
	if err != nil {
		return nil, err
	}
	defer unix.Close(run)
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(sock), notifySocket)
	defer f.Close()
	if err := unix.SetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return nil, err
	}
	err = thread.Spend(func() error {
		if err := becomeOwner(owner); err != nil {
			return err
		}
		return bindBelow(run, sock)
	})
	if err != nil {
		return nil, fmt.Errorf("make %s: %w", notifySocket, err)
	}
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// openRun opens the /run of a container whose init waits.
func openRun(pid int) (int, error) {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	run, err := unix.Openat2(root, "run", &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_NO_SYMLINKS})
	if err != nil {
		return -1, fmt.Errorf("open /run: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(run, &st); err != nil || st.Type != unix.TMPFS_MAGIC {
		return -1, errors.Join(errors.New("/run is no tmpfs"), err, unix.Close(run))
	}
	return run, nil
}

// bindBelow gives a socket its name through a descriptor of the directory, which
// lies in another mount namespace.
func bindBelow(run, sock int) error {
	if err := unix.Mkdirat(run, notifyDir, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	dir, err := unix.Openat2(run, notifyDir, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return unix.Bind(sock, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir, notifyName)})
}

// awaitNotice answers true when the process pid has said that it is ready, and
// false when the connection was closed.
func awaitNotice(conn *net.UnixConn, pid int) bool {
	buf := make([]byte, maxNotice)
	// There is room for the sender's credentials alone: descriptors that somebody
	// sends along are not taken (unix(7)).
	oob := make([]byte, unix.CmsgSpace(unix.SizeofUcred))
	for {
		n, control, _, _, err := conn.ReadMsgUnix(buf, oob)
		if err != nil {
			return false
		}
		if sender(oob[:control]) == pid && isReady(buf[:n]) {
			return true
		}
		time.Sleep(notifyPause)
	}
}

// sender is the pid of who sent a message, as this pid namespace numbers it; 0 when
// it is not there.
func sender(oob []byte) int {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0
	}
	for i := range messages {
		if c, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
			return int(c.Pid)
		}
	}
	return 0
}

// isReady looks for the line READY=1 of sd_notify(3).
func isReady(notice []byte) bool {
	for line := range bytes.Lines(notice) {
		if strings.TrimRight(string(line), "\n") == "READY=1" {
			return true
		}
	}
	return false
}
