package handlers

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Import is what the vendor's import configuration says of one import: how its
// file is written, which of the file's columns are which of the action's, and
// the action's settings.
type Import struct {
	Delimiter string         // the one character; the vendor's default is a semicolon
	Encoding  Setting        // fileEncoding, as written; no Line: not said
	Header    bool           // skipFirstLine: the first line is no row
	Columns   []ImportColumn // columnsMapping; none: the first line names the columns
	// InOrder: Columns are all that a line has, in their order. Otherwise they
	// are those that are wanted of it.
	InOrder bool
	// HasAction: the action's element is there, and Settings are its own with
	// the words of a status that the mapping gives.
	HasAction bool
	Settings  []Setting
}

// ImportColumn is a column of a file: where it is and what it means.
type ImportColumn struct {
	Name     string // in the first line; "": by Position
	Position int    // from 1
	Column   string // of the action; "": left out of the row
}

// What describes a file in the vendor's XML.
const (
	importColumns   = "columnsMapping"
	importDelimiter = "delimiter"
	importEncoding  = "fileEncoding"
	importHeader    = "skipFirstLine"
)

// maxImportColumns is how many columns a file has at most.
const maxImportColumns = 10_000

// besideImport are the vendor's own elements that may stand beside those which
// describe a file; they say where it lies and what else is done with it.
var besideImport = []string{
	"fileName", "path", "autoDetectLineEndings", "dateFormat", "sftpHost", "sftpLogin", "sftpPassword", "sftpFolder",
	"preProcess", "import", "providers", "actions", "consolidators", "postProcess",
}

// importDelimiters are the vendor's words for what stands between cells, and ours.
var importDelimiters = map[string]string{"comma": ",", "semicolon": ";", "pipe": "|", "tabulation": "\t", "tab": "\t", `\t`: "\t"}

// ParseImport reads the vendor's import configuration for an action. Of several
// `<import>` it takes the one that holds the action. In it, beside `<actions>`
// or in a provider, stand `<columnsMapping>`, `<delimiter>`, `<fileEncoding>`
// and `<skipFirstLine>`, each once or not at all. The mapping has one of two
// forms, and not both:
//
//   - the vendor's: the action's columns as elements, in the order in which the
//     file has them, `<ignoredColumn/>` for each that is none. A status may hold
//     its words, as in `<fields>`.
//   - ours: `<column name="Login">candidateLogin</column>`, by the first line's
//     name, or `<column position="3">score</column>`. What it does not name is
//     left out.
//
// The error holds every fault that could be found, joined, each with its line
// and its element; what could be read is returned beside it.
func ParseImport(action Action, data []byte) (*Import, error) {
	name, ok := vendorActions[action]
	if !ok {
		return nil, unknownAction(action)
	}
	root, err := readElements(data)
	if err != nil {
		return nil, err
	}
	r := importReader{
		xmlReader: xmlReader{action: action, settings: settingsOf(action), table: tableOf(action)},
		imp:       &Import{Delimiter: ";", Header: true},
		found:     map[string]*element{},
	}
	if found := root.find(name); len(found) > 0 {
		for _, again := range found[1:] {
			r.fault(again, "is there twice, first on line %d: keep one", found[0].line)
		}
		r.readAction(found[0], name)
		r.imp.HasAction = true
	} else if root.has("actions") {
		r.fault(root, "holds no action <%s>: is it the file of another action?", name)
	}
	r.gather(r.scope(root, name))
	r.read(root)
	r.imp.Settings = r.out
	return r.imp, errors.Join(r.faults...)
}

// importReader turns a file's elements into an Import.
type importReader struct {
	xmlReader
	imp   *Import
	found map[string]*element // what describes the file, by name
}

// scope returns the element that holds all of one import.
func (r *importReader) scope(root *element, name string) *element {
	var imports, ours []*element
	for _, e := range root.children {
		if e.name != "import" {
			continue
		}
		imports = append(imports, e)
		if len(e.find(name)) > 0 {
			ours = append(ours, e)
		}
	}
	switch {
	case len(ours) > 0:
		return ours[0] // of several the action is there twice, which was said
	case len(imports) > 1 && !root.has("actions"):
		r.fault(imports[1], "is a second one, and no <actions> say which is meant: keep one")
		fallthrough
	case len(imports) == 1:
		return imports[0]
	}
	return root
}

// has reports whether an element of that name is somewhere within e.
func (e *element) has(name string) bool {
	return e.name == name || slices.ContainsFunc(e.children, func(child *element) bool { return child.has(name) })
}

// gather finds what describes the file. Beside it nothing may stand that is
// not the vendor's: it could be one of these, misspelt.
func (r *importReader) gather(e *element) {
	describes := func(e *element) bool {
		return e.name == importColumns || e.name == importDelimiter || e.name == importEncoding || e.name == importHeader
	}
	block := slices.ContainsFunc(e.children, describes)
	for _, child := range e.children {
		first := r.found[child.name]
		switch {
		case describes(child) && first != nil:
			r.fault(child, "is there twice, first on line %d: keep one", first.line)
		case describes(child):
			r.found[child.name] = child
		case child.is(vendorActions[r.action]), child.name == "actions", child.name == "consolidators",
			child.name == "import", child.name == "preProcess", child.name == "postProcess": // nothing in it describes this file
		case block && !slices.Contains(besideImport, child.name):
			r.fault(child, "is not known in <%s>: <%s>, <%s>, <%s> and <%s> describe a file", e.name, importColumns, importDelimiter, importEncoding, importHeader)
		default:
			r.gather(child)
		}
	}
}

// read reads what was found.
func (r *importReader) read(root *element) {
	if len(r.found) == 0 {
		r.fault(root, "holds no <%s>, <%s>, <%s> or <%s>: settings alone are for --rules", importColumns, importDelimiter, importEncoding, importHeader)
		return
	}
	if e := r.found[importHeader]; e != nil {
		r.leaf(e)
		var ok bool
		if r.imp.Header, ok = yesOrNo(e.text); !ok {
			r.fault(e, "says [%s]: write yes or no", show(e.text))
			r.imp.Header = true // so that nothing else is said because of it
		}
	}
	if e := r.found[importDelimiter]; e != nil {
		r.readDelimiter(e)
	}
	if e := r.found[importEncoding]; e != nil {
		r.leaf(e)
		r.imp.Encoding = Setting{Name: e.name, Line: e.line, Text: e.text}
		if e.text == "" {
			r.fault(e, "is empty: write the file's encoding, such as UTF-8 or ISO-8859-1")
		}
	}
	if e := r.found[importColumns]; e != nil {
		r.readColumns(e)
	} else if !r.imp.Header {
		r.fault(r.found[importHeader], "says no, and there is no <%s>: nothing names the columns of the file", importColumns)
	}
}

func (r *importReader) readDelimiter(e *element) {
	r.leaf(e)
	if c, ok := importDelimiters[strings.ToLower(e.text)]; ok {
		r.imp.Delimiter = c
		return
	}
	c, size := utf8.DecodeRuneInString(e.text)
	if size == 0 || size != len(e.text) || c == utf8.RuneError || strings.ContainsRune("\"\x00", c) {
		r.fault(e, "says [%s]: write comma, semicolon, pipe or tabulation, or the one character", show(e.text))
		return
	}
	r.imp.Delimiter = e.text
}

// readColumns reads the mapping, in the one form or the other.
func (r *importReader) readColumns(mapping *element) {
	r.bare(mapping, nil, false)
	if len(mapping.children) == 0 {
		r.fault(mapping, "names no column: list the columns in the order of the file, or take it out")
		return
	}
	if len(mapping.children) > maxImportColumns {
		r.fault(mapping, "names %d columns: %d are read at most", len(mapping.children), maxImportColumns)
		return
	}
	form := mapping.children[0].name == "column"
	r.imp.InOrder = !form
	lines := map[string]int{} // by what may be there once: a column of the action, a place in the file
	wanted := false
	for _, e := range mapping.children {
		if (e.name == "column") != form {
			r.fault(e, "is not of the form that the mapping began with on line %d: list the columns in the order of the file, or write <column> for each", mapping.children[0].line)
			return
		}
		var c ImportColumn
		var ok bool
		if form {
			c, ok = r.column(e, lines)
		} else {
			c, ok = r.columnInOrder(e)
			c.Position = len(r.imp.Columns) + 1
		}
		switch {
		case !ok || c.Column == "":
		case lines[c.Column] > 0:
			r.fault(e, "names [%s] twice, first on line %d: keep one", c.Column, lines[c.Column])
		default:
			lines[c.Column], wanted = e.line, true
		}
		r.imp.Columns = append(r.imp.Columns, c)
	}
	if !wanted && len(r.faults) == 0 {
		r.fault(mapping, "names no column of the action %s", r.action)
	}
}

// columnInOrder reads an element that is a column by its name.
func (r *importReader) columnInOrder(e *element) (c ImportColumn, ok bool) {
	r.bare(e, nil, true)
	if !r.known(e, e.name) {
		return c, false
	}
	if e.text != "" {
		r.fault(e, "holds the text [%s]: a column stands where the file has it, or is written <column name=\"…\">%s</column> or <column position=\"…\">%s</column>", show(e.text), e.name, e.name)
		return c, false
	}
	switch {
	case len(e.children) == 0:
	case e.name != "trackingStatus" && e.name != "interventionStatus":
		r.fault(e.children[0], "is not known in <%s>", e.name)
	case !r.imp.HasAction:
		r.fault(e, "holds words, and there are no <actions> to whose settings they could belong: add them, or say the words in the settings")
	default:
		r.add(e, Setting{Name: e.name, Line: e.line, Words: r.words(e, e.children)})
	}
	if e.name != "ignoredColumn" {
		c.Column = e.name
	}
	return c, true
}

// column reads a `<column>`. Places are taken once, as lines says.
func (r *importReader) column(e *element, lines map[string]int) (c ImportColumn, ok bool) {
	r.leaf(e, "name", "position")
	name, byName := e.attribute("name")
	position, byPosition := e.attribute("position")
	place := "name " + name
	switch {
	case byName == byPosition:
		r.fault(e, "needs a name or a position: one of them says which column of the file it is")
		return c, false
	case byName && name == "":
		r.fault(e, "has an empty name: write what the first line says, or a position")
		return c, false
	case byName && !r.imp.Header:
		r.fault(e, "has a name, and <%s> says no: there is no first line that names columns, so write a position", importHeader)
		return c, false
	case byName:
		c.Name = name
	default:
		n, err := strconv.ParseUint(position, 10, 16)
		if err != nil || n < 1 || n > maxImportColumns {
			r.fault(e, "has the position [%s]: write a whole number, 1 to %d", show(position), maxImportColumns)
			return c, false
		}
		c.Position = int(n)
		place = "position " + strconv.Itoa(c.Position)
	}
	if first := lines[place]; first > 0 {
		r.fault(e, "maps the column of that %s again, first on line %d: keep one", strings.Fields(place)[0], first)
		return c, false
	}
	lines[place] = e.line
	c.Column = e.text
	return c, r.known(e, e.text)
}

// known notes a column that the action does not have.
func (r *importReader) known(e *element, column string) bool {
	if _, ok := r.table.find(column); ok {
		return true
	}
	r.fault(e, "names [%s], which is no column of the action %s: <ignoredColumn/> is for those", show(column), r.action)
	return false
}

// attribute returns the value of an attribute, trimmed.
func (e *element) attribute(name string) (value string, ok bool) {
	for _, a := range e.attributes {
		if a.Name.Space == "" && a.Name.Local == name {
			return strings.TrimSpace(a.Value), true
		}
	}
	return "", false
}
