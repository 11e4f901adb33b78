package criu

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// copyProgram puts this program, and the libraries that it is linked with,
// into the root at the paths they have, because CRIU must find there every
// file that is mapped. A static program is one file.
func (c *canary) copyProgram() error {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	if err := placeFile("/proc/self/exe", filepath.Join(c.root(), canaryProgram)); err != nil {
		return fmt.Errorf("copy the program: %w", err)
	}
	loader, err := interpreter()
	if err != nil || loader == "" {
		return err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for _, path := range append(mappedFiles(string(maps)), loader) {
		if path == exe {
			continue
		}
		if err := placeLibrary(path, filepath.Join(c.root(), path)); err != nil {
			return fmt.Errorf("copy a library: %w", err)
		}
	}
	return nil
}

// placeLibrary also makes the link under the name that the loader looks for,
// which is not always the file's: libseccomp.so.2 to libseccomp.so.2.5.4.
func placeLibrary(from, to string) error {
	if err := placeFile(from, to); err != nil {
		return err
	}
	f, err := elf.Open(from)
	if err != nil {
		return err
	}
	defer f.Close()
	names, err := f.DynString(elf.DT_SONAME)
	if err != nil {
		return err
	}
	for _, name := range names {
		if name == filepath.Base(name) && name != filepath.Base(to) {
			err := os.Symlink(filepath.Base(to), filepath.Join(filepath.Dir(to), name))
			if err != nil && !errors.Is(err, os.ErrExist) {
				return err
			}
		}
	}
	return nil
}

// interpreter returns the path of this program's dynamic loader, usually a
// link, and "" for a static program.
func interpreter() (string, error) {
	f, err := elf.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			b, err := io.ReadAll(p.Open())
			return string(bytes.TrimRight(b, "\x00")), err
		}
	}
	return "", nil
}

// mappedFiles returns the paths that code is mapped from in a /proc/PID/maps.
func mappedFiles(maps string) []string {
	seen := map[string]bool{}
	var paths []string
	for line := range strings.Lines(maps) {
		fields := strings.SplitN(strings.TrimSpace(line), " ", 6)
		if len(fields) < 6 || !strings.Contains(fields[1], "x") {
			continue
		}
		path := strings.TrimSpace(fields[5])
		if strings.HasPrefix(path, "/") && !seen[path] {
			seen[path] = true
			paths = append(paths, path)
		}
	}
	return paths
}

func placeFile(from, to string) (err error) {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src) // a reflink or copy_file_range where possible
	return errors.Join(err, dst.Close())
}
