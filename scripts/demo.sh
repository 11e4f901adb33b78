#!/usr/bin/env bash
# What `sudo make demo` shows: a real Debian container with Redis and PostgreSQL
# is snapshotted while clients write to it, wrecked, and brought back, processes
# and memory included.
#
# It leaves the machine alone: its containers live below a state root and a run
# root of its own, and the "host" they see is a pair of namespaces, for network
# and mounts, in which this script itself runs. What it keeps is the template, so that the next
# run need not build it again. Remove that with: rm -rf /var/cache/ctctl/demo
#
# What a demo that was killed left behind is cleared by the next one.
set -euo pipefail
export LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
CTCTL=${CTCTL:-$here/../bin/ctctl}
home=${CTCTL_DEMO_HOME:-/var/cache/ctctl/demo}
export CTCTL_STATE_ROOT=$home/state
# Not below home: a container's root, an ordinary user of the host, must be able
# to reach its root directory there.
export CTCTL_RUN_ROOT=${CTCTL_DEMO_RUN:-/run/ctctl-demo}

packages=(redis-server postgresql procps)
name=demo
address=10.66.66.2
rows=1000

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
	bold=$'\e[1m' plain=$'\e[0m'
fi

step() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
say() { printf '   %s\n' "$*"; }
die() {
	printf 'demo: %s\n' "$*" >&2
	exit 1
}

# The lock's descriptor stays here: a supervisor that inherited it would hold the
# lock for as long as its container runs.
ct() { "$CTCTL" "$@" 8>&-; }
# shown runs a command whose messages are part of the show.
shown() { ct "$@" 2>&1 | sed 's/^/   /'; }
inside() { ct exec "$name" -- "$@"; }

# Times of the table, in microseconds.
now() { echo "${EPOCHREALTIME/[.,]/}"; }
show_time() { awk -v us="$1" 'BEGIN { if (us < 1000000) printf "%.0f ms", us / 1000; else printf "%.1f s", us / 1000000 }'; }
table=()
record() { table+=("$(printf '%-54s %10s  %s' "$1" "$(show_time "$2")" "${3:-}")"); }
# timed WHAT COMMAND… runs the command and makes a line of the table of it.
timed() {
	local what=$1 began
	shift
	began=$(now)
	"$@"
	record "$what" $(($(now) - began))
}

redis() { redis-cli -h "$address" "$@"; }
sql() { psql -X -h "$address" -U postgres -At -v ON_ERROR_STOP=1 -c "$1"; }
# Without a time-out these would wait long for a container that is in pieces.
redis_answers() { [ "$(timeout 2 redis-cli -h "$address" ping 2>/dev/null)" = PONG ]; }
sql_answers() { [ "$(PGCONNECT_TIMEOUT=2 timeout 3 psql -X -h "$address" -U postgres -Atc 'select 1' 2>/dev/null)" = 1 ]; }

#
# Before and after
#

# A ctctl whose demo was killed goes on to its end: the container is busy (exit
# code 6) until then.
destroy() {
	local code _
	for _ in {1..20}; do
		code=0
		ct --quiet destroy --force "$1" >/dev/null 2>"$home/destroy.log" || code=$?
		[ "$code" = 6 ] || break
		sleep 0.5
	done
	[ "$code" = 0 ] || cat "$home/destroy.log" >&2
	rm -f "$home/destroy.log"
	return "$code"
}

# clear_up removes everything but the template. It is run at the end, whatever
# the end is, and at the beginning for the sake of a run that was killed.
clear_up() {
	local container failed=''
	if [ -n "${writer:-}" ]; then
		kill "$writer" 2>/dev/null || true
		wait "$writer" 2>/dev/null || true
		writer=''
	fi
	{ exec 5>&-; } 2>/dev/null
	for container in "$CTCTL_STATE_ROOT"/containers/*/; do
		[ -d "$container" ] || continue
		destroy "$(basename -- "$container")" || failed=yes
	done
	if [ -d "$CTCTL_STATE_ROOT/pool" ]; then
		ct --quiet detach || failed=yes
	fi
	rm -rf -- "${scratch:-}"
	if [ -n "$failed" ]; then
		say "could not clear up; the next demo tries again"
		return 1
	fi
	rm -rf --one-file-system -- "$CTCTL_RUN_ROOT"
}

finish() {
	local code=$?
	trap - EXIT
	trap '' INT TERM HUP
	[ "$code" = 0 ] || printf '\ndemo: ends early, clearing up\n' >&2
	clear_up || [ "$code" != 0 ] || code=1
	exit "$code"
}

prepare() {
	[ "$(id -u)" = 0 ] || die "containers need root: sudo make demo"
	[ -x "$CTCTL" ] || die "there is no $CTCTL: run make build, or make demo"
	local tool
	for tool in redis-cli psql ip unshare flock; do
		command -v "$tool" >/dev/null || die "$tool is missing: sudo make setup installs it"
	done
	install -d -m 0700 "$home"
	exec 8>>"$home/lock"
	# A client that a killed demo had started may hold it for a moment.
	flock -w 5 8 || die "another demo is running"
}

introduce() {
	cat <<-TEXT
		${bold}ctctl demo${plain}
		A Debian container with Redis and PostgreSQL, each running as its own user,
		is snapshotted while it serves, then wrecked, then brought back.

		This leaves the machine alone. The containers, their disk and their network
		are the demo's own and go at the end:
		   state root   $CTCTL_STATE_ROOT (keeps the template for the next time)
		   run root     $CTCTL_RUN_ROOT
		   network      a private namespace; nothing in it reaches the machine's
	TEXT
}

# The template is built in the machine's own network, from which the packages come.
provide_template() {
	local suite began
	# shellcheck source=/dev/null
	suite=$(. /etc/os-release && [ "${ID:-}" = debian ] && echo "${VERSION_CODENAME:-bookworm}") || suite=bookworm
	suite=${CTCTL_DEMO_SUITE:-$suite}
	template=$suite
	[ ! -e "$CTCTL_STATE_ROOT/templates/$template.json" ] || return 0
	step "Build a template: Debian $suite with ${packages[*]} (a minute or two, the first time only)"
	began=$(now)
	say "\$ ctctl template build $template --init none --suite $suite ${packages[*]/#/--package }"
	local wanted=()
	for package in "${packages[@]}"; do wanted+=(--package "$package"); done
	build_template --init none --suite "$suite" "${wanted[@]}"
	template_took=$(($(now) - began))
}

# A build that a killed demo had begun goes on to its end, and keeps the template
# busy (exit code 6) until then. If it succeeds there is nothing left to build.
build_template() {
	if ct template build "$template" "$@" >/dev/null; then
		return 0
	elif [ $? != 6 ]; then
		return 1
	fi
	say "waiting for that build: a demo that was killed had begun it"
	flock -w 600 "$CTCTL_STATE_ROOT/templates/$template.lock" true || die "it does not end"
	[ -e "$CTCTL_STATE_ROOT/templates/$template.json" ] || ct template build "$template" "$@" >/dev/null
}

#
# The container
#

# PID 1 of the container: it starts both servers as their own users and a process
# that writes into a file without a name. Redis is told to write nothing to disk:
# what it knows is in its memory alone. Who may connect is no matter here, only
# this script can reach the container.
program=$(
	cat <<'PROGRAM'
as() { exec setpriv --reuid="$1" --regid="$1" --init-groups "${@:2}"; }
bin=$(echo /usr/lib/postgresql/*/bin)
install -d -o postgres -g postgres /run/postgresql /srv/postgres
if [ ! -e /srv/postgres/PG_VERSION ]; then
	(as postgres "$bin/initdb" -D /srv/postgres -A trust -E UTF8 --locale=C.UTF-8 -N)
	echo 'host all all 0.0.0.0/0 trust' >>/srv/postgres/pg_hba.conf
fi
as postgres "$bin/postgres" -D /srv/postgres -c listen_addresses='*' &
as redis redis-server --bind 0.0.0.0 --protected-mode no --save '' --appendonly no --dir /var/lib/redis &
(exec -a notes bash -c 'echo $$ >/run/notes.pid; exec 9<>/var/tmp/notes; rm /var/tmp/notes
	while sleep 0.05; do echo "note $((n = n + 1))" >&9; done') &
while :; do wait; sleep 1; done
PROGRAM
)

start_container() {
	step "Create and start it"
	say "\$ ctctl create $name --template $template --ip $address/32 -- /bin/bash -c '…both servers…'"
	timed "create" shown create "$name" --template "$template" --ip "$address/32" -- /bin/bash -c "$program"
	say "\$ ctctl start $name"
	timed "start" shown start "$name"
	timed "first answer of both servers (initdb included)" await_servers
}

await_servers() {
	local end=$((SECONDS + 60))
	until redis_answers && sql_answers; do
		[ "$SECONDS" -lt "$end" ] || die "the servers do not answer; their output: $(tail -n 20 "$CTCTL_STATE_ROOT/containers/$name/console.log")"
		sleep 0.05
	done
}

fill() {
	step "Write to both from outside, as any client would"
	seq "$rows" | sed 's/.*/SET key:& value-&/' | redis >/dev/null
	sql "create table orders (id int primary key, item text);
		insert into orders select i, 'item ' || i from generate_series(1, $rows) i" >/dev/null
	say "redis: $(redis dbsize) keys, in memory only     postgres: $(sql 'select count(*) from orders') rows"
	say "processes:"
	processes | sed 's/^/      /'
	say "and process $(inside cat /run/notes.pid) writes notes into a file that was deleted and is still open"
}

# PID 1's children, by process id, user and name.
processes() { inside ps --ppid 1 -o pid=,user=,args= | cut -c 1-76; }

# What must be the same after the rollback.
fingerprint() {
	echo "redis data    $(seq -f 'GET key:%g' "$rows" | redis | sha256sum | cut -c 1-16)"
	echo "redis process $(redis info server | sed -n 's/^run_id:\([0-9a-f]\{16\}\).*/\1/p')"
	echo "rows          $(sql "select count(*) || ' ' || left(md5(string_agg(id || item, ',' order by id)), 16) from orders")"
	echo "postgres up   $(sql 'select pg_postmaster_start_time()')"
	echo "files         $(inside sh -c 'find /etc /usr/bin /usr/lib/postgresql -type f | sort | xargs sha256sum | sha256sum' | cut -c 1-16)"
	echo "processes     $(processes | awk '{ print $1, $2 }' | tr '\n' ' ')"
}

# A client that never stops writing, over one connection, and remembers the
# longest it had to wait for an answer.
write_on() {
	local last this longest=0 reply
	exec 6<>"/dev/tcp/$address/6379"
	trap 'echo "$longest $reply" >"$scratch/writer"; exit 0' TERM
	last=$(now)
	while printf 'INCR written\r\n' >&6 && read -r -t 10 -u 6 reply; do
		this=${EPOCHREALTIME/[.,]/}
		if [ $((this - last)) -gt "$longest" ]; then longest=$((this - last)); fi
		last=$this
	done
}

snapshot() {
	step "Snapshot it while a client writes without a break"
	write_on 8>&- &
	writer=$!
	sleep 0.5
	say "\$ ctctl snapshot create $name good"
	timed "snapshot, the whole command" shown snapshot create "$name" good
	sleep 0.3
	kill -TERM "$writer"
	wait "$writer" || true
	writer=''
	local longest reply
	read -r longest reply <"$scratch/writer"
	record "   longest wait of a client that wrote all the time" "$longest"
	say "the client went on: $(tr -dc 0-9 <<<"$reply") writes over one connection, the longest took $(show_time "$longest")"
}

wreck() {
	step "Wreck it"
	say "delete all rows, flush Redis, remove programs, data and /etc, kill the servers"
	sql 'delete from orders' >/dev/null
	redis flushall >/dev/null
	# shellcheck disable=SC2016 # to be expanded inside
	inside sh -c 'rm -rf /srv/postgres /var/lib/redis /usr/lib/postgresql /usr/bin/redis-* /etc/*
		kill -9 $(ps --ppid 1 -o pid=)'
	if redis_answers || sql_answers; then die "it still answers, this is no wreck"; fi
	say "redis:     $(redis ping 2>&1 | head -n 1 || true)"
	say "postgres:  $(sql 'select 1' 2>&1 | head -n 1 || true)"
	say "files:     $(inside sh -c 'ls /srv/postgres 2>&1; ls /etc | wc -l' | tr '\n' ' ')entries left in /etc"
}

rollback() {
	local before=$1
	step "Roll back"
	say "\$ ctctl rollback $name good"
	timed "rollback, the whole command" shown rollback "$name" good
	timed "first answer of both servers" await_servers
	local after
	after=$(fingerprint)
	if [ "$after" != "$before" ]; then
		diff <(echo "$before") <(echo "$after") >&2 || true
		die "it is not as it was"
	fi
	say "all is as at the snapshot:"
	printf '      %s\n' "${after//$'\n'/$'\n      '}"
	check_notes
}

# The file has no name, so it is in the snapshot of the disk only because the
# process that holds it is in the snapshot of the memory.
check_notes() {
	local pid first second
	pid=$(inside cat /run/notes.pid)
	first=$(inside sh -c "cat /proc/$pid/fd/9 | wc -l")
	sleep 0.3
	second=$(inside sh -c "cat /proc/$pid/fd/9 | wc -l")
	if [ "$first" = 0 ] || [ "$second" -le "$first" ]; then
		die "the deleted open file did not come back ($first lines, then $second)"
	fi
	say "the deleted open file came back too: $first notes, $second a moment later"
}

suspend_and_resume() {
	step "Suspend and resume, with a client's connection open"
	exec 5<>"/dev/tcp/$address/6379"
	local reply first second
	first=$(ask)
	say "\$ ctctl suspend $name"
	timed "suspend" shown suspend "$name"
	say "nothing of it is in memory now; the client still believes to be connected"
	say "\$ ctctl resume $name"
	timed "resume" shown resume "$name"
	second=$(ask)
	exec 5>&-
	[ "$first" = "$second" ] || die "the client's connection is another one: $first, then $second"
	sql_answers || die "postgres does not answer"
	say "the same connection goes on (Redis calls it client $second before and after), rows: $(sql 'select count(*) from orders')"
}

# ask asks Redis, over the open connection, how it calls that connection.
ask() {
	printf 'CLIENT ID\r\n' >&5
	read -r -t 20 -u 5 reply || die "the client's connection is gone"
	tr -dc 0-9 <<<"$reply"
}

show() {
	local began before
	began=$(now)
	ip link set lo up
	clear_left
	start_container
	fill
	before=$(fingerprint)
	snapshot
	wreck
	rollback "$before"
	suspend_and_resume
	step "What took how long"
	if [ -n "${CTCTL_DEMO_TEMPLATE_TOOK:-}" ]; then
		record "build the template (kept for the next time)" "$CTCTL_DEMO_TEMPLATE_TOOK"
	fi
	printf '   %s\n' "${table[@]}"
	clear_up
	trap - EXIT
	printf '\n%sdone in %s%s; nothing is left but the template in %s\n' \
		"$bold" "$(show_time $(($(now) - CTCTL_DEMO_BEGAN)))" "$plain" "$home"
}

# clear_left clears what a demo left that was killed. Its network goes with the
# last of its processes.
clear_left() {
	local left=("$CTCTL_STATE_ROOT"/containers/*/)
	[ ! -d "${left[0]}" ] || say "clearing up after a demo that was killed"
	clear_up || true
	scratch=$(mktemp -d)
}

guard() {
	trap finish EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
}

# The script goes on as itself in a mount namespace, so that the mount of the
# demo's disk is its own and goes with it, and then in a network namespace, which
# goes with the last process that uses it.
self=$here/${BASH_SOURCE[0]##*/}
case ${1:-} in
'')
	prepare
	introduce
	CTCTL_DEMO_BEGAN=$(now)
	export CTCTL CTCTL_DEMO_BEGAN
	exec unshare --mount --propagation private -- bash "$self" --template
	;;
--template)
	guard
	provide_template
	export CTCTL_DEMO_TEMPLATE_TOOK=${template_took:-}
	exec unshare --net -- bash "$self" --show "$template"
	;;
--show)
	guard
	template=$2
	show
	;;
esac
