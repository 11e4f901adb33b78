package statefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// maxFileBytes bounds what Read takes into memory. The largest real files are
// manifests with one line for each image file, far below a megabyte.
const maxFileBytes = 64 << 20

// Schema describes one kind of file. Version counts from 1; Upgrades[v] turns
// the data of version v into that of version v+1. A field that is added with
// a meaningful zero value needs a new version all the same, because older
// programs refuse fields that they don't know.
type Schema struct {
	Kind     string
	Version  int
	Upgrades map[int]func(json.RawMessage) (json.RawMessage, error)
}

type envelope struct {
	Kind    string          `json:"kind"`
	Version int             `json:"version"`
	Data    json.RawMessage `json:"data"`
}

// Write stores v at path, with mode 0600. After an error the file holds its
// old content or the new one, entire; only after success is the new one sure
// to survive a power cut.
func (s Schema) Write(path string, v any) error {
	b, err := s.Encode(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return replaceFile(realDisk, path, b)
}

// Read fills v from path. The error is fs.ErrNotExist when there is no file,
// ErrNewer, ErrKind or ErrCorrupt; a field that v doesn't have counts as
// corrupt and is named, because silently dropping it would lose it at the next
// write. After an error the content of v is unspecified.
func (s Schema) Read(path string, v any) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err // a PathError already names what and where
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return err
	}
	if len(b) > maxFileBytes {
		return fmt.Errorf("read %s: larger than %d bytes: %w", path, maxFileBytes, ErrCorrupt)
	}
	if err := s.Decode(b, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// Encode returns v in its envelope as indented JSON with a final newline.
func (s Schema) Encode(v any) ([]byte, error) {
	if s.Kind == "" || s.Version < 1 {
		return nil, fmt.Errorf("encode: schema %q version %d is not usable", s.Kind, s.Version)
	}
	data, err := marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", s.Kind, err)
	}
	if isNull(data) {
		return nil, fmt.Errorf("encode %s: nothing to write", s.Kind)
	}
	return marshal(envelope{Kind: s.Kind, Version: s.Version, Data: data})
}

// Decode is Read for bytes that are already in memory.
func (s Schema) Decode(b []byte, v any) error {
	var e envelope
	if err := unmarshal(b, &e); err != nil {
		return err
	}
	switch {
	case e.Kind != s.Kind:
		return fmt.Errorf("%w: %q instead of %q", ErrKind, e.Kind, s.Kind)
	case e.Version < 1 || isNull(e.Data):
		return fmt.Errorf("%w: %s without version or data", ErrCorrupt, s.Kind)
	case e.Version > s.Version:
		return fmt.Errorf("%s version %d, this program knows %d: %w", s.Kind, e.Version, s.Version, ErrNewer)
	}
	data := e.Data
	for from := e.Version; from < s.Version; from++ {
		up := s.Upgrades[from]
		if up == nil {
			return fmt.Errorf("%w: no upgrade of %s from version %d", ErrCorrupt, s.Kind, from)
		}
		var err error
		if data, err = up(data); err != nil {
			return fmt.Errorf("%w: upgrade %s from version %d: %w", ErrCorrupt, s.Kind, from, err)
		}
	}
	return unmarshal(data, v)
}

func isNull(b json.RawMessage) bool {
	t := bytes.TrimSpace(b)
	return len(t) == 0 || bytes.Equal(t, []byte("null"))
}

// marshal leaves <, > and & as they are: people read these files.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// unmarshal takes exactly one JSON value and no unknown field.
func unmarshal(b []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: data after the end", ErrCorrupt)
	}
	return nil
}

// replaceFile is the durable write of the package comment. The temporary name
// is unique, so that two writers that forgot to lock don't mix their bytes.
func replaceFile(d disk, path string, b []byte) (err error) {
	dir, base := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	f, err := os.CreateTemp(dir, base+".*.tmp") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write %s: %w", path, errors.Join(err, d.remove(f.Name())))
		}
	}()
	_, err = d.write(f, b)
	if err == nil {
		err = d.sync(f)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := d.rename(f.Name(), path); err != nil {
		return err
	}
	return d.syncDir(dir)
}
