package quota

import (
	"fmt"
	"math/big"
	"strconv"
	"strings"
)

// ParseCPUs reads "1.5", "1.5 cores", "2 cpus" or "150%". "0", "none",
// "unlimited" and "max" are no limit (0). Errors match ErrBadLimit.
func ParseCPUs(s string) (float64, error) {
	const cure = `write a number of CPUs like 1.5, or a percentage of one CPU like 150%; 0 is no limit`
	if unlimited(s) {
		return 0, nil
	}
	num, unit, ok := splitNumber(s)
	if !ok {
		return 0, badLimit("cpus", s, "is not a number", cure)
	}
	switch strings.ToLower(unit) {
	case "", "core", "cores", "cpu", "cpus":
	case "%":
		num.Quo(num, big.NewRat(100, 1))
	default:
		return 0, badLimit("cpus", s, fmt.Sprintf("has the unknown unit %q", unit), cure)
	}
	n, _ := num.Float64()
	if n == 0 && num.Sign() != 0 {
		return 0, badLimit("cpus", s, "is too small", cure)
	}
	return n, checkCPUs(n)
}

// ParseBytes reads "512M", "2GiB", "1.5 G", "64k" or plain bytes. All units
// are powers of 1024, with or without "i" and "B", in either case. A fraction
// of a byte is cut off. "0", "none", "unlimited" and "max" are no limit (0).
// Errors match ErrBadLimit.
func ParseBytes(s string) (int64, error) {
	const cure = `write a size like 512M, 1.5G or 2GiB (units K M G T P E, powers of 1024); 0 is no limit`
	if unlimited(s) {
		return 0, nil
	}
	num, unit, ok := splitNumber(s)
	if !ok {
		return 0, badLimit("size", s, "is not a number with a unit", cure)
	}
	shift, ok := unitShift(unit)
	if !ok {
		return 0, badLimit("size", s, fmt.Sprintf("has the unknown unit %q", unit), cure)
	}
	if shift == 0 && !num.IsInt() {
		return 0, badLimit("size", s, "is a fraction of a byte", cure)
	}
	num.Mul(num, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), shift)))
	whole := new(big.Int).Quo(num.Num(), num.Denom())
	if !whole.IsInt64() || whole.Int64() > MaxBytes {
		return 0, badLimit("size", s, "is more than 4 EiB", cure)
	}
	if whole.Sign() == 0 && num.Sign() != 0 {
		return 0, badLimit("size", s, "is a fraction of a byte", cure)
	}
	return whole.Int64(), nil
}

// ParsePIDs reads a number of tasks. "0", "none", "unlimited" and "max" are no
// limit (0). Errors match ErrBadLimit.
func ParsePIDs(s string) (int64, error) {
	const cure = `write a whole number of processes and threads like 512; 0 is no limit`
	if unlimited(s) {
		return 0, nil
	}
	num, unit, ok := splitNumber(s)
	if !ok || unit != "" || !num.IsInt() {
		return 0, badLimit("pids", s, "is not a whole number", cure)
	}
	if !num.Num().IsInt64() {
		return 0, badLimit("pids", s, "is too large", cure)
	}
	n := num.Num().Int64()
	return n, checkPIDs(n)
}

func badLimit(what, s, why, cure string) error {
	const most = 40 // a pasted file must not fill the terminal
	if len(s) > most {
		s = s[:most] + "…"
	}
	return fmt.Errorf("%w: %s %q %s; %s", ErrBadLimit, what, s, why, cure)
}

func unlimited(s string) bool {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "none", "unlimited", "max":
		return true
	}
	return false
}

// splitNumber splits "1.5 cores" into 3/2 and "cores". It takes only decimal
// digits and one point: no sign, exponent, separator, NaN, Inf or hexadecimal,
// all of which strconv or big would take. The length is bounded so that a long
// input cannot cost much.
func splitNumber(s string) (num *big.Rat, unit string, ok bool) {
	const mostDigits = 40
	s = strings.TrimSpace(s)
	end := strings.IndexFunc(s, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })
	if end < 0 {
		end = len(s)
	}
	digits := s[:end]
	whole, frac, point := strings.Cut(digits, ".")
	if whole == "" || point && frac == "" || strings.Contains(frac, ".") || len(digits) > mostDigits {
		return nil, "", false
	}
	num, ok = new(big.Rat).SetString(digits)
	return num, strings.TrimSpace(s[end:]), ok
}

// unitShift returns the power of two that a unit of size stands for.
func unitShift(unit string) (uint, bool) {
	u := strings.ToLower(unit)
	if u == "" || u == "b" {
		return 0, true
	}
	i := strings.IndexByte("kmgtpe", u[0])
	if i < 0 {
		return 0, false
	}
	switch u[1:] {
	case "", "b", "i", "ib":
		return uint(i+1) * 10, true
	}
	return 0, false
}

// FormatBytes returns n in a form that ParseBytes reads back to n: the largest
// unit that divides it, "0" for no limit.
func FormatBytes(n int64) string {
	units := [...]string{"", "K", "M", "G", "T", "P", "E"}
	i := 0
	for n != 0 && n%1024 == 0 && i < len(units)-1 {
		n /= 1024
		i++
	}
	return strconv.FormatInt(n, 10) + units[i]
}
