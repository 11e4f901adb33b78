// Package vmrig boots real machines under the tests: Debian with its own kernel
// and systemd, in QEMU, on a network that exists only for them.
//
// A Machine is started from an image (scripts/vm-image.sh) through a copy-on-write
// overlay, so that nothing a test does lasts. It is talked to through a serial
// port that the guest's network knows nothing of: commands, files, its clock. It
// can be put back into a saved state within seconds, stopped in its tracks, reset,
// and lose its power. Switch is a network of several machines, whose cables can be
// pulled.
//
// With KVM a machine is about as fast as the one it runs on; without, QEMU
// translates its code, which takes eight times as long. Whether KVM really runs a
// Debian kernel here is found out by booting one.
//
// The tests themselves have the build tag vm and are started by `make test-vm`:
// they take long. See docs/testing-vm.md.
package vmrig
