// Command ledger keeps a growing list of numbers, in memory and in a file at
// once, and tells over TCP what it has. It acknowledges a number when the file
// is on the disk.
//
//	ledger ADDRESS FILE MARK [MIB]
//
// MARK is not used: it tells one ledger's process from all others. MIB is how
// much more memory to touch. Asked to, it does things that a checkpoint may
// stumble over.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log"
	"math/rand"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// list is what is kept of a list: how long it is, its last number, and a hash
// over all.
type list struct {
	count, last, hash uint64
}

func (l list) with(v uint64) list {
	h := fnv.New64a()
	fmt.Fprintf(h, "%x %x", l.hash, v)
	return list{l.count + 1, v, h.Sum64()}
}

func (l list) String() string { return fmt.Sprintf("%d %d %x", l.count, l.last, l.hash) }

type ledger struct {
	mu      sync.Mutex
	file    *os.File
	now     list
	ballast []byte
	untrace chan chan error
}

func main() {
	if len(os.Args) < 4 {
		hog()
	}
	l := new(ledger)
	if err := l.open(os.Args[2]); err != nil {
		log.Fatal(err)
	}
	if len(os.Args) > 4 {
		mib, err := strconv.Atoi(os.Args[4])
		if err != nil {
			log.Fatal(err)
		}
		l.touch(mib << 20)
	}
	socket, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("ready")
	for {
		conn, err := socket.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go l.serve(conn)
	}
}

// open reads what an earlier life has written.
func (l *ledger) open(path string) (err error) {
	if l.file, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o644); err != nil {
		return err
	}
	l.now, err = l.disk()
	return err
}

func (l *ledger) touch(bytes int) {
	l.ballast = make([]byte, bytes)
	for i := 0; i < bytes; i += 512 {
		l.ballast[i] = byte(i >> 9)
	}
}

// disk reads the list from the file.
func (l *ledger) disk() (list, error) {
	var all list
	s := bufio.NewScanner(io.NewSectionReader(l.file, 0, 1<<40))
	for s.Scan() {
		v, err := strconv.ParseUint(s.Text(), 10, 64)
		if err != nil {
			return all, err
		}
		all = all.with(v)
	}
	return all, s.Err()
}

func (l *ledger) serve(conn net.Conn) {
	defer conn.Close()
	s := bufio.NewScanner(conn)
	for s.Scan() {
		answer, err := l.answer(strings.Fields(s.Text()))
		if err != nil {
			answer = "error " + err.Error()
		}
		if _, err := fmt.Fprintln(conn, answer); err != nil {
			return
		}
	}
}

func (l *ledger) answer(words []string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case len(words) == 2 && words[0] == "add":
		v, err := strconv.ParseUint(words[1], 10, 64)
		if err != nil {
			return "", err
		}
		err = l.add(v)
		return l.now.String(), err
	case len(words) == 1 && words[0] == "show":
		d, err := l.disk()
		return l.now.String() + " " + d.String(), err
	case len(words) == 3 && words[0] == "fill":
		return "full", fill(words[1], words[2])
	case len(words) == 1 && words[0] == "trace":
		return "traced", l.trace()
	case len(words) == 1 && words[0] == "untrace":
		ended := make(chan error)
		l.untrace <- ended
		return "ended", <-ended
	case len(words) == 1 && words[0] == "hog":
		return "begun", exec.Command("/proc/self/exe").Start()
	}
	return "", errors.New("what?")
}

// fill makes a file of random bytes, as large as there is room for.
func fill(path, mib string) error {
	n, err := strconv.ParseInt(mib, 10, 64)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(f, io.LimitReader(rand.New(rand.NewSource(1)), n<<20))
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = nil
	}
	return errors.Join(err, f.Sync())
}

// trace starts a program and stays its tracer, until it is told to end it.
func (l *ledger) trace() error {
	result := make(chan error)
	l.untrace = make(chan chan error)
	go func() {
		runtime.LockOSThread() // the tracer is a thread
		cmd := exec.Command("/proc/self/exe")
		cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
		err := cmd.Start() // it stops at its first instruction
		result <- err
		if err != nil {
			return
		}
		ended := <-l.untrace
		err = cmd.Process.Kill()
		for ws := syscall.WaitStatus(0x7f); ws.Stopped(); {
			if _, werr := syscall.Wait4(cmd.Process.Pid, &ws, 0, nil); werr != nil {
				err = errors.Join(err, werr)
				break
			}
		}
		ended <- err
	}()
	return <-result
}

// hog takes memory, some at a time, and keeps it until it is killed.
func hog() {
	for {
		if len(hogged) < 30 {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			hogged = append(hogged, b)
		}
		time.Sleep(4 * time.Millisecond)
	}
}

var hogged [][]byte

// add appends a number, unless it has it: a client that got no answer asks again.
func (l *ledger) add(v uint64) error {
	if v <= l.now.last {
		return nil
	}
	if _, err := fmt.Fprintln(l.file, v); err != nil {
		return err
	}
	if err := l.file.Sync(); err != nil {
		return err
	}
	l.now = l.now.with(v)
	return nil
}
