package template

import (
	"errors"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const bookwormRelease = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_CODENAME=bookworm\nID=debian\n"

const keyed = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "

// foreign are sources that are not Debian's own, or not in any format.
const foreign = `deb [signed-by=/usr/share/keyrings/y.gpg arch=amd64] https://dl.example.com/debian/ stable main
deb https://apt.example.org bookworm main
deb [signed-by=/usr/share/keyrings/z.gpg] https://repo.example.net/debian bookworm main
deb https://download.example.com/linux/debian bookworm stable
deb cdrom:[Debian GNU/Linux 12 _Bookworm_]/ bookworm main
deb [arch=amd64
deb
`

var mirrorTests = map[string]struct {
	files  map[string]string
	suite  string
	mirror string
	want   []string
}{
	"nothing": {nil, "bookworm", "", nil},
	"asked for": {
		map[string]string{"etc/apt/sources.list": "deb http://cdn.debian.org/debian bookworm main\n"},
		"bookworm", "http://mirror.example/debian",
		[]string{"http://mirror.example/debian"},
	},
	"one line": {
		map[string]string{"etc/apt/sources.list": foreign + `
# deb http://old.example/debian bookworm main
deb-src http://ftp.de.debian.org/debian bookworm main
deb  http://ftp.de.debian.org/debian/	bookworm main contrib # comment
deb http://ftp.de.debian.org/debian/ bookworm-updates main
deb http://security.debian.org/debian-security bookworm-security main
`},
		"trixie", "",
		[]string{
			"deb http://ftp.de.debian.org/debian/ trixie main",
			"deb http://ftp.de.debian.org/debian/ trixie-updates main",
			"deb http://security.debian.org/debian-security trixie-security main",
		},
	},
	"deb822": {
		map[string]string{
			"etc/apt/sources.list.d/a.list": foreign,
			"etc/apt/sources.list.d/debian.sources": `Types: deb deb-src
# a comment
URIs: http://cdn.debian.org/debian
Suites: bookworm
 bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

types: deb
uris: http://cdn.debian.org/debian-security
suites: bookworm-security
components: main
signed-by: /usr/share/keyrings/debian-archive-keyring.gpg
`,
			"etc/apt/sources.list.d/a-off.sources":          "Enabled: no\nTypes: deb\nURIs: http://off.debian.org/debian\nSuites: bookworm\nComponents: main\nSigned-By: debian-archive\n",
			"etc/apt/sources.list.d/src.sources":            "Types: deb-src\nURIs: http://off.debian.org/debian\nSuites: bookworm\nComponents: main\n",
			"etc/apt/sources.list.d/debian.list.save":       "deb http://saved.debian.org/debian bookworm main\n",
			"etc/apt/sources.list.d/b.sources":              "Types: deb\nURIs: https://deb.example.com/node_20.x\nSuites: nodistro\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n -----END\n",
			"usr/share/keyrings/debian-archive-keyring.gpg": "x",
		},
		"bookworm", "",
		[]string{
			"deb " + keyed + "http://cdn.debian.org/debian bookworm main",
			"deb " + keyed + "http://cdn.debian.org/debian bookworm-updates main",
			"deb " + keyed + "http://cdn.debian.org/debian-security bookworm-security main",
		},
	},
	"a local mirror without updates": {
		map[string]string{"etc/apt/sources.list": foreign + "deb http://mirror.corp/debian bookworm main\n"},
		"trixie", "",
		[]string{"deb http://mirror.corp/debian trixie main"},
	},
	"a better one later": {
		map[string]string{"etc/apt/sources.list": "deb http://mirror.corp/debian-extras bookworm main\ndeb http://ftp.debian.org/debian bookworm main\n"},
		"trixie", "",
		[]string{"deb http://ftp.debian.org/debian trixie main"},
	},
	"a rolling suite": {
		map[string]string{"etc/apt/sources.list": "deb http://ftp.debian.org/debian bookworm main\ndeb http://ftp.debian.org/debian bookworm-updates main\n"},
		"sid", "",
		[]string{"deb http://ftp.debian.org/debian sid main"},
	},
	"only others": {map[string]string{"etc/apt/sources.list": foreign}, "bookworm", "", nil},
}

func TestTheMirrorIsTheHostsOwn(t *testing.T) {
	for name, test := range mirrorTests {
		fsys := fstest.MapFS{"etc/os-release": {Data: []byte(bookwormRelease)}}
		for path, content := range test.files {
			fsys[path] = &fstest.MapFile{Data: []byte(content)}
		}
		got, err := sourceLines(fsys, test.suite, test.mirror)
		if none := test.want == nil; none != errors.Is(err, ErrMirror) || !none && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestTheHostsCodenameCountsOnlyOnDebian(t *testing.T) {
	for release, want := range map[string]string{
		bookwormRelease:                         "bookworm",
		"ID=\"debian\"\nVERSION_CODENAME=\"x\"": "x",
		"ID=ubuntu\nVERSION_CODENAME=noble\n":   "",
		"":                                      "",
	} {
		got, err := hostCodename(fstest.MapFS{"etc/os-release": {Data: []byte(release)}})
		if err != nil || got != want {
			t.Errorf("%q: got %q, %v, want %q", release, got, err, want)
		}
	}
}

func FuzzSourcesOfAnyFormAreRead(f *testing.F) {
	f.Add("deb [a=b] http://x/debian y main\n", "bookworm")
	f.Add("Types: deb\nURIs: x\n y\n", "")
	f.Fuzz(func(t *testing.T, text, codename string) {
		d := chooseDebian(append(parseOneLine(text), parseDeb822(text)...), codename)
		if d.mirror != "" && checkMirror(d.mirror) != nil {
			t.Errorf("mirror %q", d.mirror)
		}
	})
}
