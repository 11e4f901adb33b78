package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/ctctl/ctctl/netns"
)

// NetworkFile is beside CRIU's images, with the same name ending so that it is
// digested as they are: what the container's own administrator has configured in
// the network namespace, as JSON. Where there is nothing of it there is no file.
const NetworkFile = "ctctl-network.img"

// networkLimit is far more bytes than netns.Inner accepts.
const networkLimit = 64 << 20

// RecordNetwork prepares for recording what was configured inside, before the
// container stands still.
func (l *Locked) RecordNetwork(ctx context.Context, pid int) (*netns.Recorder, error) {
	return netns.NewRecorder(ctx, pid, l.Effective().netConfig())
}

// reinstate brings back what a snapshot has recorded. What can't be brought back
// fails the restore: a container without a part of its firewall is not the one that
// it was.
func reinstate(ctx context.Context, images string, pid int) error {
	f, err := os.Open(filepath.Join(images, NetworkFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var in netns.Inner
	if err := json.NewDecoder(io.LimitReader(f, networkLimit)).Decode(&in); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	if err := in.Reinstate(ctx, pid); err != nil {
		return fmt.Errorf("bring back what was configured inside: %w", err)
	}
	return nil
}
