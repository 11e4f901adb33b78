// Command payload is what runs in the containers that are measured: it touches
// memory, so that every page of it is in an image, and echoes bytes over TCP.
package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"syscall"
)

// usage: payload PORT MEBIBYTES
func main() {
	fmt.Fprintln(os.Stderr, "payload:", serve(os.Args[1:]))
	os.Exit(1)
}

// serve ends with an error only.
func serve(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("wants PORT MEBIBYTES, got %q", args)
	}
	size, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	if err := touch(size << 20); err != nil {
		return fmt.Errorf("touch memory: %w", err)
	}
	// It listens when the memory is there: who can connect may begin.
	l, err := net.Listen("tcp4", net.JoinHostPort("0.0.0.0", args[0]))
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go echo(c)
	}
}

// echo ends with the connection, whose end is all that an error could tell.
func echo(c net.Conn) {
	defer c.Close()
	_, _ = io.Copy(c, onlyReader{c})
}

// onlyReader keeps io.Copy from splicing: a byte is to pass through the process.
type onlyReader struct{ io.Reader }

// touch fills new memory, outside of what Go collects, with pseudo-random words
// (xorshift64), so that no two pages are equal and none is zero.
func touch(size int) error {
	if size == 0 {
		return nil
	}
	mem, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return err
	}
	x := uint64(88172645463325252)
	for i := 0; i+8 <= len(mem); i += 8 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(mem[i:], x)
	}
	return nil
}
