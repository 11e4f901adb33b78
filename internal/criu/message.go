package criu

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

func (w *worker) send(req *rpc.CriuReq) error {
	b, err := proto.Marshal(req)
	if err != nil {
		return fmt.Errorf("encode the request: %w", err)
	}
	if _, err := w.conn.Write(b); err != nil {
		return fmt.Errorf("send to criu: %w", err)
	}
	return nil
}

// receive reads one message. Files are returned with an error, too.
func (w *worker) receive(buf []byte) (*rpc.CriuResp, []*os.File, error) {
	oob := make([]byte, unix.CmsgSpace(16*4))
	// The net package asks for MSG_CMSG_CLOEXEC.
	n, oobn, flags, _, err := w.conn.ReadMsgUnix(buf, oob)
	if errors.Is(err, os.ErrDeadlineExceeded) && w.gone() {
		return nil, nil, errWorkerGone
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("read from criu: %w", err)
	}
	files, ferr := parseRights(oob[:oobn])
	switch {
	case ferr != nil:
		return nil, files, ferr
	case n == 0:
		return nil, files, errWorkerGone
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		return nil, files, fmt.Errorf("read from criu: message longer than %d bytes or too many descriptors", messageLimit)
	}
	resp := new(rpc.CriuResp)
	if err := proto.Unmarshal(buf[:n], resp); err != nil {
		return nil, files, fmt.Errorf("decode criu's answer: %w", err)
	}
	return resp, files, nil
}

// gone says whether the process has ended.
func (w *worker) gone() bool {
	select {
	case <-w.exited:
		return true
	default:
		return false
	}
}

func parseRights(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("decode the control message: %w", err)
	}
	var files []*os.File
	for i := range msgs {
		if msgs[i].Header.Level != unix.SOL_SOCKET || msgs[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return files, fmt.Errorf("decode the passed descriptors: %w", err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "from-criu"))
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}
