#!/usr/bin/env bash
# Provides a CRIU that ctctl can use.
#
# A CRIU that is there and new enough is kept. Otherwise the newest one that
# Debian has is built from its source package into a directory of its own: no
# package of a newer suite gets installed, and the host's apt sources, lists
# and caches stay as they are.
#
# The last line of stdout is the path and the version of the CRIU to use.
set -euo pipefail
# The answers of apt and criu are read below.
export LC_ALL=C

usage() {
	cat <<'USAGE'
usage: scripts/install-criu.sh [options]

  --prefix DIR     where to install (/usr/local/lib/ctctl/criu)
  --canary CMD     accept a CRIU only if this shell command succeeds with
                   CTCTL_CRIU set to its path
  --source FILE    build this tarball of CRIU's sources instead of Debian's
  --sha256 HEX     the digest that FILE must have
  --suite SUITE    take the source package from this suite (sid, then testing)
  --no-update      the host's package lists are fresh: no apt-get update
  --portable       build one for a package: libraries whose names differ between
                   Debian releases are linked in. The system's is not looked at
  --force          build even if a good CRIU is there
USAGE
}

# CRIU before 4.2 cannot dump an inet socket on Linux 6.16 and newer
# (SO_PASSCRED is refused on them there).
minimum=4.2
prefix=/usr/local/lib/ctctl/criu
canary=''
source_file=''
source_sha256=''
suites=(sid testing)
update=yes
force=''
portable=''

build_packages=(
	gcc libc6-dev make pkg-config xz-utils
	libprotobuf-dev libprotobuf-c-dev protobuf-c-compiler protobuf-compiler
	libnl-3-dev libcap-dev libnet1-dev libnftables-dev libbsd-dev uuid-dev
	libgnutls28-dev
)

say() { printf 'install-criu: %s\n' "$*" >&2; }
die() {
	say "$*"
	exit 1
}

at_least() { printf '%s\n%s\n' "$2" "$1" | sort -V -C; }

digest_of() { sha256sum -- "$1" | cut -d' ' -f1; }

# version_of prints the version of a CRIU binary; nothing if it cannot run.
version_of() {
	"$1" --version 2>/dev/null | sed -n 's/^Version: *//p' || true
}

# acceptable says whether the CRIU at $1 is good enough, and why when it is not.
acceptable() {
	local version
	[ -x "$1" ] || return 1
	version=$(version_of "$1")
	if [ -z "$version" ]; then
		say "$1 does not run"
		return 1
	fi
	if ! at_least "$version" "$minimum"; then
		say "$1 is $version, $minimum is needed"
		return 1
	fi
	if [ -n "$canary" ] && ! CTCTL_CRIU=$1 bash -c "$canary" >&2; then
		say "$1 ($version) fails the canary: $canary"
		return 1
	fi
}

# untouched says whether the private binary still is the one recorded at
# installation. A binary without a record is somebody's own work: keep it.
untouched() {
	local recorded
	[ -e "$prefix/installed" ] || return 0
	recorded=$(sed -n 's/^binary-sha256: //p' "$prefix/installed")
	[ "$recorded" = "$(digest_of "$prefix/sbin/criu")" ] && return 0
	say "$prefix/sbin/criu is not what was installed (digest differs)"
	return 1
}

finish() {
	printf '%s %s\n' "$1" "$(version_of "$1")"
	exit 0
}

keep_existing() {
	local system
	if [ -e "$prefix/sbin/criu" ] && untouched && acceptable "$prefix/sbin/criu"; then
		say "keeping $prefix/sbin/criu"
		finish "$prefix/sbin/criu"
	fi
	if [ -z "$portable" ] && system=$(type -P criu) && acceptable "$system"; then
		say "keeping the system's $system"
		finish "$system"
	fi
}

install_build_packages() {
	local missing=() package
	for package in "${build_packages[@]}"; do
		[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
	done
	[ "${#missing[@]}" -gt 0 ] || return 0
	say "installing ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	[ -z "$update" ] || apt-get -q update >&2
	apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "${missing[@]}" >&2
}

# mirrors prints "URI<tab>KEYRING" of each enabled apt source of the host that
# offers the main component of the installed (or a newer) Debian, in one-line
# and in deb822 format. KEYRING is empty when the source names no file.
mirrors() {
	local list parts codename
	eval "$(apt-config shell list Dir::Etc::sourcelist/f parts Dir::Etc::sourceparts/d)"
	# shellcheck source=/dev/null
	codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	{
		one_line_sources "$list" "$parts"/*.list
		deb822_sources "$parts"/*.sources
	} | awk -F '\t' -v suites="$codename stable testing unstable sid" '
		BEGIN { split(suites, s, " "); for (i in s) known[s[i]] = 1 }
		{
			main = wanted = 0
			n = split($3, s, " "); for (i = 1; i <= n; i++) if (s[i] in known) wanted = 1
			n = split($4, c, " "); for (i = 1; i <= n; i++) if (c[i] == "main") main = 1
			if (main && wanted && $1 !~ /^cdrom:/ && !seen[$1]++) print $1 "\t" $2
		}'
}

# Both readers print URI, keyring, suites and components, separated by tabs.
one_line_sources() {
	local file
	for file in "$@"; do
		[ -r "$file" ] || continue
		awk '
		$1 == "deb" {
			sub(/#.*/, ""); key = ""; line = $0
			sub(/^[ \t]*deb[ \t]+/, "", line)
			if (match(line, /^\[[^]]*\]/)) {
				n = split(substr(line, 2, RLENGTH - 2), option, " ")
				for (i = 1; i <= n; i++)
					if (option[i] ~ /^signed-by=\//) key = substr(option[i], 11)
				line = substr(line, RLENGTH + 1)
			}
			n = split(line, word, " "); components = ""
			for (i = 3; i <= n; i++) components = components " " word[i]
			print word[1] "\t" key "\t" word[2] "\t" components
		}' "$file"
	done
}

deb822_sources() {
	local file
	for file in "$@"; do
		[ -r "$file" ] || continue
		awk '
		function flush_stanza(    n, i, uri, key) {
			key = field["signed-by"]; gsub(/^ +| +$/, "", key)
			if (key !~ /^\/[^ ]*$/) key = ""
			if (tolower(field["enabled"]) !~ /no|false|0/ && field["types"] ~ /(^| )deb( |$)/) {
				n = split(field["uris"], uri, " ")
				for (i = 1; i <= n; i++)
					print uri[i] "\t" key "\t" field["suites"] "\t" field["components"]
			}
			delete field; name = ""
		}
		/^#/ { next }
		/^[ \t]*$/ { flush_stanza(); next }
		/^[ \t]/ { field[name] = field[name] " " $0; next }
		{
			name = tolower($0); sub(/[ \t]*:.*/, "", name)
			value = $0; sub(/^[^:]*:[ \t]*/, "", value)
			field[name] = value
		}
		END { flush_stanza() }' "$file"
	done
}

archive_keyring() {
	local file
	for file in /usr/share/keyrings/debian-archive-keyring.{pgp,gpg}; do
		if [ -r "$file" ]; then
			echo "$file"
			return
		fi
	done
	die "the keys of Debian's archive are missing: apt-get install debian-archive-keyring"
}

work=''
trap '[ -z "$work" ] || rm -rf -- "$work"' EXIT

# private_apt runs apt-get on the lists below $work only. The host's settings
# (proxy, time-outs) hold, its sources, caches and hooks do not.
private_apt() { apt-get -q -c "$work/apt.conf" "$@"; }

prepare_apt() {
	local uri=$1 keyring=$2 suite=$3
	rm -rf "$work/apt" "$work/download"
	mkdir -p "$work/apt/lists/partial" "$work/apt/cache/archives/partial" "$work/download"
	echo "deb-src [signed-by=$keyring] $uri $suite main" >"$work/apt/sources.list"
	cat >"$work/apt.conf" <<-CONF
		#clear APT::Update::Pre-Invoke;
		#clear APT::Update::Post-Invoke;
		#clear APT::Update::Post-Invoke-Success;
		Dir::Etc::sourcelist "$work/apt/sources.list";
		Dir::Etc::sourceparts "/dev/null";
		Dir::Etc::preferences "/dev/null";
		Dir::Etc::preferencesparts "/dev/null";
		Dir::State::lists "$work/apt/lists";
		Dir::Cache "$work/apt/cache";
		Acquire::AllowInsecureRepositories "false";
		Acquire::AllowWeakRepositories "false";
		Acquire::Languages "none";
	CONF
	# apt downloads as this user, where there is one.
	if id _apt >/dev/null 2>&1; then
		chown _apt "$work/apt/lists/partial" "$work/download"
	fi
}

# fetch_from gets the tarball of the newest CRIU of one suite and leaves it in
# $work/criu.tar.xz. apt has checked the index's signature; the tarball is
# compared with the digest in that index.
fetch_from() {
	local uri=$1 keyring=$2 suite=$3 name digest
	prepare_apt "$uri" "$keyring" "$suite"
	if ! private_apt update >&2; then
		say "no source index of $suite from $uri"
		return 1
	fi
	if ! grep -qsx 'Origin: Debian' "$work"/apt/lists/*Release; then
		say "$uri is not Debian's archive"
		return 1
	fi
	read -r name digest < <(cd "$work/download" && private_apt source --print-uris --only-source criu 2>/dev/null |
		sed -n "s/^'.*' \(criu_[^ ]*\.orig\.tar\.[a-z0-9]*\) [0-9]* SHA256:\([0-9a-f]\{64\}\)$/\1 \2/p") || true
	if [ -z "${digest:-}" ]; then
		say "$suite has no source package of CRIU"
		return 1
	fi
	name_is_new_enough "$name" "$suite" || return 1
	# The packaging files are not needed and some mirrors lack them: what
	# counts is that the tarball arrived and has the right digest.
	(cd "$work/download" && private_apt source --download-only --only-source criu >&2) ||
		say "that is no matter if the sources themselves arrived: the packaging files are not needed"
	if [ ! -f "$work/download/$name" ]; then
		say "$uri did not deliver $name"
		return 1
	fi
	cp -- "$work/download/$name" "$work/source.tar"
	[ "$(digest_of "$work/source.tar")" = "$digest" ] ||
		die "$name from $uri has digest $(digest_of "$work/source.tar"), the index of $suite says $digest"
	say "$name: sha256 $digest is the one in the index of $suite, which is signed by a key of $keyring"
	origin="$name from $uri $suite"
}

name_is_new_enough() {
	local version=${1#criu_}
	version=${version%.orig.tar.*}
	at_least "$version" "$minimum" && return 0
	say "$2 has CRIU $version, $minimum is needed"
	return 1
}

fetch_source() {
	local suite uri keyring list
	list=$(mirrors)
	if [ -z "$list" ]; then
		die "found no Debian mirror in the host's apt sources: add one, or give criu_VERSION.orig.tar.xz with --source"
	fi
	for suite in "${suites[@]}"; do
		while IFS=$'\t' read -r uri keyring; do
			if fetch_from "$uri" "${keyring:-$(archive_keyring)}" "$suite"; then
				return
			fi
		done <<<"$list"
	done
	die "found no source of CRIU $minimum or newer: get criu_VERSION.orig.tar.xz elsewhere and give it with --source"
}

use_source_file() {
	local digest
	cp -- "$source_file" "$work/source.tar"
	digest=$(digest_of "$work/source.tar")
	if [ -z "$source_sha256" ]; then
		say "$source_file: sha256 $digest, not verified (no --sha256 given)"
	elif [ "$digest" = "$source_sha256" ]; then
		say "$source_file: sha256 $digest as demanded"
	else
		die "$source_file has sha256 $digest, not $source_sha256"
	fi
	origin=$(basename -- "$source_file")
}

# libraries_to_link_in makes a directory that has their static archives only:
# the linker that looks there first takes these.
libraries_to_link_in() {
	local library file
	mkdir "$work/static"
	for library in net nl-3 protobuf-c uuid; do
		file=$(gcc -print-file-name="lib$library.a")
		[ "$file" != "lib$library.a" ] || die "lib$library.a is missing"
		ln -s "$file" "$work/static/"
	done
}

build() {
	local link=()
	if [ -n "$portable" ]; then
		libraries_to_link_in
		link=(LDFLAGS="-L$work/static")
	fi
	mkdir "$work/criu"
	tar -xf "$work/source.tar" -C "$work/criu" --strip-components=1 --no-same-owner
	say "building (log: shown on failure)"
	# A clean environment: a make that calls this script, or CFLAGS made for
	# something else, must not change the build.
	if ! env -i PATH="$PATH" HOME=/nonexistent LC_ALL=C "${link[@]}" \
		make -C "$work/criu" -j"$(nproc)" WERROR=0 criu >"$work/build.log" 2>&1; then
		tail -n 40 "$work/build.log" >&2
		die "building CRIU failed"
	fi
}

publish() {
	local binary=$work/criu/criu/criu version
	version=$(version_of "$binary")
	[ -n "$version" ] || die "the CRIU that was built does not run"
	acceptable "$binary" || die "the CRIU that was built ($version) is not good enough"
	install -d -m 0755 "$prefix" "$prefix/sbin"
	install -m 0755 "$binary" "$prefix/sbin/criu.new"
	{
		echo "version: $version"
		echo "source: $origin"
		echo "source-sha256: $(digest_of "$work/source.tar")"
		echo "binary-sha256: $(digest_of "$binary")"
		echo "built: $(date -u +%Y-%m-%dT%H:%M:%SZ)"
	} >"$prefix/installed.new"
	# The record goes first: a binary that does not match it is replaced next time.
	mv -f "$prefix/installed.new" "$prefix/installed"
	mv -f "$prefix/sbin/criu.new" "$prefix/sbin/criu"
	say "installed $prefix/sbin/criu"
}

parse_options() {
	while [ $# -gt 0 ]; do
		case $1 in
		--prefix | --canary | --source | --sha256 | --suite)
			if [ $# -lt 2 ]; then
				usage >&2
				exit 2
			fi
			case $1 in
			--prefix) prefix=$2 ;;
			--canary) canary=$2 ;;
			--source) source_file=$2 ;;
			--sha256) source_sha256=$2 ;;
			--suite) suites=("$2") ;;
			esac
			shift
			;;
		--no-update) update='' ;;
		--portable) portable=yes ;;
		--force) force=yes ;;
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
}

origin=''
parse_options "$@"
[ -n "$force" ] || keep_existing
[ "$(id -u)" = 0 ] || die "building and installing CRIU needs root"
[ -z "$source_file" ] || [ -r "$source_file" ] || die "cannot read $source_file"
install_build_packages
work=$(mktemp -d)
# apt's download user has to reach the lists below it.
chmod 0755 "$work"
if [ -n "$source_file" ]; then
	use_source_file
else
	fetch_source
fi
build
publish
finish "$prefix/sbin/criu"
