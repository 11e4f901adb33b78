package profile

import "errors"

// ErrEntry: the table has no such entry to leave out.
var ErrEntry = errors.New("no entry of the profile that can be left out")
