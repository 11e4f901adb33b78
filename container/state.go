package container

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/ctctl/ctctl/internal/statefile"
	"github.com/ctctl/ctctl/quota"
)

// Status is what a container is doing right now.
type Status string

const (
	Stopped   Status = "stopped"
	Running   Status = "running"
	Paused    Status = "paused"
	Suspended Status = "suspended"
)

// State is what can't be read from the kernel: containers/NAME/state.json.
type State struct {
	Volume     string  `json:"volume"`              // the current root volume
	Generation int     `json:"generation"`          // counts root volumes, for their names
	Current    string  `json:"current,omitempty"`   // the snapshot the container was last at
	Suspended  string  `json:"suspended,omitempty"` // directory name of the complete image it can resume from
	Intent     *Intent `json:"intent,omitempty"`    // the operation under way
	LastExit   *Exit   `json:"lastExit,omitempty"`
	// Overlay is what was changed for this run only, on top of the configuration.
	Overlay []Layer `json:"overlay,omitempty"`
}

// StepEnding is the Intent.Step from which on the image of what is being ended is
// complete and durable: what follows can only go forward.
const StepEnding = "ending"

// Intent is an operation under way, written before its first effect. Step and
// the rest say how far it came, so that repair can finish or undo it.
type Intent struct {
	Op       string    `json:"op"`
	Step     string    `json:"step,omitempty"`
	Started  time.Time `json:"started"`
	Snapshot string    `json:"snapshot,omitempty"` // the one made or gone back to
	Safety   string    `json:"safety,omitempty"`   // the one made to go back
	Volume   string    `json:"volume,omitempty"`   // the volume being made
	WasUp    bool      `json:"wasUp,omitempty"`    // init ran when the operation began
	Paused   bool      `json:"paused,omitempty"`   // and was paused

	// Of a change of the configuration: the digest of the one that is being
	// written, if one is, and what is to be with it.
	Config   string   `json:"config,omitempty"`
	Overlay  []Layer  `json:"overlay,omitempty"`
	Hostname string   `json:"hostname,omitempty"`
	Network  *Network `json:"network,omitempty"`
	Files    []File   `json:"files,omitempty"`
}

// underWay says that an operation is that ends init or brings it back. One that
// only changes limits or addresses has no say in whether init starts anew.
func (s State) underWay() bool { return s.Intent != nil && s.Intent.Op != "set" }

// File is one of the container's that is being written.
type File struct {
	Name string  `json:"name"`
	Was  *[]byte `json:"was,omitempty"` // nil: it was not there
}

// Exit is how init ended.
type Exit struct {
	Code int       `json:"code"` // as a shell gives it: 128+n for signal n
	Time time.Time `json:"time"`
}

var stateSchema = statefile.Schema{Kind: "container-state", Version: 1}

// Run is RUN_ROOT/UID/run.json: the running instance, lost at a reboot.
type Run struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"startTime"` // clock ticks since boot, field 22 of /proc/PID/stat
	// BootID is the kernel's: a run root that outlived a reboot is recognised.
	BootID      string    `json:"bootID"`
	Holder      int       `json:"holder,omitempty"` // process that keeps the console open
	HolderStart uint64    `json:"holderStart,omitempty"`
	Supervisor  int       `json:"supervisor"`
	Started     time.Time `json:"started"`
	Restored    string    `json:"restored,omitempty"` // the image it was restored from
	Launch      string    `json:"launch"`             // identifies the request it answers
}

var runSchema = statefile.Schema{Kind: "container-run", Version: 1}

// startTime reads when a process started; 0 if there is none (or a zombie).
func startTime(pid int) uint64 {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0
	}
	_, rest, ok := strings.Cut(string(b), ") ")
	if i := strings.LastIndex(string(b), ") "); i >= 0 {
		rest = string(b)[i+2:]
	}
	f := strings.Fields(rest)
	if !ok || len(f) < 20 || f[0] == "Z" || f[0] == "X" {
		return 0
	}
	n, err := strconv.ParseUint(f[19], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// bootID is different after every boot.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// Alive says whether init of that run still lives.
func (r *Run) Alive() bool {
	return r != nil && r.PID > 0 && r.StartTime != 0 && (r.BootID == "" || r.BootID == bootID()) && startTime(r.PID) == r.StartTime
}

func (m *Manager) readRun(uid string) (*Run, error) {
	r := new(Run)
	err := runSchema.Read(m.runFile(uid), r)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // absent is an answer, not an error
	}
	return r, err
}

func (m *Manager) status(c Config, st State) (Status, *Run, error) {
	run, err := m.readRun(c.UID)
	if err != nil {
		return Stopped, nil, err
	}
	if run.Alive() {
		g, err := quota.Open(c.CgroupName())
		if err != nil {
			return Running, run, err
		}
		frozen, err := g.Frozen()
		if err != nil {
			return Running, run, err
		}
		// A container that an operation holds frozen for a moment runs.
		if frozen && (st.Intent == nil || st.Intent.Paused) {
			return Paused, run, nil
		}
		return Running, run, nil
	}
	if st.Suspended != "" {
		return Suspended, run, nil
	}
	return Stopped, run, nil
}
