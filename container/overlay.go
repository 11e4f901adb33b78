package container

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Layer is a change of the configuration that is not saved: it holds until the
// container is started anew, or until a moment. State.Overlay has them in the
// order in which they were made.
type Layer struct {
	// Patch is what is different from the configuration below it.
	Patch json.RawMessage `json:"patch"`
	// Until is when it is taken back; zero is at the next start.
	Until time.Time `json:"until,omitzero"`
}

// maxLayers bounds State.Overlay.
const maxLayers = 32

// expired says that the time of a layer is over.
func (y Layer) expired(now time.Time) bool { return !y.Until.IsZero() && !now.Before(y.Until) }

// overlaid is the configuration with layers put onto it.
func overlaid(c Config, layers []Layer) (Config, error) {
	if len(layers) == 0 {
		return c, nil
	}
	tree, err := treeOf(c)
	if err != nil {
		return c, err
	}
	for _, y := range layers {
		p, err := parseTree(y.Patch)
		if err != nil {
			return c, fmt.Errorf("unsaved change: %w", err)
		}
		tree = patched(tree, p)
	}
	b, err := json.Marshal(tree)
	if err != nil {
		return c, err
	}
	var out Config
	if err := json.Unmarshal(b, &out); err != nil {
		return c, fmt.Errorf("unsaved change: %w", err)
	}
	return out, nil
}

// Effective is the configuration as it is in effect: the saved one with what was
// changed for this run only.
func (l *Locked) Effective() Config { return l.m.effective(l.Config, l.State) }

// effective falls back to the saved configuration when layers do not fit it any
// more, because the file was edited by hand.
func (m *Manager) effective(c Config, st State) Config {
	out, err := overlaid(c, st.Overlay)
	if err == nil {
		err = out.Validate()
	}
	if err != nil {
		m.log().Warn("an unsaved change does not fit the configuration any more", "container", c.Name, "err", err)
		return c
	}
	return out
}

// patchBetween is the difference of two configurations.
func patchBetween(a, b Config) (patch, error) {
	was, err := treeOf(a)
	if err != nil {
		return nil, err
	}
	is, err := treeOf(b)
	if err != nil {
		return nil, err
	}
	return difference(was, is), nil
}

// layersWithout are the layers without what a saved change touches: what was saved
// last holds.
func layersWithout(layers []Layer, touched patch) ([]Layer, error) {
	var out []Layer
	for _, y := range layers {
		p, err := parseTree(y.Patch)
		if err != nil {
			return nil, fmt.Errorf("unsaved change: %w", err)
		}
		if p = without(p, touched); len(p) == 0 {
			continue
		}
		if y.Patch, err = json.Marshal(p); err != nil {
			return nil, err
		}
		out = append(out, y)
	}
	return out, nil
}

// layersWith puts one more change on top. Changes with the same end become one.
func layersWith(c Config, layers []Layer, wanted Config, until time.Time) ([]Layer, error) {
	layers = slices.Clone(layers)
	if n := len(layers); n > 0 && layers[n-1].Until.Equal(until) {
		layers = layers[:n-1]
	}
	below, err := overlaid(c, layers)
	if err != nil {
		return nil, err
	}
	p, err := patchBetween(below, wanted)
	if err != nil || len(p) == 0 {
		return layers, err
	}
	if len(layers) >= maxLayers {
		return nil, fmt.Errorf("%w: %d changes wait for their end already", ErrConfig, maxLayers)
	}
	b, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	return append(layers, Layer{Patch: b, Until: until}), nil
}

// lasting are the layers whose time is not over.
func lasting(layers []Layer, now time.Time) []Layer {
	return slices.DeleteFunc(slices.Clone(layers), func(y Layer) bool { return y.expired(now) })
}
