package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"learnsink/handlers"
)

// The configuration file, read through YAML's nodes rather than into structs:
// every scalar is its text (`no`, `off`, 0123 and 1.0 are what they look like),
// and every fault knows its line.

// document is a YAML file being read.
type document struct {
	path   string
	faults configError
	rules  int // settings read: aliases within aliases could make them endless
}

// maxRules is far beyond what settings there are.
const maxRules = 10_000

func (d *document) fault(n *yaml.Node, format string, args ...any) {
	d.faults = append(d.faults, fault{fmt.Sprintf("%s:%d", d.path, n.Line), fmt.Sprintf(format, args...)})
}

// parse returns the mapping that the file is; nil where it is empty or faulty.
func (d *document) parse(text []byte) *yaml.Node {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var root, more yaml.Node
	switch err := decoder.Decode(&root); {
	case err == io.EOF:
		return nil
	case err != nil:
		d.faults = append(d.faults, syntaxFault(d.path, err))
		return nil
	}
	if err := decoder.Decode(&more); err != io.EOF {
		d.faults = append(d.faults, fault{d.path, "holds more than one YAML document"})
	}
	content := resolve(root.Content[0])
	if content.Kind == yaml.ScalarNode && content.Tag == "!!null" {
		return nil
	}
	if content.Kind != yaml.MappingNode {
		d.fault(content, "the file is not a mapping of settings")
		return nil
	}
	return content
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)`)

// syntaxFault moves the line of a YAML error to where places stand.
func syntaxFault(path string, err error) fault {
	m := yamlLine.FindStringSubmatch(err.Error())
	switch {
	case m == nil:
		return fault{path, err.Error()}
	case m[1] == "":
		return fault{path, "not YAML: " + m[2]}
	}
	return fault{path + ":" + m[1], "not YAML: " + m[2]}
}

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// each visits the members of a mapping; one that stands twice is a fault.
func (d *document) each(mapping *yaml.Node, visit func(key, value *yaml.Node)) {
	lines := map[string]int{}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], resolve(mapping.Content[i+1])
		if first, ok := lines[key.Value]; ok {
			d.fault(key, "%s stands twice, first on line %d: leave one of them", key.Value, first)
			continue
		}
		lines[key.Value] = key.Line
		visit(key, value)
	}
}

// scalar returns the text of a scalar; anything else is a fault.
func (d *document) scalar(key string, n *yaml.Node) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		d.fault(n, "%s: one value is expected here", key)
		return "", false
	}
	return n.Value, true
}

// unknown is the fault of a key that nobody knows; near ones are offered.
func (d *document) unknown(key *yaml.Node, path string, known []string) {
	name := path + key.Value
	what := fmt.Sprintf("unknown key %q", name)
	for _, k := range known {
		if strings.EqualFold(k, name) || distance(strings.ToLower(k), strings.ToLower(name)) <= 2 {
			d.fault(key, "%s: did you mean %s?", what, k)
			return
		}
	}
	d.fault(key, "%s: the keys here are %s", what, strings.Join(known, ", "))
}

// distance is Levenshtein's.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0]++
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost++
			}
			last = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// readFile takes the file's settings.
func (c *config) readFile(path string) configError {
	text, err := os.ReadFile(path)
	if err != nil {
		return configError{{path, fileFault(err)}}
	}
	c.path = path
	d := &document{path: path}
	root := d.parse(text)
	if root == nil {
		return d.faults
	}
	c.readMapping(d, root, "")
	return d.faults
}

// fileFault says what is wrong with a file without its path once more.
func fileFault(err error) string {
	var inner *os.PathError
	if errors.As(err, &inner) {
		return inner.Err.Error()
	}
	return err.Error()
}

// readMapping reads the file's mapping, or one within it (batch, tls, sasl).
func (c *config) readMapping(d *document, mapping *yaml.Node, path string) {
	all := settings()
	d.each(mapping, func(key, value *yaml.Node) {
		name := path + key.Value
		if name == "sources" {
			c.readSources(d, value)
			return
		}
		at := slices.IndexFunc(all, func(s setting) bool { return s.key == name })
		inner := slices.ContainsFunc(all, func(s setting) bool { return strings.HasPrefix(s.key, name+".") })
		switch {
		case inner && value.Kind == yaml.MappingNode:
			c.readMapping(d, value, name+".")
		case (name == "tls" || name == "breaker") && value.Kind == yaml.ScalarNode: // tls: on, breaker: off
			c.readScalar(d, name+".enabled", value)
		case inner:
			d.fault(value, "%s: a mapping is expected here", name)
		case at < 0:
			d.unknown(key, path, keysUnder(path))
		case name == "brokers" && value.Kind == yaml.SequenceNode:
			var brokers []string
			for _, item := range value.Content {
				if text, ok := d.scalar(name, resolve(item)); ok {
					brokers = append(brokers, text)
				}
			}
			d.faults = append(d.faults, c.set(all[at], fmt.Sprintf("%s:%d", d.path, key.Line), strings.Join(brokers, ","))...)
		default:
			c.readScalar(d, name, value)
		}
	})
}

func (c *config) readScalar(d *document, name string, value *yaml.Node) {
	text, ok := d.scalar(name, value)
	if !ok {
		return
	}
	if slices.Contains([]string{"tls.ca", "tls.cert", "tls.key", "sasl.passwordFile"}, name) {
		text = beside(d.path, text)
	}
	for _, s := range settings() {
		if s.key == name {
			d.faults = append(d.faults, c.set(s, fmt.Sprintf("%s:%d", d.path, value.Line), text)...)
		}
	}
}

// beside returns a path that a file names, relative to that file.
func beside(file, path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(file), path)
}

// keysUnder lists the keys that stand in the mapping called path.
func keysUnder(path string) []string {
	var keys []string
	for _, s := range settings() {
		if rest, ok := strings.CutPrefix(s.key, path); ok {
			first, _, _ := strings.Cut(rest, ".")
			if key := path + first; !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
	}
	if path == "" {
		keys = append(keys, "sources")
	}
	return keys
}

// readSources reads the list of sources.
func (c *config) readSources(d *document, list *yaml.Node) {
	c.sources = nil
	if list.Kind != yaml.SequenceNode || len(list.Content) == 0 {
		d.fault(list, "sources: a list is expected here, each item with topic and action")
		return
	}
	for _, item := range list.Content {
		item := resolve(item)
		if item.Kind != yaml.MappingNode {
			d.fault(item, "sources: a mapping with topic and action is expected here")
			continue
		}
		c.readSource(d, item)
	}
}

// readSource reads one source.
func (c *config) readSource(d *document, item *yaml.Node) {
	s := sourceText{place: fmt.Sprintf("%s:%d", d.path, item.Line)}
	field := func(name string, to *string, check func(string) error) (string, func(*yaml.Node)) {
		return name, func(n *yaml.Node) {
			text, ok := d.scalar(name, n)
			if !ok {
				return
			}
			*to = strings.TrimSpace(text)
			if err := check(*to); err != nil {
				d.fault(n, "%s: %v", name, err)
			}
		}
	}
	fields := map[string]func(*yaml.Node){}
	var names []string
	add := func(name string, read func(*yaml.Node)) { fields[name] = read; names = append(names, name) }
	add(field("topic", &s.topic, topicName))
	add(field("action", &s.action, oneOf(string(handlers.Tracking), string(handlers.Intervention))))
	add("rules", func(n *yaml.Node) {
		switch {
		case n.Kind == yaml.MappingNode:
			s.settings = d.settings(n)
		case n.Kind == yaml.ScalarNode && n.Value != "":
			s.rulesFile, s.rulesPlace = n.Value, fmt.Sprintf("%s:%d", d.path, n.Line)
		case n.Kind == yaml.ScalarNode:
		default:
			d.fault(n, "rules: a mapping of settings, or the path of a vendor's XML file, is expected here")
		}
	})
	add(field("acceptedTopic", &s.acceptedTopic, topicName))
	add(field("deadLetterTopic", &s.deadLetterTopic, topicName))
	add(field("order", &s.order, oneOf("log", "event-time")))
	add(field("eventTime", &s.eventTime, oneOf("timestamp", "header")))
	add(field("onMissingReference", &s.onMissing, oneOf("reject", "wait")))
	add("deadline", func(n *yaml.Node) {
		_, read := field("deadline", &s.deadline, noBlank)
		s.deadlinePlace = fmt.Sprintf("%s:%d", d.path, n.Line)
		read(n)
	})
	d.each(item, func(key, value *yaml.Node) {
		if read, ok := fields[key.Value]; ok {
			read(value)
		} else {
			d.unknown(key, "", names)
		}
	})
	if s.topic == "" {
		d.fault(item, "source: topic is missing")
	}
	if s.action == "" {
		d.fault(item, "source: action is missing: say %s or %s", handlers.Tracking, handlers.Intervention)
	}
	c.sources = append(c.sources, s)
}

// settings returns a mapping of settings as it was written.
func (d *document) settings(mapping *yaml.Node) []handlers.Setting {
	list := []handlers.Setting{}
	d.each(mapping, func(key, value *yaml.Node) {
		list = append(list, d.setting(key.Value, key.Line, value))
	})
	return list
}

func (d *document) setting(name string, line int, value *yaml.Node) handlers.Setting {
	s := handlers.Setting{Name: name, Line: line}
	if d.rules++; d.rules >= maxRules {
		if d.rules == maxRules {
			d.fault(value, "more than %d settings: does an alias hold itself?", maxRules)
		}
		return s
	}
	switch value.Kind {
	case yaml.ScalarNode:
		s.Text = value.Value
	case yaml.MappingNode:
		s.Words = d.settings(value)
	case yaml.SequenceNode:
		s.Words = []handlers.Setting{}
		for _, item := range value.Content {
			item := resolve(item)
			s.Words = append(s.Words, d.setting("", item.Line, item))
		}
	}
	return s
}

// readRules reads a file of settings: the vendor's XML, or YAML. What it could
// read it returns beside the faults.
func readRules(path string, action handlers.Action) ([]handlers.Setting, configError) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, configError{{path, fileFault(err)}}
	}
	start := bytes.TrimSpace(bytes.TrimPrefix(text, []byte("\xef\xbb\xbf")))
	if bytes.HasPrefix(start, []byte("<")) || strings.EqualFold(filepath.Ext(path), ".xml") {
		settings, err := handlers.ParseXML(action, text)
		if err != nil {
			return nil, ruleFaults(path, err)
		}
		return settings, nil
	}
	d := &document{path: path}
	root := d.parse(text)
	if root == nil {
		return nil, d.faults
	}
	settings := d.settings(root)
	return settings, d.faults
}

var ruleLine = regexp.MustCompile(`^line (\d+): `)

// ruleFaults places the faults of settings in their file: every line of the
// error that begins with one.
func ruleFaults(path string, err error) (faults configError) {
	for line := range strings.SplitSeq(err.Error(), "\n") {
		place, what := path, line
		if m := ruleLine.FindStringSubmatch(line); m != nil {
			place, what = path+":"+m[1], line[len(m[0]):]
		}
		faults = append(faults, fault{place, what})
	}
	return faults
}
