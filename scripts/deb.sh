#!/usr/bin/env bash
# Makes a Debian package of what is built, with a CRIU of its own, and prints its
# path. `make deb` calls it; root is needed to build CRIU.
#
#   scripts/deb.sh VERSION
#   scripts/deb.sh --depends     prints what the package depends on
#
# One made on Debian 12 is good for Debian 12 and 13. The systemd unit is enabled
# at installation; containers are not touched by upgrade or removal.
set -euo pipefail
export LC_ALL=C
umask 022

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
top=$(dirname -- "$here")

# What ctctl runs (scripts/setup.sh --runtime-only), then what the CRIU that comes
# with it is linked with.
programs=(btrfs-progs mmdebstrap debian-archive-keyring ca-certificates kmod)
libraries=(libbsd0 libgnutls30 libnftables1)
needed='libbsd.so.0 libc.so.6 libgnutls.so.30 libnftables.so.1'

die() {
	printf 'deb: %s\n' "$*" >&2
	exit 1
}

# debian_version turns what git describe says into a version that dpkg can order.
debian_version() {
	local version=${1#v}
	case $version in
	[0-9]*.*) echo "${version//-/+}" ;;
	*) echo "0~$(git -C "$top" log -1 --format=%cd --date=format:%Y%m%d%H%M%S 2>/dev/null || echo 0)+${version//-/+}" ;;
	esac
}

# provide_criu builds one that is not tied to this release's libraries.
provide_criu() {
	local found
	"$here/install-criu.sh" --portable --prefix "$top/bin/criu" >&2
	found=$(objdump -p "$top/bin/criu/sbin/criu" | awk '$1 == "NEEDED" && $2 !~ /^ld-/ { print $2 }' | sort | xargs)
	[ "$found" = "$needed" ] || die "CRIU is linked with $found, not with $needed"
}

stage_files() {
	local stage=$1 version=$2
	make -C "$top" --no-print-directory install PREFIX=/usr DESTDIR="$stage" VERSION="$version" >&2
	install -D -m 0755 -s "$top/bin/criu/sbin/criu" "$stage/usr/lib/ctctl/criu"
	find "$stage/usr/share/man" -type f -exec gzip -9n {} +
	install -d "$stage/usr/share/doc/ctctl"
	cp "$top"/{README,SECURITY}.md "$top/docs/exit-codes.md" "$top/docs/state.md" "$stage/usr/share/doc/ctctl/"
	gzip -9nc "$top/CHANGELOG.md" >"$stage/usr/share/doc/ctctl/changelog.gz"
	copyright >"$stage/usr/share/doc/ctctl/copyright"
}

copyright() {
	cat <<-TEXT
		Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
		Upstream-Name: ctctl

		Files: *
		Copyright: the authors of ctctl
		License: Apache-2.0
		 On Debian systems the text is in /usr/share/common-licenses/Apache-2.0.

		Files: usr/lib/ctctl/criu
		Copyright: the authors of CRIU, https://criu.org
		License: GPL-2
		 On Debian systems the text is in /usr/share/common-licenses/GPL-2.
		 It was built without changes from Debian's source package:
	TEXT
	sed -n 's/^\(version\|source\|source-sha256\): /  &/p' "$top/bin/criu/installed"
}

write_control() {
	local stage=$1 version=$2 libc
	libc=$(dpkg-query -W -f '${Version}' libc6)
	install -d "$stage/DEBIAN"
	cat >"$stage/DEBIAN/control" <<-TEXT
		Package: ctctl
		Version: $version
		Architecture: $(dpkg --print-architecture)
		Maintainer: the authors of ctctl <root@localhost>
		Section: admin
		Priority: optional
		Installed-Size: $(du -sk --exclude DEBIAN "$stage" | cut -f 1)
		Depends: libc6 (>= ${libc%%-*}), $(depends)
		Recommends: bash-completion, man-db
		Description: containers that can be checkpointed
		 Linux containers that behave like small servers and can be brought back:
		 a snapshot holds the memory, the processes and the disk of one instant, and a
		 rollback makes the container be as it was then. CRIU, which does the work on
		 the processes, comes with it.
	TEXT
	write_scripts "$stage/DEBIAN"
}

# write_scripts: deb-systemd-helper keeps what the administrator has decided.
# Supervisors that run go on with the executable that they were started from.
write_scripts() {
	cat >"$1/postinst" <<-'TEXT'
		#!/bin/sh
		set -e
		if [ "$1" = configure ]; then
			deb-systemd-helper unmask ctctl.service >/dev/null || true
			if deb-systemd-helper --quiet was-enabled ctctl.service; then
				deb-systemd-helper enable ctctl.service >/dev/null || true
			else
				deb-systemd-helper update-state ctctl.service >/dev/null || true
			fi
			if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
		fi
	TEXT
	cat >"$1/prerm" <<-'TEXT'
		#!/bin/sh
		set -e
		if [ "$1" = remove ] && [ -n "$(ctctl list --format ids 2>/dev/null || true)" ]; then
			echo "ctctl: containers are running or suspended; they stay as they are until ctctl is installed again" >&2
		fi
	TEXT
	cat >"$1/postrm" <<-'TEXT'
		#!/bin/sh
		set -e
		if [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi
		if [ "$1" = purge ]; then
			if command -v deb-systemd-helper >/dev/null; then
				deb-systemd-helper purge ctctl.service >/dev/null || true
			fi
			if [ -d /var/lib/ctctl ]; then
				echo "ctctl: containers and snapshots in /var/lib/ctctl are kept" >&2
			fi
		fi
	TEXT
	chmod 0755 "$1"/{postinst,prerm,postrm}
}

depends() {
	local list
	list=$(printf '%s, ' "${programs[@]}" "${libraries[@]}")
	echo "${list%, }"
}

if [ "${1:-}" = --depends ]; then
	echo "${programs[@]}" "${libraries[@]}"
	exit
fi
[ $# = 1 ] || die "usage: deb.sh VERSION, or --depends"
version=$(debian_version "$1")
stage=$(mktemp -d)
trap 'rm -rf -- "$stage"' EXIT
chmod 0755 "$stage"
provide_criu
stage_files "$stage" "$1"
write_control "$stage" "$version"
deb=$top/bin/ctctl_${version}_$(dpkg --print-architecture).deb
dpkg-deb --root-owner-group -Zxz --build "$stage" "$deb" >&2
echo "$deb"
