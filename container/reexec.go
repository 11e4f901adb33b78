package container

import "os"

// The supervisor and the console's holder are this executable started again: the
// program that imports this package need not do anything for it.
func init() {
	switch {
	case len(os.Args) < 2:
	case os.Args[1] == "supervise" && os.Getenv(supervisorEnv) == "1":
		os.Exit(supervise())
	case os.Args[1] == "hold" && os.Getenv(holderEnv) == "1":
		os.Exit(hold())
	}
}
