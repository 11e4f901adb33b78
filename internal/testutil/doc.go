// Package testutil is for tests only: what they need of the machine, where
// they may write, and whether they left anything behind.
//
// A package whose tests touch the host says
//
//	func TestMain(m *testing.M) { testutil.Main(m) }
//
// and a test that can't run everywhere begins with
//
//	testutil.Require(t, testutil.Root, testutil.CRIU)
package testutil
