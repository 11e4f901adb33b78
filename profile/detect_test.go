package profile

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// rootWith makes a root file system; a text that begins with -> is a link.
func rootWith(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if len(text) > 2 && text[:2] == "->" {
			err = os.Symlink(text[2:], path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestTheInitIsFoundBehindLinksAndByWhatIsInIt(t *testing.T) {
	outside := rootWith(t, map[string]string{"systemd": "libsystemd-shared-257.so"})
	tests := map[string]struct {
		files map[string]string
		want  Found
	}{
		"Debian 12":              {map[string]string{"sbin/init": "->/lib/systemd/systemd", "lib/systemd/systemd": "\x00\x01libsystemd-shared-252.so\x00"}, Found{Systemd, 252}},
		"Debian 13":              {map[string]string{"usr/sbin/init": "->../lib/systemd/systemd", "sbin": "->usr/sbin", "usr/lib/systemd/systemd": "\x7fELF\x00libsystemd-core-257.so\x00libsystemd-shared-257.so\x00"}, Found{Systemd, 257}},
		"with a package version": {map[string]string{"sbin/init": "->/lib/systemd/systemd", "lib/systemd/systemd": "libsystemd-shared-257.9-2.fc42.so"}, Found{Systemd, 257}},
		"without a version":      {map[string]string{"sbin/init": "->/lib/systemd/systemd", "lib/systemd/systemd": "libsystemd-shared.so"}, Found{Systemd, 0}},
		"sysvinit":               {map[string]string{"sbin/init": "INIT: version", "etc/inittab": "id:2:initdefault:"}, Found{SysV, 0}},
		"OpenRC under sysvinit":  {map[string]string{"sbin/init": "INIT: version", "etc/inittab": "x", "sbin/openrc": "x"}, Found{OpenRC, 0}},
		"OpenRC":                 {map[string]string{"sbin/init": "->openrc-init", "sbin/openrc-init": "x"}, Found{OpenRC, 0}},
		"busybox":                {map[string]string{"sbin/init": "->/bin/busybox", "bin/busybox": "x", "etc/inittab": "x"}, Found{Busybox, 0}},
		"OpenRC under busybox":   {map[string]string{"sbin/init": "->/bin/busybox", "bin/busybox": "x", "sbin/openrc": "x"}, Found{OpenRC, 0}},
		"another":                {map[string]string{"sbin/init": "->runit", "sbin/runit": "x"}, Found{Other, 0}},
		"none":                   {map[string]string{"etc/motd": "x"}, Found{Other, 0}},
		"a link to nowhere":      {map[string]string{"sbin/init": "->/lib/systemd/systemd"}, Found{Other, 0}},
		"a link to itself":       {map[string]string{"sbin/init": "->init"}, Found{Other, 0}},
		"a directory":            {map[string]string{"sbin/init/x": "x"}, Found{Other, 0}},
		"a link that leads out":  {map[string]string{"sbin/init": "->" + outside + "/systemd"}, Found{Other, 0}},
		"a link that climbs out": {map[string]string{"sbin/init": "->../../" + filepath.Base(outside) + "/systemd"}, Found{Other, 0}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Detect(rootWith(t, tt.files), "/sbin/init")
			if err != nil || got != tt.want {
				t.Errorf("got %v, %v, want %v", got, err, tt.want)
			}
		})
	}
}

func TestAPipeInThePlaceOfTheInitDoesNotBlock(t *testing.T) {
	dir := rootWith(t, map[string]string{"sbin/x": "x"})
	if err := unix.Mkfifo(filepath.Join(dir, "sbin/init"), 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := Detect(dir, "/sbin/init"); err != nil || got.Init != Other {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestARootThatIsNotThereIsAnError(t *testing.T) {
	if _, err := Detect(filepath.Join(t.TempDir(), "absent"), "/sbin/init"); err == nil {
		t.Error("no error")
	}
}
