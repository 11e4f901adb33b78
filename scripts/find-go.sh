#!/usr/bin/env bash
# Prints the path of the Go command that builds this project, or fails.
#
# A Go that already satisfies the `go` line of go.mod wins. Failing that, Go
# 1.21 or newer is good enough, because since that release the go command
# fetches the toolchain that go.mod asks for by itself (GOTOOLCHAIN=auto).
# An older go that happens to be first in PATH is passed over.
#
# CTCTL_GO_DIRS replaces the directories that are looked at besides PATH.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
wanted=$(awk '$1 == "go" { print $2; exit }' "$here/../go.mod")
switching=1.21

at_least() { printf '%s\n%s\n' "$2" "$1" | sort -V -C; }

release_of() {
	GOTOOLCHAIN=local "$1" version 2>/dev/null | sed -n 's/.* go\([0-9][0-9a-z.]*\) .*/\1/p'
}

candidates() {
	type -a -P go 2>/dev/null || true
	local dir
	for dir in ${CTCTL_GO_DIRS-/usr/local/go/bin /usr/local/lib/ctctl/go/bin}; do
		[ -x "$dir/go" ] && printf '%s\n' "$dir/go"
	done
	return 0
}

second=
while IFS= read -r go; do
	release=$(release_of "$go") || continue
	[ -n "$release" ] || continue
	if at_least "$release" "$wanted"; then
		printf '%s\n' "$go"
		exit 0
	fi
	if [ -z "$second" ] && at_least "$release" "$switching"; then
		second=$go
	fi
done < <(candidates)

if [ -n "$second" ]; then
	printf '%s\n' "$second"
	exit 0
fi
echo "no Go $wanted (nor one of at least $switching that could fetch it) found: run 'make setup' as root" >&2
exit 1
