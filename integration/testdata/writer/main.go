// Writer counts in three places: in memory, in a file that it appends to, and in
// a shared mapping of another file; nothing is ever synced. Each count leaves a
// mark of its own in both files, so that one that is missing, or one too many,
// shows even after the counting has gone on.
//
// Time and again it looks at the clock. If it finds that it has stood still, it
// first takes down what the three places hold, before it counts on: that is how
// they were when it was stopped.
//
// Over TCP it answers "cut" with what it took down last, "now" with the count,
// and "check" with what is wrong with the marks, or "ok".
package main

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"log"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const (
	markBytes = 8
	mapBytes  = 64 << 20
	burst     = 50 // counts between two looks at the clock
	pause     = 100 * time.Microsecond
	// stoodStill is longer than any wait for a processor, and shorter than
	// ending and restoring a container.
	stoodStill = 250 * time.Millisecond
)

// stop is what the three places held when the writer had stood still.
type stop struct {
	memory, file, mapped uint64
	stillFor             time.Duration
}

type writer struct {
	mu     sync.Mutex
	count  uint64
	file   *os.File
	marks  []byte // of the mapping
	mapped uint64 // the last mark's number, kept by look
	last   stop
	seen   time.Time
}

func main() {
	file, err := os.OpenFile("/srv/counts", os.O_CREATE|os.O_TRUNC|os.O_APPEND|os.O_RDWR, 0o644)
	check(err)
	w := &writer{file: file, marks: mapping("/srv/mapped"), seen: time.Now().Round(0)}
	go w.run()
	door, err := net.Listen("tcp4", ":7002")
	check(err)
	for {
		conn, err := door.Accept()
		if err != nil {
			continue
		}
		go w.serve(conn)
	}
}

func mapping(path string) []byte {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o644)
	check(err)
	check(f.Truncate(mapBytes))
	b, err := syscall.Mmap(int(f.Fd()), 0, mapBytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	check(err)
	return b
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func (w *writer) run() {
	for {
		w.mu.Lock()
		w.notice()
		for range burst {
			w.step()
		}
		w.mu.Unlock()
		time.Sleep(pause)
	}
}

// notice takes down what there is when the writer has stood still.
func (w *writer) notice() {
	// Round strips the monotonic clock, which stands still with the container.
	// The clock is read once: a stop after it shows the next time.
	now := time.Now().Round(0)
	if still := now.Sub(w.seen); still > stoodStill {
		w.last = w.look()
		w.last.stillFor = still
	}
	w.seen = now
}

// step counts one. It may be stopped anywhere in it, and then goes on there.
func (w *writer) step() {
	w.count++
	var b [markBytes]byte
	binary.NativeEndian.PutUint64(b[:], w.count)
	_, err := w.file.Write(b[:])
	check(err)
	if (w.count+1)*markBytes > mapBytes {
		log.Fatal("the mapping is full")
	}
	// The compiler must not put this off.
	*(*uint64)(unsafe.Pointer(&w.marks[w.count*markBytes])) = w.count
}

// look counts the marks: in the file opened anew, and in the mapping up to the
// first that is missing.
func (w *writer) look() stop {
	s := stop{memory: w.count}
	f, err := os.Open(w.file.Name())
	check(err)
	defer f.Close()
	info, err := f.Stat()
	check(err)
	s.file = uint64(info.Size()) / markBytes
	for n := w.mapped + 1; w.mark(n) == n; n++ {
		w.mapped = n
	}
	s.mapped = w.mapped
	return s
}

func (w *writer) mark(n uint64) uint64 {
	return binary.NativeEndian.Uint64(w.marks[n*markBytes:])
}

// verify reads every mark.
func (w *writer) verify() string {
	b, err := os.ReadFile(w.file.Name())
	if err != nil {
		return err.Error()
	}
	if len(b) != int(w.count)*markBytes {
		return fmt.Sprintf("the file has %d bytes, not %d marks", len(b), w.count)
	}
	for n := uint64(1); n <= w.count; n++ {
		if got := binary.NativeEndian.Uint64(b[(n-1)*markBytes:]); got != n {
			return fmt.Sprintf("mark %d in the file is %d", n, got)
		}
		if got := w.mark(n); got != n {
			return fmt.Sprintf("mark %d in the mapping is %d", n, got)
		}
	}
	if got := w.mark(w.count + 1); got != 0 {
		return fmt.Sprintf("a mark %d in the mapping after the last", got)
	}
	return "ok"
}

func (w *writer) serve(conn net.Conn) {
	defer conn.Close()
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		w.mu.Lock()
		w.notice() // a client may be quicker than the counting
		var answer string
		switch lines.Text() {
		case "cut":
			answer = fmt.Sprintln(w.last.memory, w.last.file, w.last.mapped, w.last.stillFor.Milliseconds())
		case "now":
			answer = fmt.Sprintln(w.count)
		default:
			answer = w.verify() + "\n"
		}
		w.mu.Unlock()
		if _, err := conn.Write([]byte(answer)); err != nil {
			return
		}
	}
}
