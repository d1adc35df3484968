package main

import (
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"learnsink/cmd/learnsink/rows"
)

// rowFile is a file of rows as check and send are told of it.
type rowFile struct {
	format, delimiter, encoding string
}

func (f *rowFile) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.format, "format", "", "jsonl or csv (default: by FILE's ending)")
	flags.StringVar(&f.delimiter, "delimiter", "", "what stands between the cells of CSV: one character, or tab (default: a comma)")
	flags.StringVar(&f.encoding, "encoding", "", "the file's encoding, such as windows-1252 (default: utf-8)")
}

// openRows is a file of rows being read.
type openRows struct {
	*rows.Reader
	io.Closer
	size int64 // bytes; 0: not known
}

// open opens the file that the call names, or standard input. progress, if
// there is one, is told of every stretch of bytes read.
func (f *rowFile) open(a *app, args []string, progress ...io.Writer) (*openRows, error) {
	name := "-"
	if len(args) > 0 {
		name = args[0]
	}
	format, err := rows.NewFormat(name, f.format, f.delimiter, f.encoding)
	if err != nil {
		return nil, callError{err}
	}
	opened := &openRows{Closer: io.NopCloser(nil)}
	in := a.stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, callIfAbsent(err)
		}
		if info, err := file.Stat(); err == nil && info.IsDir() {
			file.Close()
			return nil, badCall("%s is a folder", name)
		} else if err == nil {
			opened.size = info.Size()
		}
		in, opened.Closer = file, file
	}
	for _, p := range progress {
		in = io.TeeReader(in, p)
	}
	opened.Reader = rows.NewReader(in, format)
	return opened, nil
}

// warnOfHeader says where a CSV header names a column twice: every row of it
// is rejected, and would not say why.
func (a *app) warnOfHeader(r *rows.Reader) {
	header := r.Header()
	for i, name := range header {
		if slices.Contains(header[:i], name) {
			a.warn("the header names column %q twice", name)
		}
	}
}
