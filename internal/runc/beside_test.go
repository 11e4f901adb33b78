package runc

import "testing"

func TestACommandGoesWhereInitIs(t *testing.T) {
	const dir = "/sys/fs/cgroup/unified/ctctl-1/init"
	for own, want := range map[string]string{
		"/ctctl-1/init":                    dir,
		"/ctctl-1/init/init.scope":         dir + "/init.scope",
		"/ctctl-1/init/a/ctctl-1/init":     dir + "/a/ctctl-1/init",
		"/ctctl-2/init":                    "",
		"/ctctl-1":                         "",
		"/":                                "",
		"/ctctl-1/init/../../x":            "",
		"/../ctctl-1/init":                 "",
		"/ctctl-1/init/init.scope/a/b/c/d": dir + "/init.scope/a/b/c/d",
	} {
		got, err := descend(dir, own)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("init in %s: %q, %v", own, got, err)
		}
	}
}
