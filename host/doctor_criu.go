package host

import (
	"context"
	"errors"
	"os"
	"strings"

	"github.com/ctctl/ctctl/internal/criu"
)

// installCRIU is relative to the source tree, which is where doctor is run first.
const installCRIU = "sudo scripts/install-criu.sh"

func (x *examination) criu(ctx context.Context) {
	e, err := criu.Find(x.o.CRIU)
	switch {
	case errors.Is(err, criu.ErrNotInstalled):
		x.add(AreaCRIU, Fail, installCRIU, "%v: containers run, but can't be checkpointed", err)
		return
	case err != nil:
		x.add(AreaCRIU, Fail, installCRIU, "%v", err)
		return
	}
	v, err := e.Version(ctx)
	if err != nil {
		x.add(AreaCRIU, Fail, installCRIU, "%v", err)
		return
	}
	x.pass(AreaCRIU, "%s, version %s", e.Binary, v)
	if !x.needRoot(AreaCRIU, "a real checkpoint and restore") {
		return
	}
	if err := e.EnsureKdat(ctx, ""); err != nil {
		x.add(AreaCRIU, Warn, "rm -f /run/criu.kdat /run/criu.kdat.ctctl", "%v: each restore probes the kernel anew, which takes about 60 ms", oneLine(err))
	} else {
		x.pass(AreaCRIU, "what CRIU knows of the kernel is cached (/run/criu.kdat)")
	}
	x.canary(ctx, e)
}

// canary really checkpoints and restores a small process tree.
func (x *examination) canary(ctx context.Context, e criu.Engine) {
	dir := nearest(x.o.RunRoot)
	if err := writable(dir); err != nil {
		dir = os.TempDir()
	}
	err := e.Canary(ctx, dir)
	if err == nil {
		x.pass(AreaCRIU, "a test process with a TCP connection, a pipe and a file was checkpointed and restored")
		return
	}
	cure := installCRIU + " --force"
	var ce *criu.Error
	if errors.As(err, &ce) && ce.Cure != "" {
		cure = ce.Cure
	}
	x.add(AreaCRIU, Fail, cure, "%v", oneLine(err))
}

// oneLine is an error without line breaks, as a finding is one line.
func oneLine(err error) string {
	return strings.Join(strings.Fields(err.Error()), " ")
}
