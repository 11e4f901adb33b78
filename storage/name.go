package storage

import (
	"fmt"
	"strings"
)

// TempSuffix marks what an interrupted operation left below a driver's volume
// directory.
const TempSuffix = ".tmp"

const maxNameLength = 101

// CheckName returns an error with ErrName when name can't be a volume's.
func CheckName(name string) error {
	ok := name != "" && len(name) <= maxNameLength && !strings.HasSuffix(name, TempSuffix)
	for i := 0; ok && i < len(name); i++ {
		c := name[i]
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		ok = alnum || i > 0 && (c == '.' || c == '-')
	}
	if !ok {
		return fmt.Errorf("%w, not %.120q", ErrName, name)
	}
	return nil
}
