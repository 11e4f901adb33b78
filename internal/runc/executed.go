package runc

import (
	"bytes"
	"fmt"
	"os"
)

// Executed says whether a started container's init has come to be the program
// that it is for. Until then it is this program, prepared by libcontainer, and
// has in its environment what libcontainer told it.
func Executed(pid int) bool {
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	return err == nil && !bytes.Contains(env, []byte("_LIBCONTAINER_"))
}
