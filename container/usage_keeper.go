package container

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/ctctl/ctctl/internal/statefile"
)

// usageLook is how often a supervisor looks what its container uses, and usageSave
// how often it writes it down: what was used after that is lost when both of them
// are killed.
const (
	usageLook = 10 * time.Second
	usageSave = time.Minute
)

// usageKeeper keeps the books of one life of a container. Only a supervisor has one:
// nobody else writes the file.
type usageKeeper struct {
	file  string
	read  func() (reading, error)
	log   *slog.Logger
	book  *ledger
	saved time.Time
}

// keepUsage keeps the books until stop is closed: init has ended, and its cgroup is
// still there.
func (s *supervisor) keepUsage(stop <-chan struct{}) {
	k := usageKeeper{file: s.m.usageFile(s.req.Name), read: s.readUsage, log: s.log}
	if err := k.open(); err != nil {
		s.log.Error("usage is not counted", "err", err)
		return
	}
	k.save(time.Now())
	tick := time.NewTicker(usageLook)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			k.save(time.Now())
			return
		case now := <-tick.C:
			k.tick(now)
		}
	}
}

// open puts a file aside that can't be read, but not one of a newer version.
func (k *usageKeeper) open() error {
	err := os.Mkdir(filepath.Dir(k.file), 0o700)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if _, err := statefile.SweepTemp(filepath.Dir(k.file)); err != nil { // of one that was killed
		return err
	}
	k.book, err = readLedger(k.file)
	if !errors.Is(err, statefile.ErrCorrupt) {
		return err
	}
	k.log.Error("the usage counted so far is put aside", "err", err)
	k.book = new(ledger)
	return os.Rename(k.file, k.file+".bad")
}

// tick takes a reading and, once a minute, writes it down.
func (k *usageKeeper) tick(now time.Time) {
	if !k.look(now) {
		return
	}
	if since := now.Round(0).Sub(k.saved.Round(0)); since >= usageSave || since < 0 {
		k.write(now)
	}
}

// save is for both ends of a life, which are samples.
func (k *usageKeeper) save(now time.Time) {
	if k.look(now) {
		k.book.mark()
		k.write(now)
	}
}

func (k *usageKeeper) look(now time.Time) bool {
	r, err := k.read()
	if err != nil {
		k.log.Error("read usage", "err", err)
		return false
	}
	k.book.take(now, r)
	return true
}

// readUsage reads what the container uses now. Without the disk the rest counts all
// the same.
func (s *supervisor) readUsage() (reading, error) {
	u, err := s.group.Usage()
	if err != nil {
		return reading{}, err
	}
	disk, err := diskHeld(s.req.Volume)
	if err != nil {
		s.log.Error("read the disk quota", "err", err)
		disk = nil
	}
	return reading{group: &u, disk: disk}, nil
}

func (k *usageKeeper) write(now time.Time) {
	k.saved = now
	if err := usageSchema.Write(k.file, k.book); err != nil {
		k.log.Error("save usage", "err", err)
	}
}
