package container

import "os"

// The supervisor is this executable started again: the program that imports this
// package need not do anything for it.
func init() {
	if os.Getenv(supervisorEnv) == "1" && len(os.Args) > 1 && os.Args[1] == "supervise" {
		os.Exit(supervise())
	}
}
