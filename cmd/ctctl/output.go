package main

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/urfave/cli/v2"
	"sigs.k8s.io/yaml"
)

// apiVersion names the shape of what json and yaml give. Fields are added to it,
// never taken away or given another meaning.
const apiVersion = "ctctl/v1"

var formats = []string{"table", "json", "yaml", "csv", "ids"}

// document is the head of every json and yaml output.
type document struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

type listDocument[T any] struct {
	document
	Items []T `json:"items"`
}

// column is one thing to know of a T: text for people, raw for programs.
type column[T any] struct {
	name, about string
	text        func(T) string
	raw         func(T) string // nil: as text
	compare     func(a, b T) int
}

// listing is something to print in the format that the user wants.
type listing[T any] struct {
	kind    string // of one item
	columns []column[T]
	items   []T
	id      func(T) string
	single  bool // one item by its nature: json and yaml are the item itself
}

// print writes the listing to w.
func (l listing[T]) print(w io.Writer, format string) error {
	switch format {
	case "json":
		b, err := json.MarshalIndent(l.document(), "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(w, "%s\n", b)
		return err
	case "yaml":
		b, err := yaml.Marshal(l.document())
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	case "csv":
		return l.csv(w)
	case "ids":
		for _, it := range l.items {
			if _, err := fmt.Fprintln(w, l.id(it)); err != nil {
				return err
			}
		}
		return nil
	}
	return l.table(w)
}

func (l listing[T]) document() any {
	if l.single && len(l.items) == 1 {
		return inline[T]{document{apiVersion, l.kind}, l.items[0]}
	}
	items := l.items
	if items == nil {
		items = []T{}
	}
	return listDocument[T]{document{apiVersion, l.kind + "List"}, items}
}

// inline is an item with the head among its fields.
type inline[T any] struct {
	document
	item T
}

// MarshalJSON puts the fields of the head before those of the item.
func (i inline[T]) MarshalJSON() ([]byte, error) {
	head, err := json.Marshal(i.document)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(i.item)
	if err != nil || len(body) < 2 || body[0] != '{' {
		return nil, cmp.Or(err, fmt.Errorf("%T is no object", i.item))
	}
	if string(body) == "{}" {
		return head, nil
	}
	return append(append(head[:len(head)-1], ','), body[1:]...), nil
}

func (l listing[T]) csv(w io.Writer) error {
	cw := csv.NewWriter(w)
	var head []string
	for _, c := range l.columns {
		head = append(head, c.name)
	}
	if err := cw.Write(head); err != nil {
		return err
	}
	for _, it := range l.items {
		var row []string
		for _, c := range l.columns {
			raw := c.text
			if c.raw != nil {
				raw = c.raw
			}
			row = append(row, raw(it))
		}
		if err := cw.Write(row); err != nil {
			return err
		}
	}
	cw.Flush()
	return cw.Error()
}

func (l listing[T]) table(w io.Writer) error {
	t := table.NewWriter()
	style := table.StyleDefault
	style.Options = table.OptionsNoBordersAndSeparators
	style.Box.PaddingLeft, style.Box.PaddingRight = "", "  "
	t.SetStyle(style)
	var head table.Row
	for _, c := range l.columns {
		head = append(head, strings.ReplaceAll(c.name, "_", " "))
	}
	t.AppendHeader(head)
	for _, it := range l.items {
		var row table.Row
		for _, c := range l.columns {
			row = append(row, cell(c.text(it)))
		}
		t.AppendRow(row)
	}
	for line := range strings.Lines(t.Render() + "\n") {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// cell is a text in a table: never empty, so that columns can be counted, and on
// one line.
func cell(s string) string {
	s = printable(strings.NewReplacer("\n", " ", "\t", " ", "\r", " ").Replace(s))
	return cmp.Or(s, "-")
}

// printable replaces what would move a terminal's cursor or worse.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' && r != '\t' || r >= 0x7f && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, s)
}

// emit prints a listing as the user wants it.
func emit[T any](c *cli.Context, l listing[T]) error {
	return l.print(c.App.Writer, c.String("format"))
}

// pick chooses columns by name.
func pick[T any](all []column[T], names string) ([]column[T], error) {
	var out []column[T]
	for _, n := range strings.Split(names, ",") {
		n = strings.ToLower(strings.TrimSpace(n))
		i := slices.IndexFunc(all, func(c column[T]) bool { return c.name == n })
		if i < 0 {
			return nil, usageError{msg: fmt.Sprintf("no such column: %s", quoteWord(n)), hint: "ctctl list -L lists the columns"}
		}
		out = append(out, all[i])
	}
	return out, nil
}

// sortBy sorts by a column; "-name" is descending.
func sortBy[T any](items []T, all []column[T], name string) error {
	name, down := strings.CutPrefix(name, "-")
	cols, err := pick(all, name)
	if err != nil {
		return err
	}
	compare := cols[0].compare
	if compare == nil {
		compare = func(a, b T) int { return strings.Compare(cols[0].text(a), cols[0].text(b)) }
	}
	slices.SortStableFunc(items, func(a, b T) int {
		if down {
			return compare(b, a)
		}
		return compare(a, b)
	})
	return nil
}

// How figures look.

func sizeText(n int64) string {
	if n < 0 {
		return ""
	}
	return units.CustomSize("%.4g %s", float64(n), 1024, []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"})
}

func limitText(n int64) string {
	if n == 0 {
		return ""
	}
	return sizeText(n)
}

func number[N int | int64 | uint32](n N) string { return strconv.FormatInt(int64(n), 10) }

func numberOr[N int | int64 | uint32](n N) string {
	if n == 0 {
		return ""
	}
	return number(n)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func timeRaw(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// spanText is a duration with the precision that people want.
func spanText(d time.Duration) string {
	switch {
	case d <= 0:
		return ""
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

// span is a duration as programs get it: milliseconds.
func span(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
