// Convert turns an OULAD folder into what learnsink reads:
//
//	go run ./test/oulad/convert --data DIR --catalog OUT          the catalogue folder
//	go run ./test/oulad/convert --data DIR --rows - | learnsink send --action tracking --event-time ignoredColumn
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"learnsink/test/oulad"
)

func main() {
	data := flag.String("data", os.Getenv(oulad.Env), "folder of the dataset's CSV files ("+oulad.Env+")")
	catalog := flag.String("catalog", "", "folder to write the catalogue to")
	rows := flag.String("rows", "", "file to write the rows to as JSON lines; - is stdout")
	flag.Parse()
	if err := convert(*data, *catalog, *rows, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "convert:", err)
		os.Exit(1)
	}
}

func convert(data, catalog, rows string, stdout io.Writer) error {
	if data == "" || catalog == "" && rows == "" {
		return errors.New("give --data, and --catalog or --rows or both")
	}
	d, err := oulad.Open(data)
	if err != nil {
		return err
	}
	if catalog != "" {
		if err := d.WriteCatalog(catalog); err != nil {
			return err
		}
	}
	switch rows {
	case "":
		return nil
	case "-":
		return writeRows(d, stdout)
	}
	f, err := os.Create(rows)
	if err != nil {
		return err
	}
	return errors.Join(writeRows(d, f), f.Close())
}

func writeRows(d *oulad.Dataset, out io.Writer) error {
	w := bufio.NewWriterSize(out, 1<<16)
	for row, err := range d.Rows() {
		if err != nil {
			return err
		}
		w.Write(append(row.Value, '\n')) // w keeps its first error
	}
	return w.Flush()
}
