// Command obstacle holds what may not be checkpointed, see package obstacle.
package main

import (
	"fmt"
	"os"

	"github.com/ctctl/ctctl/preflight/obstacle"
)

func main() {
	if _, err := obstacle.Main(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
