#!/usr/bin/env bash
# Makes the disk image of a Debian machine for the tests in integration/vm, and
# prints the directory it is in. `make test-vm` calls it.
#
#   scripts/vm-image.sh [--fresh] bookworm|trixie
#
# The directory holds
#
#   root.ext4    the root file system, sparse; not to be written to
#   kernel       its kernel
#   modules/     the modules that are needed to mount it, numbered in their order
#   packages     what is installed, with versions
#
# The machine has systemd and what scripts/setup.sh installs, which runs inside
# the new root: so this is also the test of setup on that release. With --fresh
# it is a machine that has never heard of ctctl; what its package depends on is
# in apt's cache, because the machine will have no network.
#
# No loop device, no partition and no boot loader is needed. Images are kept in
# $CTCTL_TEST_CACHE (/var/tmp/ctctl-cache), named by what they are made from;
# older ones of the same kind are removed. $CTCTL_TEST_MIRROR is the mirror to
# use, else the host's.
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
self=$here/$(basename -- "${BASH_SOURCE[0]}")
cache=${CTCTL_TEST_CACHE:-/var/tmp/ctctl-cache}
size=20G

# A small server, with what one needs to look into it.
packages=(
	systemd-sysv udev dbus libpam-systemd cron ca-certificates apt-utils
	iproute2 iputils-ping procps nftables kmod less man-db bash-completion
)
# Modules are loaded in this order, after those that they need.
boot_modules=(virtio_pci virtio_blk virtio_console ext4)

say() { printf 'vm-image: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

# customize is called with the new root before it becomes an image. The
# package manager works inside, and the mirror can be reached.
customize() {
	local root=$1
	echo "$CTCTL_VM_SUITE" >"$root/etc/hostname"
	printf '127.0.0.1 localhost %s\n::1 localhost\n' "$CTCTL_VM_SUITE" >"$root/etc/hosts"
	echo '/dev/vda / ext4 defaults 0 1' >"$root/etc/fstab"
	: >"$root/etc/machine-id"
	chroot "$root" passwd --quiet --delete root
	install_kernel "$root"
	if [ -n "$CTCTL_VM_FRESH" ]; then
		# shellcheck disable=SC2046 # words
		chroot "$root" apt-get -q -y --download-only --no-install-recommends install $("$here/deb.sh" --depends) >&2
	else
		run_setup "$root"
	fi
	chroot "$root" dpkg-query -W >"$CTCTL_VM_PART/packages"
}

# The kernel is unpacked, not installed: its package would bring tools that make
# an initramfs, which this machine does without.
install_kernel() {
	local root=$1 package version
	package=$(chroot "$root" apt-cache depends linux-image-cloud-amd64 |
		awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ { print $2; exit }')
	[ -n "$package" ] || die "$CTCTL_VM_SUITE has no linux-image-cloud-amd64"
	say "kernel: $package"
	chroot "$root" sh -c "cd /var/tmp && apt-get -q -o APT::Sandbox::User=root download $package" >&2
	dpkg-deb --fsys-tarfile "$root"/var/tmp/linux-image-*.deb |
		tar -x -C "$root" --keep-directory-symlink
	rm "$root"/var/tmp/linux-image-*.deb
	version=$(echo "$root"/boot/vmlinuz-*)
	version=${version##*/vmlinuz-}
	chroot "$root" depmod "$version"
	cp "$root/boot/vmlinuz-$version" "$CTCTL_VM_PART/kernel"
	copy_boot_modules "$root" "$version"
}

copy_boot_modules() {
	local root=$1 version=$2 module file number=10
	mkdir "$CTCTL_VM_PART/modules"
	while IFS= read -r file; do
		module=$CTCTL_VM_PART/modules/$number-$(basename -- "$file")
		case $file in
		*.xz) xz -dc "$root$file" >"${module%.xz}" ;;
		*) cp "$root$file" "$module" ;;
		esac
		number=$((number + 1))
	done < <(
		for module in "${boot_modules[@]}"; do
			chroot "$root" modprobe --set-version "$version" --show-depends "$module"
		done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }'
	)
}

run_setup() {
	local root=$1 work=/var/tmp/setup
	say "running scripts/setup.sh inside"
	mkdir -p "$root$work/scripts"
	cp "$here"/{setup,find-go,install-criu}.sh "$root$work/scripts/"
	cp "$here/../go.mod" "$root$work/"
	# How the host reaches its mirrors, and whom it trusts, a proxy say, holds here.
	apt-config dump | grep -E '^Acquire::(Check|http|https|Retries)' >"$root/etc/apt/apt.conf.d/99host" || true
	cat /etc/ssl/certs/ca-certificates.crt >"$root$work/certificates" || true
	chroot "$root" env -u GOFLAGS -u GOPATH HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin \
		SSL_CERT_FILE="$work/certificates" "$work/scripts/setup.sh" >&2
	rm -r "${root:?}$work" "$root/etc/apt/apt.conf.d/99host"
}

# digest names the image by what it is made from. What Debian changes is not
# part of it: remove the image to get that.
digest() {
	{
		cat "$self"
		if [ -n "$fresh" ]; then
			"$here/deb.sh" --depends
		else
			cat "$here/setup.sh" "$here/find-go.sh" "$here/install-criu.sh"
			awk '$1 == "go"' "$here/../go.mod"
		fi
	} | sha256sum | cut -c 1-12
}

# host_mirror prints the first of the host's apt sources that is Debian's archive.
host_mirror() {
	{ cat /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} 2>/dev/null || true; } |
		sed -n 's/#.*//; s/^ *deb *\(\[[^]]*\]\)\{0,1\} *\([^ ]*\/debian\/\{0,1\}\) .*/\2/p; s/^ *URIs: *\([^ ]*\/debian\/\{0,1\}\)\( .*\)\{0,1\}$/\1/p' |
		awk 'NR == 1'
}

build() {
	local part=$1 mirror include keep=()
	[ -z "$fresh" ] || keep=(--skip=cleanup/apt)
	mirror=${CTCTL_TEST_MIRROR:-$(host_mirror)}
	include=$(IFS=, && echo "${packages[*]}")
	mkdir "$part"
	CTCTL_VM_PART=$part CTCTL_VM_SUITE=$suite CTCTL_VM_FRESH=$fresh \
		mmdebstrap --quiet --mode=root --variant=minbase --components=main \
		"${keep[@]}" --include="$include" --customize-hook="'$self' --inside \"\$1\"" \
		"$suite" "$part/root" ${mirror:+"$mirror"} >&2
	rm -f "$part/root/etc/resolv.conf"
	say "making a file system of it"
	truncate -s "$size" "$part/root.ext4"
	mke2fs -q -t ext4 -L root -E root_owner=0:0,lazy_itable_init=1,nodiscard \
		-d "$part/root" "$part/root.ext4"
	rm -rf --one-file-system "$part/root"
}

if [ "${1:-}" = --inside ]; then
	customize "$2"
	exit
fi

fresh=''
if [ "${1:-}" = --fresh ]; then
	fresh=yes
	shift
fi
case ${1:-} in
bookworm | trixie) suite=$1 ;;
*) die "usage: vm-image.sh [--fresh] bookworm|trixie" ;;
esac
[ "$(id -u)" = 0 ] || die "making a root file system needs root"

kind=vm-$suite${fresh:+-fresh}
image=$cache/$kind-$(digest)
mkdir -p "$cache"
exec 9>"$cache/$kind.lock"
flock 9
if [ ! -d "$image" ]; then
	say "making $image (some minutes; kept for the next time)"
	for old in "$cache/$kind"-????????????{,.part}; do
		# Those that machines boot from at this moment are locked.
		if [ -d "$old" ]; then flock -n "$old" rm -rf --one-file-system "$old" || say "keeping $old, it is in use"; fi
	done
	build "$image.part"
	mv "$image.part" "$image"
fi
echo "$image"
