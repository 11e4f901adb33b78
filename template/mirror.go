package template

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// debianKeyring has the same path on the host and in the template, whose source
// list names it.
const debianKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// aptSource is an entry of sources.list(5).
type aptSource struct {
	uris, suites, components []string
	signedBy                 string
}

// parseOneLine reads the traditional format: deb [option=value …] URI suite
// component…. What is no such line is no source of ours; apt itself complains.
func parseOneLine(text string) []aptSource {
	var all []aptSource
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		line, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		var s aptSource
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "["); ok {
			options, rest, _ := strings.Cut(rest, "]")
			for option := range strings.FieldsSeq(options) {
				if key, value, _ := strings.Cut(option, "="); strings.EqualFold(key, "signed-by") {
					s.signedBy = value
				}
			}
			line = rest
		}
		if fields := strings.Fields(line); len(fields) >= 2 {
			s.uris, s.suites, s.components = fields[:1], fields[1:2], fields[2:]
			all = append(all, s)
		}
	}
	return all
}

// parseDeb822 reads the format of *.sources files: paragraphs of fields, lines
// that begin with a space go on, comments don't end anything.
func parseDeb822(text string) []aptSource {
	var all []aptSource
	fields, last := map[string]string{}, ""
	end := func() {
		types := strings.Fields(fields["types"])
		if slices.Contains(types, "deb") && !isNo(fields["enabled"]) {
			all = append(all, aptSource{
				uris:       strings.Fields(fields["uris"]),
				suites:     strings.Fields(fields["suites"]),
				components: strings.Fields(fields["components"]),
				signedBy:   strings.TrimSpace(fields["signed-by"]),
			})
		}
		fields, last = map[string]string{}, ""
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			end()
		case line[0] == ' ' || line[0] == '\t':
			fields[last] += "\n" + line
		default:
			key, value, _ := strings.Cut(line, ":")
			last = strings.ToLower(strings.TrimSpace(key))
			fields[last] = value
		}
	}
	end()
	return all
}

// isNo takes the words that apt takes (StringToBool in its strutl.cc).
func isNo(s string) bool {
	return slices.Contains([]string{"no", "false", "without", "off", "disable", "0"}, strings.ToLower(strings.TrimSpace(s)))
}

// hostSources reads the sources of the host whose root is fsys.
func hostSources(fsys fs.FS) ([]aptSource, error) {
	var all []aptSource
	add := func(name string, parse func(string) []aptSource) error {
		b, err := fs.ReadFile(fsys, name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		all = append(all, parse(string(b))...)
		return err
	}
	if err := add("etc/apt/sources.list", parseOneLine); err != nil {
		return nil, err
	}
	const parts = "etc/apt/sources.list.d"
	entries, err := fs.ReadDir(fsys, parts)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		name := path.Join(parts, e.Name())
		switch path.Ext(name) {
		case ".list":
			err = add(name, parseOneLine)
		case ".sources":
			err = add(name, parseDeb822)
		default:
			err = nil
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// debianSources is where a host gets Debian from.
type debianSources struct {
	mirror   string
	updates  bool   // the mirror also gives SUITE-updates
	security string // "" for none
}

// chooseDebian picks among the sources of a host, which may also have those of
// other publishers, who like to put "debian" into their URLs. codename is the
// host's own release. The zero value says that there is none.
func chooseDebian(sources []aptSource, codename string) debianSources {
	var d debianSources
	best := 0
	for _, s := range sources {
		for _, uri := range s.uris {
			if checkMirror(uri) != nil || !slices.Contains(s.components, "main") {
				continue
			}
			score := debianScore(s, uri, codename)
			switch security := isSecurity(s, uri); {
			case score <= 0:
			case security && d.security == "":
				d.security = uri
			case !security && score > best:
				best, d.mirror = score, uri
			}
		}
	}
	if best < 3 {
		return debianSources{}
	}
	d.updates = slices.ContainsFunc(sources, func(s aptSource) bool {
		return slices.Contains(s.uris, d.mirror) &&
			slices.ContainsFunc(s.suites, func(suite string) bool { return strings.HasSuffix(suite, "-updates") })
	})
	return d
}

// debianScore tells how sure it is that a source is a Debian mirror: from 3 on
// it is taken.
func debianScore(s aptSource, uri, codename string) int {
	score := 0
	switch {
	case strings.Contains(s.signedBy, "debian-archive"):
		score += 4
	case s.signedBy != "":
		score -= 4
	}
	host, _, _ := strings.Cut(uri[strings.Index(uri, "://")+3:], "/")
	if host == "debian.org" || strings.HasSuffix(host, ".debian.org") {
		score += 4
	}
	for _, suite := range s.suites {
		if codename != "" && (suite == codename || suite == codename+"-security") {
			score += 2
			break
		}
	}
	if strings.Contains(uri, "debian") {
		score++
	}
	return score
}

func isSecurity(s aptSource, uri string) bool {
	return strings.Contains(uri, "security") || slices.ContainsFunc(s.suites, func(suite string) bool {
		return strings.HasSuffix(suite, "-security") || strings.HasSuffix(suite, "/updates")
	})
}

var mirrorForm = regexp.MustCompile(`^((https?|ftp)://[^/\s\[\]]+|(file|copy)://)(/[^\s\[\]]*)?$`)

// checkMirror accepts URLs that apt can fetch from without further packages.
func checkMirror(uri string) error {
	if !mirrorForm.MatchString(uri) {
		return fmt.Errorf("%w: mirror %.200q is not a URL with http, https, ftp, file or copy", ErrOption, uri)
	}
	return nil
}

// rolling are the suites without updates and security suites of their own.
var rolling = []string{"sid", "unstable", "experimental"}

// sourceLines returns what to give mmdebstrap as mirrors: the one that was
// asked for, else what the host itself uses; ErrMirror if that is none.
func sourceLines(fsys fs.FS, suite, mirror string) ([]string, error) {
	if mirror != "" {
		return []string{mirror}, checkMirror(mirror)
	}
	sources, err := hostSources(fsys)
	if err != nil {
		return nil, fmt.Errorf("read the host's apt sources: %w", err)
	}
	codename, err := hostCodename(fsys)
	if err != nil {
		return nil, err
	}
	d := chooseDebian(sources, codename)
	if d.mirror == "" {
		return nil, fmt.Errorf("%w: the host's apt sources name no Debian mirror: give one", ErrMirror)
	}
	// Complete lines don't get the keyring that mmdebstrap finds for plain
	// URLs, and newer releases don't trust it by default.
	signed := ""
	if _, err := fs.Stat(fsys, strings.TrimPrefix(debianKeyring, "/")); err == nil {
		signed = "[signed-by=" + debianKeyring + "] "
	}
	line := func(uri, suite string) string { return "deb " + signed + uri + " " + suite + " main" }
	lines := []string{line(d.mirror, suite)}
	if slices.Contains(rolling, suite) {
		return lines, nil
	}
	if d.updates {
		lines = append(lines, line(d.mirror, suite+"-updates"))
	}
	if d.security != "" {
		lines = append(lines, line(d.security, suite+"-security"))
	}
	return lines, nil
}

// hostCodename returns VERSION_CODENAME of os-release(5) if the host is Debian.
func hostCodename(fsys fs.FS) (string, error) {
	f, err := fsys.Open("etc/os-release")
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	values := map[string]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), "=")
		values[key] = strings.Trim(value, `"'`)
	}
	if err := errors.Join(lines.Err(), f.Close()); err != nil {
		return "", fmt.Errorf("read os-release: %w", err)
	}
	if values["ID"] != "debian" {
		return "", nil
	}
	return values["VERSION_CODENAME"], nil
}
