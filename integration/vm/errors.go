package vmrig

import "errors"

var (
	// ErrNoAnswer: the program in the guest did not answer in time, or the
	// machine is not running.
	ErrNoAnswer = errors.New("the guest does not answer")
	// ErrGone: QEMU has ended.
	ErrGone = errors.New("the machine is not running")
)
