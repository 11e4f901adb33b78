package testutil

import (
	"os"
	"strings"
	"testing"
)

// strictEnv makes a missing requirement a failure. CI sets it, because a skip
// that nobody sees hides a part that nobody tests.
const strictEnv = "CTCTL_TEST_STRICT"

// Need returns nil when the machine has something, else what is missing and
// how to get it.
type Need func() error

// Require skips the test unless the machine has everything it needs; with
// CTCTL_TEST_STRICT=1 in the environment it fails it instead.
func Require(t testing.TB, needs ...Need) {
	t.Helper()
	var missing []string
	for _, need := range needs {
		if err := need(); err != nil {
			missing = append(missing, err.Error())
		}
	}
	if len(missing) == 0 {
		return
	}
	reason := "needs " + strings.Join(missing, "; ")
	if os.Getenv(strictEnv) == "1" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}
