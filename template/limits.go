package template

// Limits bound what an archive may make of the disk. Zero and negative values
// stand for the defaults.
type Limits struct {
	// Entries in the archive, 5 million. The bytes of all names together are
	// bounded by 200 times this.
	Entries int64
	// Bytes that the files have together, holes included, and that come out of
	// the decompressor: 64 GiB.
	Bytes int64
	// Ratio of the bytes that come out of the decompressor to those that went
	// in: 200. It is looked at from 256 MiB on, because small files may well be
	// nothing but zeros.
	Ratio int64
}

const (
	defaultEntries = 5_000_000
	defaultBytes   = 64 << 30
	defaultRatio   = 200
	ratioFromBytes = 256 << 20
	nameBytesEach  = 200
)

func (l Limits) withDefaults() Limits {
	if l.Entries <= 0 {
		l.Entries = defaultEntries
	}
	if l.Bytes <= 0 {
		l.Bytes = defaultBytes
	}
	if l.Ratio <= 0 {
		l.Ratio = defaultRatio
	}
	return l
}
