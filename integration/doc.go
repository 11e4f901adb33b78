// Package integration tests ctctl from outside, as its users do: the tests run
// the command line tool on real containers with real servers in them, and talk
// to these over TCP from the host's side. The package has no code of its own.
//
// Everything happens on one machine, but not in its network: the tests make a
// network namespace, which plays the host, with a state root and a run root of
// their own. They need root, and CRIU 4.2 or newer.
//
//	CTCTL                   the executable to test; unset: it is built from the sources
//	CTCTL_TEST_STRICT=1     fail instead of skip where the machine lacks something
//	CTCTL_TEST_CACHE        where the containers' root file system is kept, built by
//	                        mmdebstrap the first time; unset: /var/tmp/ctctl-cache
//	CTCTL_TEST_PROGRAMS     a directory with the programs that the tests would compile
//	-short                  fewer rounds where the number of rounds is the point
package integration
