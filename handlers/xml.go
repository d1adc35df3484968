package handlers

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// What a file of the vendor's may be at most.
const (
	maxXML      = 1 << 20 // bytes
	maxXMLDepth = 32      // elements within elements
)

// vendorActions are the actions' names in the vendor's XML.
var vendorActions = map[Action]string{
	Tracking:     "createOrUpdateConsolidatedTrackingAction",
	Intervention: "createOrUpdateInterventionAction",
}

// ParseXML reads the settings of an action from the vendor's XML: the action
// by its name somewhere in the file (as an element, or as `<action>` with that
// name), and in it `<options>`, `<parameters>` and `<fields>`. What stands
// around it, other actions included, is passed over; within it everything must
// be known and there once. The settings are by the names and in the form of
// rules.md, for Compile to judge their values. The error holds every fault
// that could be found, joined, each with its line and its element.
//
// encoding/xml alone would take trailing text, doubled elements and document
// types, and no encoding but UTF-8.
func ParseXML(action Action, data []byte) ([]Setting, error) {
	name, ok := vendorActions[action]
	if !ok {
		return nil, unknownAction(action)
	}
	root, err := readElements(data)
	if err != nil {
		return nil, err
	}
	found := root.find(name)
	if len(found) == 0 {
		return nil, fmt.Errorf("line %d: <%s> holds no action <%s>: is it the file of another action?", root.line, root.name, name)
	}
	r := xmlReader{action: action, settings: settingsOf(action), table: tableOf(action)}
	for _, again := range found[1:] {
		r.fault(again, "is there twice, first on line %d: keep one", found[0].line)
	}
	r.readAction(found[0], name)
	if len(r.faults) > 0 {
		return nil, errors.Join(r.faults...)
	}
	return r.out, nil
}

// element is an element of a file, with what it holds.
type element struct {
	name       string
	line       int
	attributes []xml.Attr
	buffer     []byte // its own text, while it is read
	text       string // the same, trimmed
	children   []*element
}

// readElements reads a whole file: one root, and nothing behind it.
func readElements(data []byte) (*element, error) {
	if len(data) > maxXML {
		return nil, fmt.Errorf("the file has %d bytes: %d are read at most", len(data), maxXML)
	}
	d := xml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))))
	d.CharsetReader = charsetReader
	var root *element
	var open []*element
	for {
		line, _ := d.InputPos()
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, xmlFault(err, line, open)
		}
		switch token := token.(type) {
		case xml.Directive:
			return nil, fmt.Errorf("line %d: <!%s>: a document type is not read: take it out", line, firstWord(string(token)))
		case xml.StartElement:
			e := &element{name: token.Name.Local, line: line, attributes: token.Attr}
			switch {
			case len(open) == maxXMLDepth:
				return nil, fmt.Errorf("line %d: <%s> is nested more than %d deep", line, e.name, maxXMLDepth)
			case len(open) > 0:
				parent := open[len(open)-1]
				parent.children = append(parent.children, e)
			case root != nil:
				return nil, fmt.Errorf("line %d: <%s> stands behind the root element <%s>: keep one root", line, e.name, root.name)
			default:
				root = e
			}
			open = append(open, e)
		case xml.EndElement:
			e := open[len(open)-1]
			e.text, e.buffer = string(bytes.TrimSpace(e.buffer)), nil
			open = open[:len(open)-1]
		case xml.CharData:
			if len(open) > 0 {
				e := open[len(open)-1]
				e.buffer = append(e.buffer, token...)
			} else if text := bytes.TrimSpace(token); len(text) > 0 {
				line += bytes.Count(token[:bytes.Index(token, text)], []byte("\n"))
				if root == nil {
					return nil, fmt.Errorf("line %d: text stands before the root element", line)
				}
				return nil, fmt.Errorf("line %d: text stands behind the root element <%s>", line, root.name)
			}
		}
	}
	if root == nil {
		return nil, errors.New("line 1: the file holds no element")
	}
	return root, nil
}

// xmlFault puts a fault of the file's form in our words, with the line and the element it is in.
func xmlFault(err error, line int, open []*element) error {
	what := err.Error()
	if syntax := (*xml.SyntaxError)(nil); errors.As(err, &syntax) {
		line, what = syntax.Line, syntax.Msg
	} else if inner := errors.Unwrap(err); inner != nil {
		what = inner.Error()
	}
	in := ""
	if len(open) > 0 {
		in = " within <" + open[len(open)-1].name + ">"
	}
	return fmt.Errorf("line %d:%s the file cannot be read: %s", line, in, escapeControls(what))
}

func firstWord(s string) string {
	word, _, _ := strings.Cut(s, " ")
	return escapeControls(word)
}

// find returns the elements that are the vendor's action of that name.
func (e *element) find(name string) (found []*element) {
	if e.is(name) {
		return []*element{e}
	}
	for _, child := range e.children {
		found = append(found, child.find(name)...)
	}
	return found
}

// is reports whether an element is the vendor's action of that name.
func (e *element) is(name string) bool {
	return e.name == name || e.name == "action" && e.actionName() == name
}

// actionName is what an `<action>` says that it is: by an attribute, by an
// element, or by its text.
func (e *element) actionName() string {
	for _, a := range e.attributes {
		if isActionName(a.Name.Local) {
			return strings.TrimSpace(a.Value)
		}
	}
	for _, child := range e.children {
		if isActionName(child.name) {
			return child.text
		}
	}
	return e.text
}

func isActionName(name string) bool { return name == "name" || name == "type" || name == "class" }

// xmlReader turns an action's element into settings.
type xmlReader struct {
	action   Action
	settings map[string]func(*compiler, *Setting)
	table    *table
	out      []Setting
	faults   []error
}

func (r *xmlReader) fault(e *element, format string, args ...any) {
	text := escapeControls(fmt.Sprintf(format, args...))
	r.faults = append(r.faults, fmt.Errorf("line %d: <%s> %s", e.line, e.name, text))
}

// readAction reads the blocks of the action.
func (r *xmlReader) readAction(action *element, name string) {
	named := action.name != name
	r.bare(action, func(attribute string) bool { return named && isActionName(attribute) }, named && action.text == name)
	once := r.once(action)
	for _, block := range action.children {
		switch {
		case !once(block):
		case block.name == "options", block.name == "parameters":
			r.readBlock(block)
		case block.name == "fields":
			r.readFields(block)
		case named && isActionName(block.name) && block.text == name:
			r.leaf(block)
		default:
			r.fault(block, "is not known in <%s>: <options>, <parameters> and <fields> are", action.name)
		}
	}
}

// readBlock reads the settings of an options or parameters block.
func (r *xmlReader) readBlock(block *element) {
	r.bare(block, nil, false)
	once := r.once(block)
	for _, e := range block.children {
		if _, known := r.settings[e.name]; !known || e.name == "mandatory" || e.name == "fields" {
			r.fault(e, "is not known in <%s> of the action %s", block.name, r.action)
			continue
		}
		if !once(e) {
			continue
		}
		s := Setting{Name: e.name, Line: e.line, Text: e.text}
		switch e.name {
		case "trackingStatus", "interventionStatus":
			r.bare(e, nil, false)
			s.Text, s.Words = "", r.words(e, e.children)
		case "ignoredColumns":
			s.Text, s.Words = "", r.items(e)
		default:
			r.leaf(e)
		}
		r.add(e, s)
	}
}

// readFields reads the list of the columns, and what it says of each.
func (r *xmlReader) readFields(fields *element) {
	r.bare(fields, nil, false)
	listed := Setting{Name: "fields", Line: fields.line}
	mandatory := Setting{Name: "mandatory", Line: fields.line}
	for _, e := range fields.children {
		name, inside, says := r.field(e)
		item := Setting{Text: name, Line: e.line}
		if _, known := r.table.find(name); !known {
			r.fault(e, "names [%s], which is no column of the action %s", name, r.action)
			continue
		}
		if slices.ContainsFunc(listed.Words, func(s Setting) bool { return s.Text == name }) {
			r.fault(e, "names [%s] twice: keep one", name)
			continue
		}
		listed.Words = append(listed.Words, item)

		var words []*element
		for _, inner := range inside {
			switch {
			case inner.name != "mandatory":
				words = append(words, inner)
			case says != nil:
				r.fault(inner, "is there twice: keep one")
			default:
				r.leaf(inner)
				says = inner
			}
		}
		if says != nil {
			yes, ok := yesOrNo(says.text)
			if !ok {
				r.fault(says, "says [%s]: write yes or no", says.text)
			} else if yes {
				mandatory.Words = append(mandatory.Words, Setting{Text: name, Line: says.line})
			}
		}
		switch {
		case len(words) == 0:
		case name == "trackingStatus", name == "interventionStatus":
			r.add(e, Setting{Name: name, Line: e.line, Words: r.words(e, words)})
		default:
			r.fault(words[0], "is not known in the field [%s]: <mandatory> is", name)
		}
	}
	if len(listed.Words) > 0 {
		r.out = append(r.out, listed)
	}
	if len(mandatory.Words) > 0 {
		r.out = append(r.out, mandatory)
	}
}

// field takes a field apart that is either an element by the column's name, or
// `<field>` that holds the name as an attribute, an element or its text. says
// is a mandatory attribute, in the form of an element.
func (r *xmlReader) field(e *element) (name string, inside []*element, says *element) {
	if e.name != "field" {
		r.bare(e, nil, false)
		return e.name, e.children, nil
	}
	for _, a := range e.attributes {
		switch a.Name.Local {
		case "name":
			name = strings.TrimSpace(a.Value)
		case "mandatory":
			says = &element{name: "mandatory", line: e.line, text: strings.TrimSpace(a.Value)}
		}
	}
	for _, child := range e.children {
		if child.name == "name" && name == "" {
			r.leaf(child)
			name = child.text
		} else {
			inside = append(inside, child)
		}
	}
	if name == "" {
		name = e.text
	}
	r.bare(e, func(attribute string) bool { return attribute == "name" || attribute == "mandatory" }, e.text == name)
	return name, inside, says
}

// words reads the words of a status from the elements that hold them.
func (r *xmlReader) words(e *element, elements []*element) (words []Setting) {
	known := []string{"active", "cancelled"}
	if r.action == Tracking {
		known = known[:0]
		for s := NotAttempted; s <= Browsed; s++ {
			known = append(known, s.String())
		}
	}
	once := r.once(e)
	for _, word := range elements {
		r.leaf(word)
		switch {
		case !slices.Contains(known, word.name):
			r.fault(word, "is no status: <%s> are", strings.Join(known, ">, <"))
		case once(word):
			words = append(words, Setting{Name: word.name, Line: word.line, Text: word.text})
		}
	}
	return words
}

// items reads a list: of elements that hold a text each, or of texts with commas between them.
func (r *xmlReader) items(e *element) (items []Setting) {
	r.bare(e, nil, len(e.children) == 0)
	for _, item := range e.children {
		r.leaf(item)
		items = append(items, Setting{Line: item.line, Text: item.text})
	}
	if len(e.children) == 0 && e.text != "" {
		for item := range strings.SplitSeq(e.text, ",") {
			items = append(items, Setting{Line: e.line, Text: strings.TrimSpace(item)})
		}
	}
	return items
}

// add adds a setting, which may stand in one block only.
func (r *xmlReader) add(e *element, s Setting) {
	for i := range r.out {
		if r.out[i].Name == s.Name {
			r.fault(e, "gives %s twice, first on line %d: keep one", s.Name, r.out[i].Line)
			return
		}
	}
	r.out = append(r.out, s)
}

// leaf notes what an element may not hold that has text and these attributes.
func (r *xmlReader) leaf(e *element, attributes ...string) {
	r.bare(e, func(name string) bool { return slices.Contains(attributes, name) }, true)
	for _, child := range e.children {
		r.fault(child, "is not known in <%s>", e.name)
	}
}

// bare notes the attributes of an element that are not known, and its text
// where it may have none.
func (r *xmlReader) bare(e *element, known func(attribute string) bool, text bool) {
	seen := map[xml.Name]bool{}
	for _, a := range e.attributes {
		foreign := a.Name.Space != "" || a.Name.Local == "xmlns" // of a namespace, or naming one
		switch {
		case seen[a.Name]:
			r.fault(e, "has the attribute %s twice: keep one", a.Name.Local)
		case !foreign && (known == nil || !known(a.Name.Local)):
			r.fault(e, "has the attribute %s, which is not known", a.Name.Local)
		}
		seen[a.Name] = true
	}
	if !text && e.text != "" {
		r.fault(e, "holds the text [%s], which is not known", show(e.text))
	}
}

// once returns a function that notes an element of parent that was there before.
func (r *xmlReader) once(parent *element) func(*element) bool {
	lines := map[string]int{}
	return func(e *element) bool {
		if first, again := lines[e.name]; again {
			r.fault(e, "is in <%s> twice, first on line %d: keep one", parent.name, first)
			return false
		}
		lines[e.name] = e.line
		return true
	}
}

// charsetReader reads a file that declares an encoding.
func charsetReader(charset string, input io.Reader) (io.Reader, error) {
	switch strings.ToLower(charset) {
	case "utf-8", "utf8", "us-ascii", "ascii":
		return input, nil
	case "iso-8859-1", "iso8859-1", "latin1", "latin-1", "l1":
		return &byteReader{input: input}, nil
	case "windows-1252", "cp1252":
		return &byteReader{input: input, high: &windows1252}, nil
	}
	return nil, fmt.Errorf("the encoding %s is not read: save the file as UTF-8", escapeControls(charset))
}

// windows1252 are the characters 0x80 to 0x9F of windows-1252, which else is latin1; 0: there is none.
var windows1252 = [32]rune{
	'€', 0, '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', 0, 'Ž', 0,
	0, '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', 0, 'ž', 'Ÿ',
}

// byteReader reads a text in which every byte is a character as UTF-8.
type byteReader struct {
	input   io.Reader
	high    *[32]rune // nil: latin1
	pending []byte
}

// Read implements io.Reader.
func (r *byteReader) Read(p []byte) (int, error) {
	if len(r.pending) == 0 {
		var chunk [512]byte
		n, err := r.input.Read(chunk[:])
		for _, b := range chunk[:n] {
			c := rune(b)
			if r.high != nil && b >= 0x80 && b < 0xa0 {
				if c = r.high[b-0x80]; c == 0 {
					return 0, fmt.Errorf("byte 0x%02x is no character of windows-1252", b)
				}
			}
			r.pending = utf8.AppendRune(r.pending, c)
		}
		if len(r.pending) == 0 {
			return 0, err
		}
	}
	n := copy(p, r.pending)
	r.pending = r.pending[n:]
	return n, nil
}
