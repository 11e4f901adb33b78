package main

// example is a command line and what it is for.
type example struct{ line, about string }

// examples stand in the help and in the man pages, by command.
var examples = map[string][]example{
	"doctor": {
		{"ctctl doctor", "What is missing on this machine, and how to get it."},
		{"ctctl doctor web1", "Whether it has the limits that it should, whether they are too tight, and whether it can be checkpointed."},
		{"ctctl doctor web1 --for snapshot", "What stands in the way of a snapshot: process, descriptor, reason and cure."},
		{"ctctl doctor web1 --for snapshot --fix", "And what can be done about it without ending anything."},
	},
	"template": {
		{"ctctl template build trixie --suite trixie --init none --package redis-server", "Debian 13 with Redis, for containers that run one command."},
		{"ctctl template build system --suite trixie --package nginx", "A whole Debian 13 that boots with systemd, which starts its server."},
		{"ctctl template build small --suite bookworm --init sysvinit", "A whole Debian 12 that boots with sysvinit."},
		{"ctctl template import alpine alpine-minirootfs.tar.gz", "What another distribution publishes."},
	},
	"create": {
		{"ctctl create web1 --template system --ip auto --memory 512M", "A small server with access to the outside; its template has an init."},
		{"ctctl create cache --template trixie --ip 192.0.2.5 -- redis-server --bind 0.0.0.0", "One program with a given address."},
	},
	"start":     {{"ctctl start web1 web2 --wait", "Both, and not before they are up."}},
	"stop":      {{"ctctl stop web1 --timeout 2m", "A database may take its time."}},
	"boot":      {{"ctctl boot", ""}},
	"detach":    {{"ctctl detach", ""}},
	"restart":   {{"ctctl restart web1", ""}},
	"pause":     {{"ctctl pause web1", ""}},
	"unpause":   {{"ctctl unpause web1", ""}},
	"kill":      {{"ctctl kill --signal HUP web1", "Let process 1 read its configuration anew."}},
	"destroy":   {{"ctctl destroy --force web1", "Even if it runs."}},
	"exec":      {{"ctctl exec web1 -- apt-get update", ""}, {"ctctl exec -it -u postgres web1 psql", "With a terminal, as another user."}},
	"enter":     {{"ctctl enter web1", ""}},
	"console":   {{"ctctl console web1", "Log in as on a machine's screen; ctrl-] ends it."}},
	"logs":      {{"ctctl logs -f web1", ""}},
	"cp":        {{"ctctl cp site/. web1:/var/www/html", "What is in site."}, {"ctctl cp web1:/etc/nginx .", "A directory out of a container."}},
	"runscript": {{"ctctl runscript web1 ./harden.sh --strict", ""}},
	"snapshot": {
		{"ctctl snapshot create web1 before-upgrade -m 'PHP 8.4'", ""},
		{"ctctl snapshot list web1", ""},
		{"ctctl snapshot mount web1 before-upgrade /mnt", "To fetch a single file."},
	},
	"rollback": {{"ctctl rollback web1 before-upgrade", "Processes and memory too; it prints how to undo it."}},
	"suspend":  {{"ctctl suspend web1", ""}},
	"resume":   {{"ctctl resume web1", ""}},
	"repair":   {{"ctctl repair", "After the machine crashed."}},
	"usage":    {{"ctctl usage web1 --since 24h", "What it held, and which limits it met, in the last day."}},
	"top":      {{"ctctl top", ""}, {"ctctl top --once --sort -memory --format csv", "For a script."}},
	"list":     {{"ctctl list -a -o name,status,memory -s -memory", "The largest first."}, {"ctctl list --format ids | xargs ctctl stop", "Stop all."}},
	"status":   {{"ctctl status web1 --format json", ""}},
	"inspect":  {{"ctctl inspect web1", ""}},
	"rename":   {{"ctctl rename web1 web2", ""}},
	"set": {
		{"ctctl set web1 --memory 1G --cpus 1.5", "At once, and from now on."},
		{"ctctl set web1 --ip-add 192.0.2.7", "A second address; nobody who uses the first one notices."},
		{"ctctl set web1 --cpus 4 --for 2h", "While the archive is unpacked."},
	},
	"net":        {{"ctctl net list", ""}, {"ctctl net show web1", "What is there, what passed, and what is not as it should be."}},
	"profile":    {{"ctctl profile list", ""}, {"ctctl profile show small --format yaml", ""}},
	"version":    {{"ctctl version --format json", ""}},
	"completion": {{"ctctl completion bash > /etc/bash_completion.d/ctctl", ""}},
	"man":        {{"ctctl man --dir /usr/local/share/man/man1", ""}},
}
