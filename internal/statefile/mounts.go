package statefile

import (
	"fmt"
	"os"
	"strings"
)

// mountPoints returns the mount points of the calling thread's mount
// namespace; /proc/self would show that of the main thread.
func mountPoints() ([]string, error) {
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return nil, err
	}
	return parseMountPoints(string(b))
}

// parseMountPoints takes the fifth field of each line (proc_pid_mountinfo(5)).
func parseMountPoints(mountinfo string) ([]string, error) {
	var points []string
	for line := range strings.Lines(mountinfo) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			return nil, fmt.Errorf("mountinfo: unexpected line %q", line)
		}
		points = append(points, unescape(fields[4]))
	}
	return points, nil
}

// unescape undoes the octal escapes that the kernel uses for space, tab,
// newline and backslash.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return '0' <= c && c <= '7' }

func mountAtOrBelow(mounts []string, path string) (string, bool) {
	for _, m := range mounts {
		if m == path || strings.HasPrefix(m, strings.TrimSuffix(path, "/")+"/") {
			return m, true
		}
	}
	return "", false
}
