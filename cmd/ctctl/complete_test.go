package main

import (
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/ctctl/ctctl/container"
	"github.com/ctctl/ctctl/netns"
	"github.com/google/go-cmp/cmp"
)

type fakeInventory struct{}

func (fakeInventory) containers() (list []container.Info) {
	for name, s := range map[string]container.Status{
		"cold": container.Stopped, "hot": container.Running, "hotter": container.Running, "ice": container.Suspended, "slow": container.Paused,
	} {
		c := container.Config{Name: name}
		c.Network.Interfaces = []netns.Interface{{Name: "eth0", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.5/32")}}}
		list = append(list, container.Info{Config: c, Status: s})
	}
	return list
}
func (fakeInventory) templates() []string { return []string{"trixie", "bookworm"} }
func (fakeInventory) snapshots(name string) []string {
	return map[string][]string{"hot": {"good", "better"}}[name]
}

func TestCompletionKnowsWhatFits(t *testing.T) {
	tests := map[string]struct{ line, want string }{
		"commands":              {"s", "set snapshot start status stop suspend"},
		"none hidden":           {"__c", ""},
		"families":              {"snapshot ", "create delete list mount umount"},
		"stopped ones":          {"start ", "cold"},
		"running and paused":    {"stop ", "hot hotter slow"},
		"suspended ones":        {"resume ", "ice"},
		"paused ones":           {"unpause ", "slow"},
		"by prefix":             {"pause hotter", "hotter"},
		"not twice":             {"stop hot ", "hotter slow"},
		"all":                   {"destroy ", "cold hot hotter ice slow"},
		"after flags":           {"stop --timeout 3s -q ", "hot hotter slow"},
		"snapshots":             {"rollback hot ", "better good"},
		"of no snapshots":       {"rollback cold ", ""},
		"no third":              {"rollback hot good ", ""},
		"a snapshot to delete":  {"snapshot delete hot g", "good"},
		"a mount point":         {"snapshot mount hot good ", ":dir"},
		"new names are not":     {"create ", ""},
		"new names of rename":   {"rename cold ", ""},
		"templates":             {"create x --template ", "bookworm trixie"},
		"a template after =":    {"create x --template=t", "--template=trixie"},
		"templates to delete":   {"template delete ", "bookworm trixie"},
		"no container there":    {"template build ", ""},
		"a file to import":      {"template import x ", ":file"},
		"formats":               {"list --format ", "csv ids json table yaml"},
		"a short flag's value":  {"list -ao stat", "status"},
		"flags":                 {"stop --t", "--timeout --trace"},
		"global flags":          {"--qu", "--quiet"},
		"directories":           {"--state-root ", ":dir"},
		"files of cp":           {"cp ho", "hot: hotter: :file"},
		"inside, of cp":         {"cp hot:/etc", ""},
		"to run inside":         {"exec ", "hot hotter"},
		"of all containers":     {"set ", "cold hot hotter ice slow"},
		"profiles":              {"set hot --profile ", "large medium small"},
		"a profile to show":     {"profile show s", "small"},
		"an address to remove":  {"set hot --ip-del ", "192.0.2.5"},
		"of nobody yet":         {"set --ip-del ", ""},
		"an interface":          {"set hot --nic ", "eth0"},
		"not vzctl's spelling":  {"set hot --netif", ""},
		"nothing of inside":     {"exec hot ", ""},
		"behind dashes":         {"exec hot -- ls -", ""},
		"a script":              {"runscript hot ", ":file"},
		"script arguments":      {"runscript hot f -", ":file"},
		"columns of top":        {"top --sort t", "throttled"},
		"one to examine":        {"doctor ho", "hot hotter"},
		"what to examine for":   {"doctor hot --for s", "snapshot suspend"},
		"one whose usage":       {"usage c", "cold"},
		"shells":                {"completion ", "bash fish zsh"},
		"after nonsense":        {"frobnicate ", ""},
		"after a bad flag":      {"list --bogus ", ""},
		"one snapshot argument": {"snapshot create ", "cold hot hotter ice slow"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o, _ := complete(newApp(), strings.Split(tt.line, " "), false, func(string, string) inventory { return fakeInventory{} })
			if diff := cmp.Diff(tt.want, offered(o, "")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func offered(o offer, strip string) string {
	var got []string
	for _, c := range o.words {
		got = append(got, strings.TrimPrefix(c.word, strip))
	}
	slices.Sort(got)
	if o.files != "" {
		got = append(got, ":"+o.files)
	}
	return strings.Join(got, " ")
}

func TestBashGetsOnlyWhatItCallsAWord(t *testing.T) {
	tests := map[string]struct {
		words []string
		want  string
	}{
		"after =":       {[]string{"create", "x", "--template", "=", "t"}, "trixie"},
		"right after =": {[]string{"create", "x", "--template", "="}, "bookworm trixie"},
		"before :":      {[]string{"cp", "ho"}, "hot: hotter: :file"},
		"a new word":    {[]string{"create", "--template", "=", "trixie", "--userns", ""}, "auto host"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			o, strip := complete(newApp(), tt.words, true, func(string, string) inventory { return fakeInventory{} })
			if diff := cmp.Diff(tt.want, offered(o, strip)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCompletionReadsTheStateRootOfTheCommandLine(t *testing.T) {
	t.Setenv("CTCTL_RUN_ROOT", "/env/run")
	var got [2]string
	complete(newApp(), []string{"--state-root", "/flag/state", "start", ""}, false, func(state, run string) inventory {
		got = [2]string{state, run}
		return fakeInventory{}
	})
	if want := [2]string{"/flag/state", "/env/run"}; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestCompletionOfAnUnreadableStateRootIsSilent(t *testing.T) {
	inv := diskInventory("/proc/no-host", "/proc/no-host")
	if len(inv.containers())+len(inv.templates())+len(inv.snapshots("x")) != 0 {
		t.Error("something was found where nothing is")
	}
}

func TestCompletionScriptsAreCorrectShell(t *testing.T) {
	for shell, script := range completionScripts {
		t.Run(shell, func(t *testing.T) {
			path, err := exec.LookPath(shell)
			if err != nil {
				t.Skip(err)
			}
			cmd := exec.CommandContext(t.Context(), path, "-n")
			cmd.Stdin = strings.NewReader(script)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}
