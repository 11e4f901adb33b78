package template

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var errFailure = errors.New("exit status 25")

// The outputs are those of mmdebstrap 1.3.5 with apt 2.6, shortened.
var defeats = map[string]struct {
	output string
	want   error
	lines  []string
}{
	"unknown packages": {
		`I: installing remaining packages inside the chroot...
Reading package lists...
Building dependency tree...
E: Unable to locate package nosuchpkg
E: Unable to locate package alsonot
E: setup failed: E: apt-get -o Dir::Bin::dpkg=env --yes install nosuchpkg alsonot failed
I: main() received signal PIPE: waiting for setup...
E: mmdebstrap failed to run
`,
		ErrPackage,
		[]string{"E: Unable to locate package nosuchpkg", "E: Unable to locate package alsonot"},
	},
	"conflict": {
		`The following packages have unmet dependencies:
 exim4-config : Conflicts: postfix but 3.7.11-0+deb12u1 is to be installed
 exim4-daemon-light : Conflicts: mail-transport-agent
E: Unable to correct problems, you have held broken packages.
E: setup failed: E: apt-get --yes install exim4-daemon-light postfix failed
`,
		ErrPackage,
		[]string{
			"The following packages have unmet dependencies:",
			"exim4-config : Conflicts: postfix but 3.7.11-0+deb12u1 is to be installed",
			"exim4-daemon-light : Conflicts: mail-transport-agent",
			"E: Unable to correct problems, you have held broken packages.",
		},
	},
	"unknown version": {
		"E: Version '1' for 'nginx' was not found\nE: mmdebstrap failed to run\n",
		ErrPackage,
		[]string{"E: Version '1' for 'nginx' was not found"},
	},
	"a script that fails": {
		`dpkg: error processing package foo (--configure):
 installed foo package post-installation script subprocess returned error exit status 1
Errors were encountered while processing:
 foo
E: Sub-process env returned an error code (1)
`,
		ErrPackage,
		[]string{
			"dpkg: error processing package foo (--configure):",
			"installed foo package post-installation script subprocess returned error exit status 1",
		},
	},
	"unknown suite": {
		`Err:2 http://cdn.debian.org/debian nosuch Release
  404  Not Found [IP: 192.0.2.1 80]
E: The repository 'http://cdn.debian.org/debian nosuch Release' does not have a Release file.
E: apt-get update --error-on=any failed
`,
		ErrMirror,
		[]string{"E: The repository 'http://cdn.debian.org/debian nosuch Release' does not have a Release file."},
	},
	"unknown host": {
		`Ign:1 http://mirror.invalid/debian bookworm InRelease
Err:1 http://mirror.invalid/debian bookworm InRelease
  Could not resolve 'mirror.invalid'
E: Failed to fetch http://mirror.invalid/debian/dists/bookworm/InRelease  Could not resolve 'mirror.invalid'
E: Some index files failed to download. They have been ignored, or old ones used instead.
`,
		ErrMirror,
		[]string{"E: Failed to fetch http://mirror.invalid/debian/dists/bookworm/InRelease  Could not resolve 'mirror.invalid'"},
	},
	"unknown key": {
		`W: GPG error: http://x sid InRelease: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 6ED0E7B82643E131
E: The repository 'http://x sid InRelease' is not signed.
`,
		ErrMirror,
		[]string{
			"W: GPG error: http://x sid InRelease: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 6ED0E7B82643E131",
			"E: The repository 'http://x sid InRelease' is not signed.",
		},
	},
	"a mirror that stands still": {
		`E: Release file for http://x/debian/dists/sid/InRelease is expired (invalid since 14d 15h 48min 53s). Updates for this repository will not be applied.
`,
		ErrMirror,
		[]string{"E: Release file for http://x/debian/dists/sid/InRelease is expired (invalid since 14d 15h 48min 53s). Updates for this repository will not be applied."},
	},
	"something else": {"a\nb\nc\nd \x1b[2J\n", errFailure, []string{"b", "c", `d \x1b[2J`}},
	"silence":        {"", errFailure, nil},
}

func TestADefeatOfMmdebstrapIsExplained(t *testing.T) {
	for name, test := range defeats {
		t.Run(name, func(t *testing.T) {
			out := &outputLines{progress: func(string) {}}
			for _, part := range strings.SplitAfter(test.output, " ") {
				if _, err := out.Write([]byte(part)); err != nil {
					t.Fatal(err)
				}
			}
			out.flush()
			err := explain("bookworm", out.lines, errFailure)
			var b *BuildError
			if !errors.As(err, &b) || !errors.Is(err, test.want) || !errors.Is(err, errFailure) {
				t.Fatalf("got %v, want %v", err, test.want)
			}
			if diff := cmp.Diff(test.lines, b.Lines); diff != "" {
				t.Errorf("lines (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnEndlessOutputIsBounded(t *testing.T) {
	out := &outputLines{progress: func(string) {}}
	for i := range 10_000 {
		if _, err := fmt.Fprintf(out, "%d%s", i, strings.Repeat("x", 100)); err != nil {
			t.Fatal(err)
		}
		if i%7 == 0 {
			if _, err := out.Write([]byte("\n")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := out.Write([]byte("\n" + strings.Repeat("y", 1<<20))); err != nil {
		t.Fatal(err)
	}
	out.flush()
	bytes := 0
	for _, l := range out.lines {
		bytes += len(l)
	}
	if len(out.lines) > keptLines || bytes > keptLines*maxLineBytes {
		t.Errorf("%d lines, %d bytes", len(out.lines), bytes)
	}
	if last := out.lines[len(out.lines)-1]; !strings.HasPrefix(last, "y") {
		t.Errorf("the last line is %.20q", last)
	}
}
