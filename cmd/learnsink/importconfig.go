package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"learnsink/cmd/learnsink/rows"
	"learnsink/handlers"
)

// imported is the vendor's import configuration, read for one action.
type imported struct {
	*handlers.Import
	rules *handlers.Rules // of its <actions>; nil: it has none
}

// readImport reads an import configuration. The error is of the call, and
// names every fault of the file with its line.
func readImport(path string, action handlers.Action) (*imported, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, callError{configError{{path, fileFault(err)}}}
	}
	in := &imported{}
	var faults configError
	if in.Import, err = handlers.ParseImport(action, text); err != nil {
		faults = ruleFaults(path, err)
	}
	if in.Import != nil {
		if e := in.Encoding; e.Text != "" {
			if err := rows.CheckEncoding(e.Text); err != nil {
				faults = append(faults, fault{fmt.Sprintf("%s:%d", path, e.Line), fmt.Sprintf("<%s>: %v", e.Name, err)})
			}
		}
		if in.HasAction {
			if in.rules, err = handlers.Compile(action, in.Settings); err != nil {
				faults = append(faults, ruleFaults(path, err)...)
			}
		}
	}
	if len(faults) > 0 {
		return nil, callError{inOrder(faults)}
	}
	return in, nil
}

// format is that of the file called name, as the flags say, and where they are
// silent the import configuration.
func (f *rowFile) rowFormat(name string) (rows.Format, error) {
	if f.config == nil {
		format, err := rows.NewFormat(name, f.format, f.delimiter, f.encoding)
		if err != nil {
			return format, callError{err}
		}
		return format, nil
	}
	if ending := strings.ToLower(filepath.Ext(name)); f.format == "jsonl" || f.format == "" && (ending == ".jsonl" || ending == ".ndjson" || ending == ".json") {
		return rows.Format{}, badCall("--import-config is for CSV, and %s is JSONL: say --format csv, or give the settings with --rules", cmp.Or(name, "the input"))
	}
	format, err := rows.NewFormat(name, cmp.Or(f.format, "csv"), cmp.Or(f.delimiter, f.config.Delimiter), cmp.Or(f.encoding, f.config.Encoding.Text))
	if err != nil {
		return format, callError{err}
	}
	format.InOrder, format.NoHeader = f.config.InOrder, !f.config.Header
	for _, c := range f.config.Columns {
		format.Columns = append(format.Columns, rows.Column{Name: c.Name, Position: c.Position, As: c.Column})
	}
	return format, nil
}
