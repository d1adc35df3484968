package dlq

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Op is one step of a patch.
type Op struct {
	Op     OpKind  `json:"op"`
	Column string  `json:"column,omitempty"`
	Old    *string `json:"old,omitempty"`   // Replace: what stands there
	Value  *string `json:"value,omitempty"` // Set, Replace: what stands there afterwards
}

// OpKind is what a step does.
type OpKind string

// The steps.
const (
	Set     OpKind = "set"     // give a column a value, whether it is there or not
	Remove  OpKind = "remove"  // take a column out
	Replace OpKind = "replace" // change a value, where a column has it
	Whole   OpKind = "whole"   // another row altogether; of Edit alone
)

// Patch is what is done to rows, in its order.
type Patch []Op

// ErrNoObject: what is no JSON object has no columns to patch.
var ErrNoObject = errors.New("the row is no JSON object, so there are no columns to patch: --row FILE replaces it whole")

// errOp is an op that cannot be read.
func errOp(kind OpKind, text, form string) error {
	return fmt.Errorf("--%s %q is not %s", kind, text, form)
}

// ParseOp reads a step as it is typed: column=value, column, or
// column:old=new. A backslash takes the meaning of the = or : behind it.
func ParseOp(kind OpKind, text string) (op Op, err error) {
	op.Op = kind
	if !utf8.ValidString(text) {
		return op, errOp(kind, text, "valid UTF-8")
	}
	switch kind {
	case Set:
		column, value, ok := cut(text, '=')
		if !ok || column == "" {
			return op, errOp(kind, text, "column=value")
		}
		op.Column, op.Value = column, &value
	case Remove:
		if text == "" {
			return op, errOp(kind, text, "the name of a column")
		}
		op.Column = text
	case Replace:
		column, rest, ok := cut(text, ':')
		old, value, ok2 := cut(rest, '=')
		if !ok || !ok2 || column == "" || old == "" {
			return op, errOp(kind, text, "column:old=new")
		}
		op.Column, op.Old, op.Value = column, &old, &value
	default:
		return op, fmt.Errorf("%q is no step of a patch", kind)
	}
	return op, nil
}

// cut cuts text at the first sep that no backslash stands before.
func cut(text string, sep byte) (before, after string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text) && strings.IndexByte(`\=:`, text[i+1]) >= 0:
			i++
			b.WriteByte(text[i])
		case c == sep:
			return b.String(), text[i+1:], true
		default:
			b.WriteByte(c)
		}
	}
	return text, "", false
}

// Columns names what the patch touches, without a value: for lines of audit.
func (p Patch) Columns() (columns []string) {
	for _, op := range p {
		if name := string(op.Op) + " " + op.Column; !slices.Contains(columns, name) {
			columns = append(columns, strings.TrimSpace(name))
		}
	}
	return columns
}

// Apply patches a row, and says whether that changed it. All that is not
// touched stays as it is, byte for byte: members, their order, their spelling,
// the white space. A member that stands there twice is one afterwards, if Set
// touches it. Returns ErrNoObject of what is no JSON object.
func (p Patch) Apply(row []byte) (patched []byte, changed bool, err error) {
	patched = row
	for i := range p {
		members, err := membersOf(patched)
		if err != nil {
			return row, false, err
		}
		patched = p[i].apply(members)
	}
	return patched, !bytes.Equal(patched, row), nil
}

func (op *Op) apply(row *object) []byte {
	isIt := func(m *member) bool { return m.name == op.Column }
	first := slices.IndexFunc(row.members, func(m member) bool { return isIt(&m) })
	switch {
	case op.Op == Set && first < 0:
		return row.with(op.Column, *op.Value)
	case first < 0:
	case op.Op == Set:
		m := &row.members[first]
		m.write(*op.Value)
		return row.keep(func(other *member) bool { return other == m || !isIt(other) })
	case op.Op == Remove:
		return row.keep(func(m *member) bool { return !isIt(m) })
	case op.Op == Replace:
		for i := range row.members {
			if m := &row.members[i]; isIt(m) && strings.TrimSpace(m.reads()) == strings.TrimSpace(*op.Old) {
				m.write(*op.Value)
			}
		}
		return row.keep(func(*member) bool { return true })
	}
	return row.text
}

// object is a JSON object, as it is written.
type object struct {
	text    []byte
	members []member
	close   int // where the closing brace is
}

// member is a member of an object.
type member struct {
	name  string
	from  int    // where its name begins in the text
	end   int    // where its value ends
	start []byte // name, colon and the white space about it
	value []byte // its value, as it is written
}

// membersOf reads a text as the one object that it is.
func membersOf(text []byte) (*object, error) {
	o := &object{text: text}
	d := json.NewDecoder(bytes.NewReader(text))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil, ErrNoObject
	}
	for d.More() {
		from := int(d.InputOffset())
		from += bytes.IndexByte(text[from:], '"') // white space and a comma are all that may come before
		name, err := d.Token()
		var value json.RawMessage
		if err == nil {
			err = d.Decode(&value)
		}
		if err != nil {
			return nil, ErrNoObject
		}
		end := int(d.InputOffset())
		o.members = append(o.members, member{name.(string), from, end, text[from : end-len(value)], value})
	}
	if _, err := d.Token(); err != nil {
		return nil, ErrNoObject
	}
	o.close = int(d.InputOffset()) - 1
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, ErrNoObject
	}
	return o, nil
}

// keep returns the object with those of its members that are to be kept. What
// stands between two of them is what stood behind the first.
func (o *object) keep(wanted func(*member) bool) []byte {
	if len(o.members) == 0 {
		return o.text
	}
	out := slices.Clone(o.text[:o.members[0].from])
	var between []byte
	for i := range o.members {
		m := &o.members[i]
		if !wanted(m) {
			continue
		}
		out = append(append(append(out, between...), m.start...), m.value...)
		if i+1 < len(o.members) {
			between = o.text[m.end:o.members[i+1].from]
		}
	}
	return append(out, o.text[o.members[len(o.members)-1].end:]...)
}

// with returns the object with another member behind the last.
func (o *object) with(name, value string) []byte {
	at := o.close
	added := append(append(quote(name), ':'), quote(value)...)
	if n := len(o.members); n > 0 {
		at = o.members[n-1].end
		added = append([]byte{','}, added...)
	}
	return slices.Concat(o.text[:at], added, o.text[at:])
}

// reads is what the value reads as: a string's text, all else as it is written.
func (m *member) reads() string {
	var text string
	if m.value[0] == '"' && json.Unmarshal(m.value, &text) == nil {
		return text
	}
	return string(m.value)
}

// write gives the member another value: a number where it was one and the
// value is one, else a string. Rules read both alike.
func (m *member) write(value string) {
	var number json.Number
	switch was := m.value[0]; {
	case m.reads() == value && (was == '"' || was == '-' || '0' <= was && was <= '9'):
	case was != '"' && json.Unmarshal([]byte(value), &number) == nil && number.String() == value && (was == '-' || '0' <= was && was <= '9'):
		m.value = []byte(value)
	default:
		m.value = quote(value)
	}
}

// quote returns a text as a JSON string.
func quote(text string) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(text) // a string: cannot fail
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// RowDiff returns the columns that two rows spell differently, as they are
// written; nil of what is no JSON object, and of a column that is not there.
func RowDiff(was, now []byte) (diff []Difference) {
	before, after := writtenIn(was), writtenIn(now)
	seen := map[string]bool{}
	for _, m := range slices.Concat(before, after) {
		if seen[m.name] {
			continue
		}
		seen[m.name] = true
		if d := (Difference{m.name, written(before, m.name), written(after, m.name)}); d.Stored == nil || d.Row == nil || *d.Stored != *d.Row {
			diff = append(diff, d)
		}
	}
	return diff
}

// writtenIn returns a row's members; none of what is no JSON object.
func writtenIn(row []byte) []member {
	o, err := membersOf(row)
	if err != nil {
		return nil
	}
	return o.members
}

// written is all that stands under a name.
func written(members []member, name string) *string {
	var values []string
	for i := range members {
		if members[i].name == name {
			values = append(values, string(members[i].value))
		}
	}
	if values == nil {
		return nil
	}
	text := strings.Join(values, " and ")
	return &text
}
