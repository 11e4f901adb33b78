// Package arch holds tests of the repository's own shape: sizes, layers, the
// one door that each dependency has, and what must not be written anywhere.
// It has no code of its own.
//
// The limits are a smoke alarm. A function that is cut into part1 and part2 to
// silence it is worse than the alarm; change the limit or the table here, with
// the reason in docs/adr, where the shape itself has to change.
package arch
