package main

import (
	"errors"
	"strings"

	"github.com/ctctl/ctctl/checkpoint"
	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/host"
	"github.com/ctctl/ctctl/internal/criu"
	"github.com/ctctl/ctctl/internal/runc"
	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/netns"
	"github.com/ctctl/ctctl/quota"
	"github.com/ctctl/ctctl/storage"
	"github.com/ctctl/ctctl/template"
)

// hints are one line each: what to do about an error. NAME becomes the name of
// the container it is about.
var hints = []struct {
	err  error
	text string
}{
	{host.ErrNotRoot, "run it with sudo"},
	{host.ErrRunRoot, "give --run-root, or $CTCTL_RUN_ROOT, as well"},
	{statefile.ErrBusy, "try again when it is done"},
	{statefile.ErrNewer, "use the version of ctctl that wrote it, or a later one"},
	{checkpoint.ErrDamaged, "nothing was touched; another snapshot may be whole, and ctctl start --cold gives up what a suspended container had in memory"},
	{statefile.ErrCorrupt, "correct the file that is named, or bring it back from a backup"},
	{container.ErrNotFound, "ctctl list -a shows what there is"},
	{template.ErrNotFound, "ctctl template list shows what there is; ctctl template build makes one"},
	{checkpoint.ErrNotFound, "ctctl snapshot list NAME shows what there is"},
	{container.ErrExists, "choose another name, or destroy that one"},
	{checkpoint.ErrExists, "choose another name, or ctctl snapshot delete NAME and that one"},
	{template.ErrExists, "choose another name, or ctctl template delete that one"},
	{container.ErrUndo, "ctctl repair NAME clears what was left"},
	{container.ErrDied, "ctctl logs NAME shows what it said; ctctl inspect NAME how it ended"},
	{container.ErrTaken, "choose another; ctctl list -a -o name,ip shows the addresses of this host, ctctl inspect a container's ports"},
	{container.ErrTimeout, "ctctl status NAME shows how it is now"},
	{container.ErrNoConsole, "a restart of the container brings it back"},
	{checkpoint.ErrForeign, "use the version of ctctl and CRIU that made it, or a later one"},
	{checkpoint.ErrNoRoom, "delete snapshots, or give the state root more space"},
	{checkpoint.ErrMounted, "give an empty directory that exists; ctctl snapshot umount DIR ends it"},
	{storage.ErrNoSpace, "delete snapshots, containers or templates, or give the state root more space"},
	{storage.ErrInUse, "stop what uses it; ctctl list shows what runs"},
	{netns.ErrAddressInUse, "choose another address; ctctl list -a -o name,ip shows those of this host"},
	{netns.ErrAddressTaken, "choose another address; --no-probe adds it all the same"},
	{netns.ErrNoBridge, "ip link show type bridge lists the host's; ctctl0 is made when it is needed"},
	{netns.ErrPortInUse, "publish another port of the host; ctctl net show NAME shows a container's"},
	{netns.ErrNoIPv6, "give IPv4 addresses only"},
	{quota.ErrNoDevice, "lsblk lists the disks; pool is the one that containers are on"},
	{quota.ErrBelowUsage, "use less of it first, or give more"},
	{template.ErrToolMissing, "apt-get install mmdebstrap, or import a root file system: ctctl template import"},
	{template.ErrPackage, "look its name up with apt-cache search"},
	{template.ErrMirror, "check the network and the sources in /etc/apt, or give --mirror URL"},
	{template.ErrNotRoot, "give the directory or archive that has bin, etc and usr at its top"},
	{template.ErrArchive, "give a tar archive, plain or compressed with gzip, xz, zstd or bzip2"},
	{criu.ErrNotInstalled, "scripts/install-criu.sh installs CRIU 4.2 or later; ctctl doctor says more"},
	{criu.ErrTooOld, "scripts/install-criu.sh installs CRIU 4.2 or later; ctctl doctor says more"},
	{runc.ErrUser, "give a user of the container's /etc/passwd, or a number"},
}

func hint(err error) string {
	var usage usageError
	if errors.As(err, &usage) {
		return usageHint(usage)
	}
	var ce *criu.Error
	if errors.As(err, &ce) && ce.Cure != "" {
		return printable(naming(err, ce.Cure))
	}
	var state *container.StateError
	if errors.As(err, &state) {
		return naming(err, stateHint(state))
	}
	var cmd *runc.CommandError
	var code codeError
	if errors.As(err, &cmd) && !errors.As(err, &code) {
		return naming(err, "correct command in the container's config.json; ctctl inspect NAME shows it")
	}
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return naming(err, h.text)
		}
	}
	return ""
}

func usageHint(e usageError) string {
	switch {
	case e.hint != "":
		return e.hint
	case e.command != "":
		return "ctctl " + e.command + " --help explains it"
	}
	return ""
}

// naming puts the container's name into a hint.
func naming(err error, text string) string {
	var op *container.OpError
	if errors.As(err, &op) && container.CheckName(op.Name) == nil {
		return strings.ReplaceAll(text, "NAME", op.Name)
	}
	return text
}

func stateHint(e *container.StateError) string {
	switch {
	case e.Op == "destroy":
		return "stop it first, or use --force"
	case e.Op == "cp" && e.Status == container.Suspended:
		return "ctctl resume NAME brings it back; its processes would find files changed"
	case e.Op == "start" && e.Status == container.Running, e.Op == "unpause", e.Op == "resume" && e.Status == container.Running:
		return "it runs already; ctctl status NAME shows since when"
	case e.Op == "rename":
		return "ctctl stop NAME stops it"
	case e.Op == "stop", e.Op == "kill":
		if e.Status == container.Stopped {
			return "it is stopped already"
		}
	case e.Status == container.Suspended:
		return "ctctl resume NAME brings it back"
	case e.Status == container.Paused:
		return "ctctl unpause NAME lets it go on"
	case e.Status == container.Stopped:
		return "ctctl start NAME starts it"
	}
	return ""
}
