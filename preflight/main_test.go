package preflight

import (
	"fmt"
	"os"
	"testing"

	"github.com/ctctl/ctctl/internal/testutil"
	"github.com/ctctl/ctctl/preflight/obstacle"
)

func TestMain(m *testing.M) {
	if ran, err := obstacle.Main(); ran {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	testutil.Main(m)
}
