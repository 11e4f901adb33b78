package container

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestContainersAreGivenNameServersThatTheyCanReach(t *testing.T) {
	const stub = "# of systemd-resolved\nnameserver 127.0.0.53\noptions edns0 trust-ad\nsearch example.org\n"
	const real = "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch example.org\n"
	for name, test := range map[string]struct {
		host, resolved, want string
	}{
		"the host's own":                   {real, "", real},
		"the host's own, though it has it": {real, "nameserver 192.0.2.99\n", real},
		"behind the stub":                  {stub, real, real},
		"some of them":                     {"nameserver ::1\nnameserver 192.0.2.53\n", real, "nameserver 192.0.2.53\n"},
		"none that is known":               {stub, "", "# of systemd-resolved\noptions edns0 trust-ad\nsearch example.org\n"},
		"the stub on both":                 {stub, "nameserver ::ffff:127.0.0.54\n", "# of systemd-resolved\noptions edns0 trust-ad\nsearch example.org\n"},
		"a zone, a comment, an empty line": {"nameserver fe80::1%eth0\n\n#nameserver 127.0.0.1\nnameserver\n", real, "nameserver fe80::1%eth0\n\n#nameserver 127.0.0.1\nnameserver\n"},
		"no file":                          {"", "", ""},
		"only that of systemd-resolved":    {"", real, real},
	} {
		root := t.TempDir()
		for i, text := range []string{test.host, test.resolved} {
			path := filepath.Join(root, resolverFiles[i])
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if text == "" {
				continue
			}
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(test.want, resolverBelow(root)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", name, diff)
		}
	}
}
