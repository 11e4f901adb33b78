#!/usr/bin/env bash
# What `sudo make bench` runs: ctctl measured against runc, crun, podman (where
# they start) and CRIU by itself; see bench/main.go. Arguments go to the program:
#
#   scripts/bench.sh -quick
#
# runc and crun are for comparison only, so they are installed here and not by
# `make setup`. Where they can't be, the table says that they are not here.
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
CTCTL=$(realpath -- "${CTCTL:-$here/../bin/ctctl}")
GO=${GO:-$("$here/find-go.sh")}
export CTCTL GO

if [ "$(id -u)" != 0 ]; then
	echo 'bench: containers need root: sudo make bench' >&2
	exit 1
fi
if [ ! -x "$CTCTL" ]; then
	echo "bench: there is no $CTCTL: make build" >&2
	exit 1
fi

missing=()
for tool in runc crun; do
	command -v "$tool" >/dev/null || missing+=("$tool")
done
if [ "${#missing[@]}" -gt 0 ]; then
	echo "bench: installing ${missing[*]} to compare with" >&2
	{
		apt-get update -q && DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -q --no-install-recommends "${missing[@]}"
	} >&2 || echo 'bench: they could not be installed' >&2
fi

program=$(mktemp -d)
trap 'rm -f -- "$program/bench"; rmdir -- "$program"' EXIT
cd -- "$here/.."
CGO_ENABLED=1 "$GO" build -tags 'netgo osusergo seccomp' -o "$program/bench" ./bench
"$program/bench" "$@"
