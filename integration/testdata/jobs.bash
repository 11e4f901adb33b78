# A shell with job control: process groups, pipes, a stopped job, traps, and
# arrays in memory. A client asks over TCP, through two named pipes.
set -m
cd /srv || exit
items=()
hups=0
trap 'hups=$((hups + 1))' HUP

# Job 1 is a pipeline that numbers what is written to a named pipe.
mkfifo feed ask answer
: >numbered
exec 7<>feed
cat <&7 | while read -r line; do
	n=$((n + 1))
	echo "$n $line" >>numbered
done &
# Job 2 will be stopped by a signal to its group, job 3 stops itself.
(while :; do sleep 0.02; date +%s%N >job2.time; done) &
(kill -STOP "$BASHPID"; echo continued >job3.done; sleep 100000) &
# Job 4 only sleeps, with a child of its own.
(sleep 100001 & wait) &
# Job 5 carries the client's questions to us and our answers to the client.
exec 8<>ask 9<>answer
python3 -u -c '
import socket, threading
door = socket.create_server(("", 7000))
mutex = threading.Lock()
ask, answer = open("/srv/ask", "w"), open("/srv/answer")
def serve(conn):
    with conn, conn.makefile("rw") as f:
        for question in f:
            with mutex:
                ask.write(question); ask.flush()
                f.write(answer.readline()); f.flush()
while True:
    threading.Thread(target=serve, args=(door.accept()[0],), daemon=True).start()
' &
sleep 0.3
kill -STOP %2

# states lists jobs as the shell knows them, and processes as the kernel does.
# Which job is the current one (+, -) is left out: a restored job stops anew, and
# the shell takes the last one that stopped.
states() {
	jobs | sed 's/ *[&]*$//; s/\][+-]/]/; s/  */ /g' | cut -c1-40 | tr '\n' ';'
	echo -n " kernel:"
	for j in 1 2 3 4 5; do
		for p in $(jobs -p "%$j"); do
			read -r _ _ state _ pgrp _ <<<"$(sed 's/(.*)/x/' "/proc/$p/stat")"
			echo -n " %$j=$state,$((pgrp == p))"
		done
	done
}

while read -r verb what <&8; do
	case $verb in
	add)
		items+=("$what")
		echo "$what" >&7
		until grep -q " $what\$" numbered; do sleep 0.01; done
		kill -HUP $$
		echo "ok ${#items[@]}" >&9
		;;
	content)
		echo "items=${items[*]} file=$(tr '\n' ',' <numbered) hups=$hups $(states)" >&9
		;;
	wake)
		# The stopped job goes on when told to, and is stopped again.
		before=$(cat job2.time)
		kill -CONT %2
		for _ in $(seq 1000); do
			[ "$(cat job2.time)" != "$before" ] && [ -s job2.time ] && break
			sleep 0.02
		done
		[ "$(cat job2.time)" != "$before" ] && woke=yes || woke=no
		kill -STOP %2
		sleep 0.1
		echo "$woke" >&9
		;;
	esac
done
