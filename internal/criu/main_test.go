package criu

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"github.com/ctctl/ctctl/internal/testutil"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

const (
	fakeEnv    = "CTCTL_TEST_FAKE_CRIU"
	fakeDirEnv = "CTCTL_TEST_FAKE_DIR"
)

func TestMain(m *testing.M) {
	if os.Args[0] == treeArg0 {
		runTree(os.Args[1])
	}
	if mode := os.Getenv(fakeEnv); mode != "" {
		fakeCRIU(mode, os.Getenv(fakeDirEnv))
		os.Exit(0)
	}
	testutil.Main(m)
}

// fake returns an Engine whose CRIU is this program in the given mode, and
// the directory where it leaves its pid.
func fake(t *testing.T, mode string) (Engine, string) {
	t.Helper()
	dir := testutil.TempDir(t)
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The engine scrubs the environment, so the script sets the mode.
	script := fmt.Sprintf("#!/bin/sh\n%s=%s %s=%s exec %s \"$@\"\n", fakeEnv, mode, fakeDirEnv, dir, exe)
	path := filepath.Join(dir, "criu")
	if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return Engine{Binary: path}, dir
}

// fakePID returns the pid that a fake has left.
func fakePID(t *testing.T, dir string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// fakeCRIU speaks the worker's side of the protocol, badly.
func fakeCRIU(mode, dir string) {
	must(os.WriteFile(filepath.Join(dir, "pid"), []byte(strconv.Itoa(os.Getpid())), 0o600))
	must(os.WriteFile(filepath.Join(dir, "env"), []byte(strings.Join(os.Environ(), "\n")), 0o600))
	must(os.WriteFile(filepath.Join(dir, "args"), []byte(strings.Join(os.Args[1:], " ")), 0o600))
	c, err := net.FileConn(os.NewFile(3, "rpc"))
	must(err)
	conn := c.(*net.UnixConn)
	req := fakeReceive(conn)
	must(os.WriteFile(filepath.Join(dir, "request"), []byte(req.String()), 0o600))
	switch mode {
	case "hang":
		fakeNotify(conn, EventPreDump, 0)
		time.Sleep(time.Hour)
	case "bereft":
		cmd := exec.Command("true") //nolint:noctx // ends by itself
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_PARENT}
		must(cmd.Start())
		must(os.WriteFile(filepath.Join(dir, "root"), []byte(strconv.Itoa(cmd.Process.Pid)), 0o600))
		time.Sleep(time.Hour)
	case "gone":
		fmt.Fprintln(os.Stderr, "Error (criu/x.c:1): the sky is falling")
	case "garbage":
		_, err = conn.Write([]byte("\xff\xff\xff"))
		must(err)
	case "endless":
		raw, err := conn.SyscallConn()
		must(err)
		must(raw.Control(func(fd uintptr) {
			must(unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 4*messageLimit))
		}))
		_, err = conn.Write(make([]byte, messageLimit+1))
		must(err)
	case "files":
		fakeFiles(conn)
		fakeAnswer(conn, req.GetType(), true)
	case "unheard":
		fakeNotify(conn, EventPostResume, 0)
		fakeAnswer(conn, req.GetType(), true)
	case "linger":
		fakeAnswer(conn, req.GetType(), true)
		time.Sleep(time.Hour)
	case "kdat":
		f, err := os.OpenFile(filepath.Join(dir, "probes"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		must(err)
		_, err = f.WriteString(".")
		must(err)
		must(os.WriteFile(filepath.Join(kdatDir, kdatName), []byte("kernel"), 0o600))
		fakeAnswer(conn, req.GetType(), true)
	case "quiet":
		fakeAnswer(conn, req.GetType(), true)
	case "refuse":
		fakeAnswer(conn, req.GetType(), false)
	}
}

// fakeFiles sends a notification with the write end of a pipe and writes
// what comes out of it into the answer's place.
func fakeFiles(conn *net.UnixConn) {
	r, w, err := os.Pipe()
	must(err)
	b, err := proto.Marshal(&rpc.CriuResp{
		Type: rpc.CriuReqType_NOTIFY.Enum(), Success: proto.Bool(true),
		Notify: &rpc.CriuNotify{Script: proto.String(EventOrphanPTSMaster)},
	})
	must(err)
	_, _, err = conn.WriteMsgUnix(b, unix.UnixRights(int(w.Fd())), nil)
	must(err)
	w.Close()
	fakeReceive(conn)
	// All copies are closed once the other side has closed its own.
	r.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 100)
	n, err := r.Read(buf)
	must(err)
	if string(buf[:n]) != "hello" {
		os.Exit(1)
	}
	if n, _ := r.Read(buf); n != 0 {
		os.Exit(1)
	}
}

func fakeNotify(conn *net.UnixConn, script string, pid int) bool {
	fakeSend(conn, &rpc.CriuResp{
		Type: rpc.CriuReqType_NOTIFY.Enum(), Success: proto.Bool(true),
		Notify: &rpc.CriuNotify{Script: proto.String(script), Pid: proto.Int32(int32(pid))},
	})
	return fakeReceive(conn).GetNotifySuccess()
}

func fakeAnswer(conn *net.UnixConn, kind rpc.CriuReqType, ok bool) {
	fakeSend(conn, &rpc.CriuResp{
		Type: kind.Enum(), Success: proto.Bool(ok), CrErrno: proto.Int32(int32(syscall.EBUSY)),
		Restore: &rpc.CriuRestoreResp{Pid: proto.Int32(4711)},
	})
}

func fakeSend(conn *net.UnixConn, m *rpc.CriuResp) {
	b, err := proto.Marshal(m)
	must(err)
	_, err = conn.Write(b)
	must(err)
}

func fakeReceive(conn *net.UnixConn) *rpc.CriuReq {
	b := make([]byte, 1<<16)
	n, err := conn.Read(b)
	must(err)
	req := new(rpc.CriuReq)
	must(proto.Unmarshal(b[:n], req))
	return req
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "fake criu:", err)
		os.Exit(1)
	}
}

// engine returns the real CRIU.
func engine(t testing.TB) Engine {
	t.Helper()
	testutil.Require(t, testutil.Root, testutil.CRIU, testutil.UserNS)
	e, err := Find("")
	if err != nil {
		t.Fatal(err)
	}
	return e
}
