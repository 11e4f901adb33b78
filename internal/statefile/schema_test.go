package statefile

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

type state struct {
	Name  string            `json:"name"`
	Count int64             `json:"count,omitempty"`
	Tags  map[string]string `json:"tags,omitempty"`
}

var plain = Schema{Kind: "test", Version: 1}

// renamed had "label" in version 1 and a count in tens in version 2.
var renamed = Schema{Kind: "test", Version: 3, Upgrades: map[int]func(json.RawMessage) (json.RawMessage, error){
	1: func(b json.RawMessage) (json.RawMessage, error) {
		return json.RawMessage(strings.ReplaceAll(string(b), `"label"`, `"name"`)), nil
	},
	2: func(b json.RawMessage) (json.RawMessage, error) {
		var s state
		if err := json.Unmarshal(b, &s); err != nil {
			return nil, err
		}
		s.Count *= 10
		return json.Marshal(s)
	},
}}

func TestWhatWasWrittenIsRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	want := state{Name: "a <b> & c", Count: 1 << 60, Tags: map[string]string{"k": "v"}}
	for range 2 { // the second write replaces the first
		if err := plain.Write(path, want); err != nil {
			t.Fatal(err)
		}
	}
	var got state
	if err := plain.Read(path, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestTheFileIsIndentedAndUnescaped(t *testing.T) {
	b, err := plain.Encode(state{Name: "<&>"})
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "kind": "test",
  "version": 1,
  "data": {
    "name": "<&>"
  }
}
`
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestDecode(t *testing.T) {
	tests := map[string]struct {
		schema Schema
		in     string
		want   state
		err    error
		says   string // part of the error
	}{
		"current version":  {plain, `{"kind":"test","version":1,"data":{"name":"x"}}`, state{Name: "x"}, nil, ""},
		"two upgrades":     {renamed, `{"kind":"test","version":1,"data":{"label":"x","count":2}}`, state{Name: "x", Count: 20}, nil, ""},
		"one upgrade":      {renamed, `{"kind":"test","version":2,"data":{"name":"x","count":2}}`, state{Name: "x", Count: 20}, nil, ""},
		"newer":            {plain, `{"kind":"test","version":2,"data":{"name":"x"}}`, state{}, ErrNewer, "version 2"},
		"missing upgrade":  {Schema{Kind: "test", Version: 2}, `{"kind":"test","version":1,"data":{}}`, state{}, ErrCorrupt, "from version 1"},
		"failing upgrade":  {renamed, `{"kind":"test","version":2,"data":{"count":"x"}}`, state{}, ErrCorrupt, "from version 2"},
		"other kind":       {plain, `{"kind":"image","version":1,"data":{}}`, state{}, ErrKind, `"image"`},
		"no version":       {plain, `{"kind":"test","data":{}}`, state{}, ErrCorrupt, "version"},
		"negative version": {plain, `{"kind":"test","version":-1,"data":{}}`, state{}, ErrCorrupt, "version"},
		"no data":          {plain, `{"kind":"test","version":1}`, state{}, ErrCorrupt, "data"},
		"null data":        {plain, `{"kind":"test","version":1,"data":null}`, state{}, ErrCorrupt, "data"},
		"empty":            {plain, ``, state{}, ErrCorrupt, ""},
		"zeros":            {plain, "\x00\x00\x00\x00", state{}, ErrCorrupt, ""},
		"truncated":        {plain, `{"kind":"test","version":1,"data":{"name"`, state{}, ErrCorrupt, ""},
		"second value":     {plain, `{"kind":"test","version":1,"data":{}} {}`, state{}, ErrCorrupt, "after the end"},
		"unknown field":    {plain, `{"kind":"test","version":1,"data":{"name":"x","colour":"red"}}`, state{}, ErrCorrupt, `"colour"`},
		"unknown outside":  {plain, `{"kind":"test","version":1,"data":{},"extra":1}`, state{}, ErrCorrupt, `"extra"`},
		"wrong type":       {plain, `{"kind":"test","version":1,"data":{"count":"many"}}`, state{}, ErrCorrupt, "count"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var got state
			err := tt.schema.Decode([]byte(tt.in), &got)
			if !errors.Is(err, tt.err) {
				t.Fatalf("got error %v, want %v", err, tt.err)
			}
			if err != nil {
				if !strings.Contains(err.Error(), tt.says) {
					t.Errorf("%q does not say %q", err, tt.says)
				}
				return
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnErrorOfReadNamesTheFileAndTheField(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	err := os.WriteFile(path, []byte(`{"kind":"test","version":1,"data":{"colour":1}}`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	err = plain.Read(path, &state{})
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "colour") {
		t.Errorf("got %v", err)
	}
}

func TestReadOfAnAbsentFileIsErrNotExist(t *testing.T) {
	if err := plain.Read(filepath.Join(t.TempDir(), "x"), &state{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestReadRefusesAnEndlessFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.json")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, maxFileBytes+1); err != nil { // sparse
		t.Fatal(err)
	}
	err := plain.Read(path, &state{})
	if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "larger") {
		t.Errorf("got %v", err)
	}
}

func TestEncodeRefusesWhatCouldNotBeReadBack(t *testing.T) {
	tests := map[string]struct {
		schema Schema
		v      any
	}{
		"nil":          {plain, nil},
		"nil pointer":  {plain, (*state)(nil)},
		"a channel":    {plain, make(chan int)},
		"no kind":      {Schema{Version: 1}, state{}},
		"version zero": {Schema{Kind: "test"}, state{}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if b, err := tt.schema.Encode(tt.v); err == nil {
				t.Errorf("got %s", b)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"kind":"test","version":3,"data":{"name":"x","count":2,"tags":{"a":"b"}}}`))
	f.Add([]byte(`{"kind":"test","version":1,"data":{"label":"x"}}`))
	f.Add([]byte(`{"kind":"test","version":9,"data":{}}`))
	f.Add([]byte(`{"version":2`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var first, second state
		err := renamed.Decode(b, &first)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrKind) && !errors.Is(err, ErrNewer) {
				t.Fatalf("an error without a sentinel: %v", err)
			}
			return
		}
		again, err := renamed.Encode(first)
		if err != nil {
			t.Fatal(err)
		}
		if err := renamed.Decode(again, &second); err != nil {
			t.Fatalf("%v in %s", err, again)
		}
		if diff := cmp.Diff(first, second); diff != "" {
			t.Errorf("(-first +second):\n%s", diff)
		}
	})
}
