#!/usr/bin/env bash
# Installs what ctctl needs to be built, run and tested on Debian 12 or 13,
# and nothing else. Safe to run again: what is there is left as it is.
set -euo pipefail
# The answers of apt-cache are read below.
export LC_ALL=C
# mkfs.btrfs, nft and ip live in sbin, which a user's PATH may lack.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

usage() {
	cat <<'USAGE'
usage: scripts/setup.sh [--runtime-only] [--no-criu]
       scripts/setup.sh --vm

  --runtime-only  only what a host needs to run a ready-made ctctl: no
                  compiler, no Go, no test clients (CRIU still is built)
  --no-criu       leave CRIU alone
  --vm            what `make test-vm` needs besides all that: QEMU, and that only

Run it as root, or as a user who may use sudo.
USAGE
}

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
go_mod=$here/../go.mod

# The Go release that is fetched when Debian's is too old for go.mod.
go_release=1.26.8
go_home=/usr/local/lib/ctctl/go

# cgo: libcontainer's nsenter is C, seccomp filters are made by libseccomp.
build_packages=(gcc libc6-dev make git pkg-config libseccomp-dev)
# What ctctl runs: mkfs.btrfs and btrfs receive, mmdebstrap and the keys for it.
runtime_packages=(btrfs-progs mmdebstrap ca-certificates debian-archive-keyring)
# Clients and inspectors of the tests; shellcheck belongs to `make check`. Only
# the command counts: who has psql from elsewhere does not need the package.
test_packages=(
	iproute2=ip nftables=nft curl=curl redis-tools=redis-cli
	postgresql-client=psql shellcheck=shellcheck
)

# Virtual machines, and the file systems they boot from.
vm_packages=(qemu-system-x86 qemu-utils e2fsprogs binutils)

say() { printf 'setup: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "needs root for: $* (run it as root, or install sudo)"
	fi
}

# installed says whether a package is there; for PACKAGE=COMMAND the command
# will do, whoever provides it.
installed() {
	case $1 in *=*) command -v "${1#*=}" >/dev/null && return ;; esac
	[ "$(dpkg-query -W -f '${db:Status-Status}' "${1%%=*}" 2>/dev/null)" = installed ]
}

updated=
refresh_index() {
	[ -z "$updated" ] || return 0
	say "apt-get update"
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -q update >&2
	updated=yes
}

install_packages() {
	local missing=() package
	for package in "$@"; do
		installed "$package" || missing+=("${package%%=*}")
	done
	if [ "${#missing[@]}" = 0 ]; then
		say "packages: all $# are there"
		return
	fi
	say "packages: installing ${missing[*]}"
	refresh_index
	as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y \
		-o DPkg::Lock::Timeout=300 install --no-install-recommends "${missing[@]}" >&2
}

at_least() { printf '%s\n%s\n' "$2" "$1" | sort -V -C; }

go_wanted() { awk '$1 == "go" { print $2; exit }' "$go_mod"; }

setup_go() {
	local go wanted offered
	wanted=$(go_wanted)
	if go=$("$here/find-go.sh" 2>/dev/null); then
		say "Go: $go ($(GOTOOLCHAIN=local "$go" version | awk '{ print $3 }')) is good for go $wanted"
		return
	fi
	refresh_index
	# 2:1.24~2 is the package's version of Go 1.24.
	offered=$(apt-cache policy golang-go | sed -n 's/^ *Candidate: \([0-9]*:\)\{0,1\}\([0-9.]*\).*/\2/p')
	if [ -n "$offered" ] && at_least "$offered" "$wanted"; then
		install_packages golang-go
	else
		fetch_go "$wanted"
	fi
	go=$("$here/find-go.sh") || die "Go was installed but is not found"
	say "Go: $go is ready"
}

scratch=
# The module cache below it is read-only.
trap '[ -z "$scratch" ] || { chmod -R u+w "$scratch"; rm -rf -- "$scratch"; }' EXIT

# fetch_go gets a Go toolchain through the module proxy, where every release is
# published as a version of the module golang.org/toolchain and vouched for by
# the checksum database. The go command that fetches it is Debian's: any release
# can do that. It is unpacked, not installed, so that no second, older go stays
# behind in PATH.
fetch_go() {
	local wanted=$1 arch module bootstrap dir
	at_least "$go_release" "$wanted" || go_release=$wanted
	arch=$(dpkg --print-architecture)
	case $arch in
	amd64 | arm64 | riscv64 | s390x) ;;
	ppc64el) arch=ppc64le ;;
	i386) arch=386 ;;
	armhf) arch=armv6l ;;
	*) die "no Go toolchain is published for $arch: put a Go $wanted into PATH" ;;
	esac
	module=golang.org/toolchain@v0.0.1-go$go_release.linux-$arch
	scratch=$(mktemp -d)
	bootstrap=$(unpack_debian_go)
	say "Go: fetching $module"
	(
		cd "$scratch"
		env -u GOFLAGS -u GOTOOLCHAIN GOROOT="${bootstrap%/bin/go}" GO111MODULE=on \
			GOPATH="$scratch/path" GOCACHE="$scratch/cache" \
			GOMODCACHE="$scratch/mod" "$bootstrap" mod download -json "$module" >"$scratch/toolchain.json"
	) || die "fetching $module failed: $(cat "$scratch/toolchain.json")"
	say "Go: sum $(sed -n 's/.*"Sum": "\(.*\)".*/\1/p' "$scratch/toolchain.json"), checked by the go command against the checksum database"
	dir=$(sed -n 's/.*"Dir": "\(.*\)".*/\1/p' "$scratch/toolchain.json")
	install_go "$dir"
}

# unpack_debian_go prints the path of a go command unpacked from Debian's package.
unpack_debian_go() {
	local package
	package=$(apt-cache depends golang-go | awk '$1 == "Depends:" && $2 ~ /^golang-[0-9.]+-go$/ { print $2; exit }')
	[ -n "$package" ] || die "Debian offers no golang-go here: put a Go $(go_wanted) into PATH"
	say "Go: unpacking Debian's $package to fetch a newer one with"
	(cd "$scratch" && apt-get -q -o APT::Sandbox::User=root download "$package" >&2) || die "apt-get download $package failed"
	dpkg-deb -x "$scratch/$package"_*.deb "$scratch/debian"
	echo "$scratch"/debian/usr/lib/go-*/bin/go
}

# install_go makes a module's directory a usable GOROOT, the way the go command
# itself does: module archives carry neither execute bits nor files named go.mod.
install_go() {
	local dir=$1 file
	chmod -R u+w "$dir"
	chmod +x "$dir"/bin/*
	find "$dir/pkg/tool" -type f -exec chmod +x {} +
	while IFS= read -r file; do
		cp "$file" "${file%_go.mod}go.mod"
	done < <(find "$dir/src" -name _go.mod)
	as_root mkdir -p "$(dirname "$go_home")"
	as_root rm -rf "$go_home.new" "$go_home.old"
	as_root cp -R "$dir" "$go_home.new"
	as_root chmod -R go=rX "$go_home.new"
	if [ -e "$go_home" ]; then as_root mv "$go_home" "$go_home.old"; fi
	as_root mv "$go_home.new" "$go_home"
	as_root rm -rf "$go_home.old"
	say "Go: $("$go_home/bin/go" version) in $go_home"
}

main() {
	local runtime_only='' criu=yes
	while [ $# -gt 0 ]; do
		case $1 in
		--runtime-only) runtime_only=yes ;;
		--no-criu) criu='' ;;
		--vm)
			install_packages "${vm_packages[@]}"
			exit
			;;
		-h | --help)
			usage
			exit 0
			;;
		*)
			usage >&2
			exit 2
			;;
		esac
		shift
	done
	command -v apt-get >/dev/null || die "this is for Debian: apt-get is missing. docs/dependencies.md lists what to install by hand"

	local packages=("${runtime_packages[@]}")
	if [ -z "$runtime_only" ]; then
		packages+=("${build_packages[@]}" "${test_packages[@]}")
	fi
	install_packages "${packages[@]}"
	if [ -z "$runtime_only" ]; then
		setup_go
	fi
	if [ -n "$criu" ]; then
		as_root "$here/install-criu.sh" ${updated:+--no-update} >&2
	fi
	say "done"
}

main "$@"
