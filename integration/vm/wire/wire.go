// Package wire is what the rig and the program in the guest say to each other:
// lines of JSON over a serial port, requests one way and replies the other.
//
// A line that cannot be read is skipped by both sides: when a machine is put back
// into an earlier state, or loses its power, a line may be cut anywhere. A reply
// names the request it belongs to, so several can be in progress.
package wire

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// Port is the name of the serial port.
const Port = "org.ctctl.vm"

// Chunk is the largest number of bytes in the Data of one message.
const Chunk = 32 << 10

// maxLine is the longest line: a chunk in base64 and an ample rest.
const maxLine = 256 << 10

// Op is what a request asks for.
type Op string

// The operations.
const (
	Hello Op = "hello" // the reply's data is the boot id
	Run   Op = "run"   // a command: its output, then the exit code
	Kill  Op = "kill"  // the command of request Target, with all it started
	Write Op = "write" // Data into the file Path at Offset
	Read  Op = "read"  // the content of the file Path
	Clock Op = "clock" // set the real-time clock to Time
)

// Request goes from the rig to the guest.
type Request struct {
	ID     uint64    `json:"id"`
	Op     Op        `json:"op"`
	Args   []string  `json:"args,omitempty"`
	Env    []string  `json:"env,omitempty"` // in addition to the guest's own
	Dir    string    `json:"dir,omitempty"`
	Target uint64    `json:"target,omitempty"`
	Path   string    `json:"path,omitempty"`
	Mode   uint32    `json:"mode,omitempty"` // permission bits of a file that is made
	Offset int64     `json:"offset,omitempty"`
	Data   []byte    `json:"data,omitempty"` // standard input, or a piece of a file
	Time   time.Time `json:"time,omitzero"`
}

// Reply goes from the guest to the rig. Any number of replies carry data, the
// last one has Done set. One with the ID 0 answers nothing: the guest has booted,
// and whatever was in progress is not any more.
type Reply struct {
	ID     uint64 `json:"id"`
	Data   []byte `json:"data,omitempty"`
	Stderr bool   `json:"stderr,omitempty"` // Data is of the standard error
	Done   bool   `json:"done,omitempty"`
	Code   int    `json:"code,omitempty"`  // exit code; 128 + the signal's number
	Error  string `json:"error,omitempty"` // why it could not be done at all
}

// Send writes a message as one line, in one call of w.Write.
func Send(w io.Writer, message any) error {
	line, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("message: %w", err)
	}
	// What a line was cut off by the other side's death ends here.
	if _, err := w.Write(append(append([]byte{'\n'}, line...), '\n')); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// Receive calls f with each message that comes, until r ends or fails.
func Receive[T any](r io.Reader, f func(T)) error {
	lines := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := lines.ReadSlice('\n')
		if err == nil {
			var message T
			if json.Unmarshal(line, &message) == nil {
				f(message)
			}
			continue
		}
		if err == bufio.ErrBufferFull { // noise: what is no line of ours
			continue
		}
		return err
	}
}
