package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"

	"learnsink/cmd/learnsink/rows"
	"learnsink/handlers"
)

// rowFile is a file of rows as check and send are told of it.
type rowFile struct {
	format, delimiter, encoding, importConfig string

	config *imported // what importConfig names; nil: none
}

func (f *rowFile) flags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.format, "format", "", "jsonl or csv (default: by FILE's ending)")
	flags.StringVar(&f.delimiter, "delimiter", "", "what stands between the cells of CSV: one character, or tab (default: a comma)")
	flags.StringVar(&f.encoding, "encoding", "", "the file's encoding, such as windows-1252 (default: utf-8)")
	flags.StringVar(&f.importConfig, "import-config", "", "the vendor's import configuration (XML): columnsMapping, delimiter, fileEncoding, skipFirstLine; FILE is CSV then, and other flags overrule it")
}

// readImport reads the import configuration, where the call names one.
func (f *rowFile) readImport(action handlers.Action) (err error) {
	if f.importConfig != "" {
		f.config, err = readImport(f.importConfig, action)
	}
	return err
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
	format, err := f.rowFormat(name)
	if err != nil {
		return nil, err
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

// warnOfHeader says what is odd about a CSV header: rows are rejected, or
// mean other than was meant, and would not say why.
func (a *app) warnOfHeader(r *rows.Reader) {
	for _, doubt := range r.Doubts() {
		a.warn("%s", doubt)
	}
}
