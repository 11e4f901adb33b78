package vmrig

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// initramfs makes the archive that the kernel unpacks and starts /init from: the
// program for the guest, and the modules it takes to reach the disk.
func initramfs(out, program, moduleDir string) error {
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	var a cpio
	a.add("dev", 0o040755, nil)
	a.add("modules", 0o040755, nil)
	a.add("init", 0o100755, content)
	modules, err := filepath.Glob(filepath.Join(moduleDir, "*.ko"))
	if err != nil {
		return err
	}
	for _, path := range modules {
		module, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		a.add("modules/"+filepath.Base(path), 0o100644, module)
	}
	a.add("TRAILER!!!", 0, nil)
	return os.WriteFile(out, a.buf.Bytes(), 0o600)
}

// cpio is an archive in the "newc" format; see the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst.
type cpio struct {
	buf   bytes.Buffer
	inode int
}

func (a *cpio) add(name string, mode int, content []byte) {
	a.inode++
	a.buf.WriteString("070701")
	for _, field := range []int{a.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0} {
		fmt.Fprintf(&a.buf, "%08x", field)
	}
	a.buf.WriteString(name + "\x00")
	a.align()
	a.buf.Write(content)
	a.align()
}

func (a *cpio) align() {
	a.buf.WriteString(strings.Repeat("\x00", (4-a.buf.Len()%4)%4))
}
