package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFlagsStandAnywhereBeforeTheDashes(t *testing.T) {
	tests := map[string]struct {
		in   string
		want string
	}{
		"none":                        {"list", "ctctl list --"},
		"nothing at all":              {"", "ctctl"},
		"before and after":            {"--format json list -a", "ctctl --format=json list --all=true --"},
		"global after the command":    {"list --format json", "ctctl --format=json list --"},
		"global after an argument":    {"start web1 -q", "ctctl --quiet=true start -- web1"},
		"between arguments":           {"create web1 --template t", "ctctl create --template=t -- web1"},
		"with an equals sign":         {"create --template=t web1", "ctctl create --template=t -- web1"},
		"a command behind dashes":     {"create web1 --template t -- sh -c id --memory 5", "ctctl create --template=t -- web1 -- sh -c id --memory 5"},
		"dashes and nothing":          {"create web1 --template t --", "ctctl create --template=t -- web1 --"},
		"a negative value":            {"create web1 --memory -5", "ctctl create --memory=-5 -- web1"},
		"repeated":                    {"create w -e A=1 --env B=2=3 -eC=4", "ctctl create --env=A=1 --env=B=2=3 --env=C=4 -- w"},
		"a value with a comma":        {"create w -e A=1,2", "ctctl create --env=A=1,2 -- w"},
		"a value that is a dash":      {"create w -w -", "ctctl create --workdir=- -- w"},
		"joined":                      {"exec -it web1 sh", "ctctl exec --interactive=true --tty=true -- web1 -- sh"},
		"joined with a value":         {"exec -itu root web1 sh", "ctctl exec --interactive=true --tty=true --user=root -- web1 -- sh"},
		"joined with its value":       {"exec -turoot web1 sh", "ctctl exec --tty=true --user=root -- web1 -- sh"},
		"exec without dashes":         {"exec web1 ls -l --format x", "ctctl exec -- web1 -- ls -l --format x"},
		"exec with dashes":            {"exec web1 -- ls -- -l", "ctctl exec -- web1 -- ls -- -l"},
		"exec with dashes inside":     {"exec web1 git log -- a", "ctctl exec -- web1 -- git log -- a"},
		"exec with flags behind NAME": {"exec web1 -t -q -- ls -t", "ctctl --quiet=true exec --tty=true -- web1 -- ls -t"},
		"exec with dashes first":      {"exec -- web1 ls -l", "ctctl exec -- web1 -- ls -l"},
		"exec of nothing":             {"exec web1", "ctctl exec -- web1"},
		"script arguments":            {"runscript web1 f -x --help", "ctctl runscript -- web1 f -- -x --help"},
		"script flags":                {"runscript -u nobody web1 f a", "ctctl runscript --user=nobody -- web1 f -- a"},
		"script behind dashes":        {"runscript -- web1 f -x", "ctctl runscript -- web1 f -- -x"},
		"a family":                    {"snapshot create web1 s -m text", "ctctl snapshot create --message=text -- web1 s"},
		"a flag within a family":      {"snapshot --format json list web1", "ctctl --format=json snapshot list -- web1"},
		"a dash is an argument":       {"runscript web1 -", "ctctl runscript -- web1 -"},
		"arguments behind dashes":     {"start -- web1", "ctctl start -- web1"},
		"a container called help":     {"start help", "ctctl start -- help"},
		"a container like a command":  {"start list", "ctctl start -- list"},
		"an alias":                    {"ls", "ctctl list --"},
		"a bool with a value":         {"list --all=false", "ctctl list --all=false --"},
		"help":                        {"help", "ctctl --help"},
		"help of a command":           {"help snapshot create", "ctctl snapshot create --help"},
		"help of a family":            {"snapshot -h", "ctctl snapshot --help"},
		"help among arguments":        {"create web1 --help --template t", "ctctl create --help"},
		"help that is data":           {"exec web1 ls --help", "ctctl exec -- web1 -- ls --help"},
		"criu before":                 {"--criu /x list", "ctctl --criu=/x list --"},
		"criu after":                  {"list --criu /x", "ctctl --criu=/x list --"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := arrange(newApp(), strings.Fields(tt.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, strings.Join(got, " ")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWrongWordsAreNamed(t *testing.T) {
	tests := map[string]struct{ in, msg, hint string }{
		"command":              {"strat web1", `no such command: "strat"`, "did you mean ctctl start?"},
		"command far off":      {"frobnicate", `no such command: "frobnicate"`, "ctctl help lists"},
		"command of a family":  {"snapshot make web1", `no such command: snapshot "make"`, "ctctl help snapshot lists"},
		"a family's, mistyped": {"snapshot crate web1", `no such command: snapshot "crate"`, "did you mean ctctl snapshot create?"},
		"half a command":       {"snapshot", "snapshot: say what to do: create, list, delete, mount, umount", "ctctl snapshot --help"},
		"no command":           {"--", "say which command", "ctctl help"},
		"flag":                 {"list --xyzzy", `list: no such flag: "--xyzzy"`, "ctctl list --help"},
		"flag, begun":          {"list --al", `list: no such flag: "--al"`, "did you mean --all?"},
		"flag, mistyped":       {"set x --memroy 5G", `set: no such flag: "--memroy"`, "did you mean --memory?"},
		"flag of another":      {"set x --ip 10.0.0.1", `set: no such flag: "--ip"`, "did you mean --ip-add or --ip-del or --ip-set?"},
		"short flag":           {"list -az", `list: no such flag: "-z"`, "ctctl list --help"},
		"one letter, two dash": {"list --a", `list: no such flag: "--a"`, ""},
		"flag too early":       {"--memory 5 create", `no such flag: "--memory"; flags of a command come after it`, ""},
		"value missing":        {"list -o", "list: -o wants a value", ""},
		"long value missing":   {"create x --template", "create: --template wants a value", ""},
		"value too much":       {"list --all=maybe", `list: --all is given or not, it has no value "maybe"`, ""},
		"a long word":          {strings.Repeat("x", 200), strings.Repeat("x", 60) + "…", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := arrange(newApp(), strings.Fields(tt.in))
			if err == nil || !strings.Contains(err.Error(), tt.msg) || len(err.Error()) > 200 {
				t.Fatalf("got %v, want %q", err, tt.msg)
			}
			if got := hint(err); !strings.Contains(got, tt.hint) {
				t.Errorf("hint: got %q, want %q", got, tt.hint)
			}
			if got := exitCode(err); got != codeUsage {
				t.Errorf("exit code %d", got)
			}
		})
	}
}

func TestDistanceCountsEdits(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"start", "start", 0}, {"strat", "start", 2}, {"sart", "start", 1}, {"startt", "start", 1}, {"", "abc", 3}, {"abc", "", 3}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
