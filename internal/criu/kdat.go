package criu

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/checkpoint-restore/go-criu/v7/rpc"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

const (
	// kdatDir is where CRIU looks for its cache, as all builds have it.
	kdatDir   = "/run"
	kdatName  = "criu.kdat"
	stampName = "criu.kdat.ctctl"
	// kdatLimit bounds the cache file, which is a few hundred bytes.
	kdatLimit = 1 << 20
)

// EnsureKdat makes sure that CRIU's cache of what the kernel can do is there
// and true. Without it CRIU probes the kernel at each start, some 40 to 90 ms
// that count as downtime in a restore. CRIU saves the cache by itself only if
// /run is a tmpfs, as proof that it does not outlive the kernel; here a stamp
// beside it holds the boot id, the kernel and the CRIU binary it is for.
//
// runDir is the directory that CRIU was built to keep the cache in; "" means
// /run, which all distributions use. Several processes may call EnsureKdat at
// the same time. A call that finds all well costs well under a millisecond.
func (e Engine) EnsureKdat(ctx context.Context, runDir string) error {
	if runDir == "" {
		runDir = kdatDir
	}
	if err := e.ensureKdat(ctx, runDir); err != nil {
		return fmt.Errorf("cache criu's view of the kernel: %w", err)
	}
	return nil
}

func (e Engine) ensureKdat(ctx context.Context, runDir string) error {
	identity, err := e.kdatIdentity()
	if err != nil {
		return err
	}
	stamp, err := lockStamp(ctx, filepath.Join(runDir, stampName))
	if err != nil {
		return err
	}
	defer stamp.Close() // unlocks
	path := filepath.Join(runDir, kdatName)
	if kdatIsTrue(stamp, path, identity) {
		return nil
	}
	data, err := e.probeKernel(ctx)
	if err != nil {
		return err
	}
	if err := replaceFile(path, data); err != nil {
		return err
	}
	return writeStamp(stamp, identity, data)
}

// kdatIdentity describes what the cache is for: this boot of this kernel and
// this CRIU binary. (CRIU itself refuses a cache of another CRIU build, but
// not of another kernel.)
func (e Engine) kdatIdentity() (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return "", fmt.Errorf("uname: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat(e.Binary, &st); err != nil {
		return "", fmt.Errorf("look at %s: %w", e.Binary, err)
	}
	return fmt.Sprintf("boot %s\nkernel %s %s\ncriu %s %d:%d %d %d.%09d\n",
		bytes.TrimSpace(boot), unix.ByteSliceToString(uts.Release[:]), unix.ByteSliceToString(uts.Version[:]),
		e.Binary, st.Dev, st.Ino, st.Size, st.Mtim.Sec, st.Mtim.Nsec), nil
}

// lockStamp opens the stamp and locks it. The file is never removed, so all
// who lock it lock the same one.
func lockStamp(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// kdatIsTrue compares the stamp with identity and the cache with the stamp.
func kdatIsTrue(stamp io.Reader, path, identity string) bool {
	data, err := readAtMost(path, kdatLimit)
	if err != nil {
		return false
	}
	got, err := io.ReadAll(io.LimitReader(stamp, kdatLimit))
	return err == nil && string(got) == stampText(identity, data)
}

func stampText(identity string, data []byte) string {
	return fmt.Sprintf("%ssha256 %x\n", identity, sha256.Sum256(data))
}

func writeStamp(stamp *os.File, identity string, data []byte) error {
	if err := stamp.Truncate(0); err != nil {
		return err
	}
	_, err := stamp.WriteAt([]byte(stampText(identity, data)), 0)
	return err
}

// probeKernel lets CRIU make the cache on a tmpfs over /run that only it
// sees, and returns the cache.
func (e Engine) probeKernel(ctx context.Context) (data []byte, err error) {
	err = inPrivateMounts(func() error {
		if err := unix.Mount("tmpfs", kdatDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=1m,mode=700"); err != nil {
			return fmt.Errorf("mount a private tmpfs on %s: %w", kdatDir, err)
		}
		if err := e.checkFeatures(ctx); err != nil {
			return err
		}
		data, err = readAtMost(filepath.Join(kdatDir, kdatName), kdatLimit)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s keeps no cache in %s", e.Binary, kdatDir)
		}
		return err
	})
	return data, err
}

// checkFeatures asks for a feature, for which CRIU probes all of the kernel.
func (e Engine) checkFeatures(ctx context.Context) error {
	w, err := e.startWorker(ctx, nil)
	if err != nil {
		return err
	}
	dog := watch(ctx, 20*time.Second, nil, nil, w)
	_, err = w.call(dog.ctx, &rpc.CriuReq{
		Type:     rpc.CriuReqType_FEATURE_CHECK.Enum(),
		Features: &rpc.CriuFeatures{MemTrack: proto.Bool(true)},
	}, nil)
	close(dog.called)
	if struck, strikeErr := dog.end(); struck && err != nil {
		err = errors.Join(ErrDeadline, strikeErr, err)
	}
	tail := w.stderrTail()
	if err = errors.Join(err, w.close()); err != nil {
		return newError("feature check", "", tail, err)
	}
	return nil
}

// replaceFile writes the file so that readers see the old or the new one. The
// caller holds the lock, so the temporary name is its own. There is no need
// for fsync: the file is worth nothing after a reboot.
func replaceFile(path string, data []byte) error {
	tmp := path + ".new"
	// One left by a process that was killed may be a link or have any mode.
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func readAtMost(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, nil
}
