package container

import (
	"github.com/ctctl/ctctl/internal/runc"
	"github.com/ctctl/ctctl/profile"
)

// Profile says how far the container is made one that can be checkpointed. It takes
// effect at the next start.
type Profile struct {
	Checkpointable string   `json:"checkpointable,omitempty"` // on (default) or off
	Without        []string `json:"without,omitempty"`        // entries that are left out all the same
}

func (p Profile) options() profile.Options {
	return profile.Options{Off: p.Checkpointable == "off", Without: p.Without}
}

// CheckpointProfile is the profile that the container has when it is started now: it
// depends on the init in its root.
func (m *Manager) CheckpointProfile(info Info) (profile.Profile, error) {
	c := info.Config
	spec := runc.Spec{System: c.System(), Args: c.args(), IDs: c.IDs()}
	return profileOf(m.Volumes.Path(info.State.Volume), spec, c.Profile.options())
}

func profileOf(root string, s runc.Spec, o profile.Options) (profile.Profile, error) {
	found := profile.Found{Init: profile.Command}
	if s.System {
		var err error
		if found, err = profile.Detect(root, s.Args[0]); err != nil {
			return profile.Profile{}, err
		}
	}
	o.HostUsers = s.IDs == nil
	return profile.For(found, o), nil
}
