package container

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ctctl/ctctl/internal/testutil"
	"golang.org/x/sys/unix"
)

// sshRoot is a root file system with an ssh server.
func sshRoot(t *testing.T) string {
	t.Helper()
	root := testutil.TempDir(t)
	for _, dir := range []string{"etc/ssh", "usr/sbin"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "usr/sbin/sshd"), nil, 0o755); err != nil {
		t.Fatal(err)
	}
	return root
}

func hostKeysIn(t *testing.T, root string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "etc/ssh/ssh_host_*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestAContainerWithAnSSHServerGetsHostKeysOfItsOwn(t *testing.T) {
	testutil.Require(t, testutil.Root, testutil.Tool("ssh-keygen"))
	seen := map[string]bool{}
	for range 2 {
		root := sshRoot(t)
		if err := identify(root, Config{Hostname: "web1"}); err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{"ed25519", "ecdsa"} {
			name := filepath.Join(root, keyFile(kind))
			cmd := exec.CommandContext(t.Context(), "ssh-keygen", "-y", "-P", "", "-f", name) //nolint:gosec // a file of the test
			cmd.WaitDelay = time.Second
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s is no key to ssh-keygen: %v: %s", name, err, out)
			}
			public := mustRead(t, name+".pub")
			want := strings.Fields(string(out))[:2]
			if got := strings.Fields(public); len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != "root@web1" {
				t.Errorf("the public half is %q, ssh-keygen makes it %q", got, want)
			}
			if fi, err := os.Stat(name); err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", name, fi.Mode(), err)
			}
			if seen[public] {
				t.Errorf("two containers have %s", public)
			}
			seen[public] = true
		}
	}
}

func TestHostKeysThatATemplateHasStay(t *testing.T) {
	testutil.Require(t, testutil.Root)
	root := sshRoot(t)
	key := filepath.Join(root, keyFile("rsa"))
	if err := os.WriteFile(key, []byte("the template's"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := identify(root, Config{Hostname: "web1"}); err != nil {
		t.Fatal(err)
	}
	if found := hostKeysIn(t, root); len(found) != 1 || mustRead(t, key) != "the template's" {
		t.Errorf("keys now: %q", found)
	}
}

func TestARootWithoutAnSSHServerGetsNoHostKeys(t *testing.T) {
	testutil.Require(t, testutil.Root)
	root := sshRoot(t)
	if err := unix.Unlink(filepath.Join(root, "usr/sbin/sshd")); err != nil {
		t.Fatal(err)
	}
	if err := identify(root, Config{Hostname: "web1"}); err != nil {
		t.Fatal(err)
	}
	if found := hostKeysIn(t, root); len(found) != 0 {
		t.Errorf("keys: %q", found)
	}
}
