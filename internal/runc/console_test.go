package runc

import "testing"

func TestTheConsoleIsTheLastMountOnItsPath(t *testing.T) {
	const (
		gone  = "209 363 0:128 /0//deleted /dev/console rw,nosuid - devpts devpts rw\n"
		other = "210 363 0:129 /2 /dev/tty1 rw - devpts devpts rw\n"
		late  = "211 363 0:130 /1 /dev/console rw,nosuid - devpts devpts rw\n"
	)
	for text, want := range map[string]string{"": "", gone: "0:128", other: "", gone + late: "0:130", gone + other: "0:128", "1 2\n": ""} {
		if got := deviceAt(text, "/dev/console"); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
