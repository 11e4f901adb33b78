package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// table is printed with a title, its columns to the right but the first.
type table struct {
	title string
	notes []string
	head  []string
	rows  [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print(w io.Writer) error {
	fmt.Fprintf(w, "\n%s\n\n", t.title)
	// The first column is padded by hand: tabwriter aligns all of them alike.
	width := 0
	all := append([][]string{t.head}, t.rows...)
	for _, row := range all {
		width = max(width, len([]rune(row[0])))
	}
	tw := tabwriter.NewWriter(w, 0, 0, 3, ' ', tabwriter.AlignRight)
	for _, row := range all {
		first := row[0] + strings.Repeat(" ", width-len([]rune(row[0])))
		fmt.Fprintf(tw, "  %s\t%s\t\n", first, strings.Join(row[1:], "\t"))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, n := range t.notes {
		fmt.Fprintf(w, "  %s\n", n)
	}
	return nil
}
