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
	n, why := scaled(num, shift)
	if why != "" {
		return 0, badLimit("size", s, why, cure)
	}
	return n, nil
}

// scaled returns num times two to the power of shift, or why that is no size.
func scaled(num *big.Rat, shift uint) (n int64, why string) {
	if shift == 0 && !num.IsInt() {
		return 0, "is a fraction of a byte"
	}
	num.Mul(num, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), shift)))
	whole := new(big.Int).Quo(num.Num(), num.Denom())
	if !whole.IsInt64() || whole.Int64() > MaxBytes {
		return 0, "is more than 4 EiB"
	}
	if whole.Sign() == 0 && num.Sign() != 0 {
		return 0, "is a fraction of a byte"
	}
	return whole.Int64(), ""
}

// ParseSwap reads the swap beyond memory: a size as ParseBytes does, "0" for
// none, "unlimited" or "max" for UnlimitedSwap. The word "none" could mean either
// and is refused. Errors match ErrBadLimit.
func ParseSwap(s string) (int64, error) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "none":
		return 0, badLimit("swap", s, "is ambiguous", "write 0 for no swap, unlimited for any amount")
	case "unlimited", "max":
		return UnlimitedSwap, nil
	}
	n, err := ParseBytes(s)
	if err != nil {
		return 0, err
	}
	return n, checkBytes("swap", n, MinSwapBytes)
}

// ParseWeight reads a weight of cpu or io, 1 to 10000. "0", "default" and
// "none" are the default (0). Errors match ErrBadLimit.
func ParseWeight(s string) (int64, error) {
	const cure = `write a whole number from 1 to 10000; 0 is the default of 100`
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "none", "default":
		return 0, nil
	}
	num, unit, ok := splitNumber(s)
	if !ok || unit != "" || !num.IsInt() || !num.Num().IsInt64() || num.Num().Int64() > MaxWeight {
		return 0, badLimit("weight", s, "is not a weight", cure)
	}
	return num.Num().Int64(), nil
}

// ParsePercent reads "90" or "90%". "0" and "none" are none (0). Errors match
// ErrBadLimit.
func ParsePercent(s string) (int64, error) {
	const cure = `write a whole number from 1 to 100 like 90%; 0 is none`
	if strings.EqualFold(strings.TrimSpace(s), "none") {
		return 0, nil
	}
	num, unit, ok := splitNumber(s)
	if !ok || unit != "" && unit != "%" || !num.IsInt() || !num.Num().IsInt64() || num.Num().Int64() > 100 {
		return 0, badLimit("percentage", s, "is not a percentage", cure)
	}
	return num.Num().Int64(), nil
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
