package main

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"learnsink/consumer"
	"learnsink/handlers"
	"learnsink/store"
)

// config is the effective configuration: flags before environment before file
// before defaults.
type config struct {
	Kafka           consumer.Connection
	DatabaseURL     string // empty: the PG* variables
	Group           string
	Sources         []*handlers.Source
	AcceptedTopic   string // of the sources that name none
	DeadLetterTopic string
	ReplayTopic     string // or off
	CatalogTopics   string // what the names of the catalogue topics begin with; "": there are none
	Publish         string
	SessionTimeout  time.Duration
	BatchRows       int
	BatchBytes      int
	BatchLinger     time.Duration
	Breaker         consumer.Breaker
	HTTP            string // address, or off
	Metrics         string // address, or off
	Retention       time.Duration
	LogLevel        zerolog.Level
	LogFormat       string // pretty, json or "": by what stderr is

	path         string            // of the file; "" = none
	tls          string            // on, off or "": on if another setting of tls is there
	breaker      string            // on or off
	passwordFile string            // sasl.passwordFile
	origins      map[string]string // for each setting that is not a default: where it was said
	sources      []sourceText      // the sources as they were written
}

// sourceText is a source as it was written.
type sourceText struct {
	place                                                           string // FILE:LINE, or default
	topic, action, acceptedTopic, deadLetterTopic, order, eventTime string
	onMissing, deadline                                             string // onMissingReference, and how long a row waits
	deadlinePlace                                                   string
	settings                                                        []handlers.Setting
	rulesFile, rulesPlace                                           string // the vendor's XML, or YAML, as named, and where
}

// defaults is the configuration where nothing is said.
func defaults() *config {
	return &config{
		Kafka:           consumer.Connection{Brokers: []string{"localhost:9092"}},
		Group:           "learnsink",
		AcceptedTopic:   "learning.accepted",
		DeadLetterTopic: "learning.dead-letter",
		ReplayTopic:     "learning.replay",
		Publish:         string(consumer.Transactional),
		SessionTimeout:  10 * time.Second,
		BatchRows:       2000,
		BatchBytes:      4 << 20,
		BatchLinger:     5 * time.Millisecond,
		Breaker:         consumer.Breaker{Rejected: 0.5, Deleted: 0.2, Window: 1000},
		breaker:         "on",
		HTTP:            "127.0.0.1:8080",
		Metrics:         "off",
		Retention:       90 * 24 * time.Hour,
		LogLevel:        zerolog.InfoLevel,
		origins:         map[string]string{},
		sources: []sourceText{
			{place: "default", topic: "learning.tracking", action: string(handlers.Tracking)},
			{place: "default", topic: "learning.intervention", action: string(handlers.Intervention)},
		},
	}
}

// fault is one thing that is wrong with the configuration.
type fault struct {
	place string // FILE:LINE, the name of a variable, or a flag
	what  string // and what to do about it
}

// configError is everything that is wrong with a configuration, at once.
type configError []fault

func (e configError) Error() string {
	lines := make([]string, len(e))
	for i, f := range e {
		lines[i] = f.place + ": " + f.what
	}
	if len(lines) == 1 {
		return lines[0]
	}
	return fmt.Sprintf("%d faults in the configuration:\n%s", len(lines), strings.Join(lines, "\n"))
}

// load reads the effective configuration. Its error is a callError, and names
// every fault with its place.
func (a *app) load() (*config, error) {
	c := defaults()
	var faults configError
	path := a.configFile
	if path == "" {
		path = os.Getenv("LEARNSINK_CONFIG")
	}
	if path != "" {
		faults = append(faults, c.readFile(path)...)
	}
	faults = append(faults, c.readEnvironment()...)
	for _, s := range settings() {
		if text, ok := a.flags[s.key]; ok {
			faults = append(faults, c.set(s, "--"+flagName(s.key), text)...)
		}
	}
	faults = append(faults, c.finish()...)
	if len(faults) > 0 {
		return nil, callError{inOrder(faults)}
	}
	return c, nil
}

func flagName(key string) string {
	switch key {
	case "databaseUrl":
		return "database-url"
	case "logLevel":
		return "log-level"
	case "logFormat":
		return "log-format"
	}
	return key
}

func (c *config) set(s setting, place, text string) configError {
	if !s.secret { // a password may begin or end with a blank
		text = strings.TrimSpace(text)
	}
	if err := s.set(c, text); err != nil {
		return configError{{place, fmt.Sprintf("%s: %v", s.key, err)}}
	}
	c.origins[s.key] = place
	return nil
}

// readEnvironment takes the variables that are set and not empty; a secret may
// stand in a file that <variable>_FILE names.
func (c *config) readEnvironment() (faults configError) {
	for _, s := range settings() {
		if s.env == "" {
			continue
		}
		value, file := os.Getenv(s.env), ""
		if s.secret {
			file = os.Getenv(s.env + "_FILE")
		}
		switch {
		case value != "" && file != "":
			faults = append(faults, fault{s.env, fmt.Sprintf("is set, and %s_FILE too: unset one of them", s.env)})
		case value != "":
			faults = append(faults, c.set(s, s.env, value)...)
		case file != "":
			secret, err := readSecret(file)
			if err != nil {
				faults = append(faults, fault{s.env + "_FILE", err.Error()})
				continue
			}
			faults = append(faults, c.set(s, s.env+"_FILE", secret)...)
		}
	}
	if c.DatabaseURL == "" && os.Getenv("PGPASSWORD") == "" && os.Getenv("PGPASSWORD_FILE") != "" {
		password, err := readSecret(os.Getenv("PGPASSWORD_FILE"))
		if err != nil {
			return append(faults, fault{"PGPASSWORD_FILE", err.Error()})
		}
		// The other PG* variables still say all the rest.
		c.DatabaseURL = "password='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(password) + "'"
		c.origins["databaseUrl"] = "PGPASSWORD_FILE"
	}
	return faults
}

// readSecret reads a secret's file, without the line's end that editors leave.
func readSecret(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(text), "\r\n"), nil
}

// place says where a setting was said, for faults found later.
func (c *config) place(keys ...string) string {
	for _, key := range keys {
		if origin, ok := c.origins[key]; ok {
			return origin
		}
	}
	return "configuration"
}

// finish checks what only the whole can tell, and compiles the sources.
func (c *config) finish() (faults configError) {
	if c.passwordFile != "" && strings.HasPrefix(c.origins["sasl.password"], c.path+":") {
		faults = append(faults, fault{c.place("sasl.passwordFile"), "sasl.passwordFile: there is sasl.password too: leave one of them"})
	}
	t := &c.Kafka.TLS
	t.Enabled = c.tls == "on" || c.tls == "" && (t.CAFile != "" || t.CertFile != "" || t.KeyFile != "" || t.ServerName != "")
	if (t.CertFile == "") != (t.KeyFile == "") {
		faults = append(faults, fault{c.place("tls.cert", "tls.key"), "tls: a certificate needs its key, and a key its certificate: give tls.cert and tls.key"})
	}
	if c.tls == "off" && (t.CAFile != "" || t.CertFile != "" || t.KeyFile != "" || t.ServerName != "") {
		faults = append(faults, fault{c.place("tls.enabled"), "tls: is off, but other settings of tls are given: remove them, or say on"})
	}
	for _, f := range [][2]string{{"tls.ca", t.CAFile}, {"tls.cert", t.CertFile}, {"tls.key", t.KeyFile}} {
		name, path := f[0], f[1]
		if path == "" {
			continue
		}
		if _, err := os.Stat(path); err != nil {
			faults = append(faults, fault{c.place(name), fmt.Sprintf("%s: %s: %s", name, path, fileFault(err))})
		}
	}
	switch s := c.Kafka.SASL; {
	case s.Mechanism == "" && (s.User != "" || s.Password != ""):
		faults = append(faults, fault{c.place("sasl.user", "sasl.password", "sasl.passwordFile"), "sasl: a user or password is given but no mechanism: set sasl.mechanism"})
	case s.Mechanism != "" && s.User == "":
		faults = append(faults, fault{c.place("sasl.mechanism"), "sasl: no user is given: set sasl.user"})
	}
	for i := range c.sources {
		source, fault := c.compile(&c.sources[i])
		c.Sources, faults = append(c.Sources, source), append(faults, fault...)
	}
	return append(faults, c.checkRoutes()...)
}

// inOrder sorts faults by the lines of their file; those of other places stay
// as they come, behind.
func inOrder(faults configError) configError {
	line := func(f fault) int {
		n, err := strconv.Atoi(f.place[strings.LastIndexByte(f.place, ':')+1:])
		if err != nil {
			return math.MaxInt
		}
		return n
	}
	file := func(f fault) string { return strings.TrimRight(f.place, ":0123456789") }
	first := map[string]int{}
	for i, f := range faults {
		if _, ok := first[file(f)]; !ok {
			first[file(f)] = i
		}
	}
	slices.SortStableFunc(faults, func(a, b fault) int {
		return cmp.Or(cmp.Compare(first[file(a)], first[file(b)]), cmp.Compare(line(a), line(b)))
	})
	return faults
}

// compile makes a source of what was written.
func (c *config) compile(s *sourceText) (*handlers.Source, configError) {
	var faults configError
	file := c.path
	if s.rulesFile != "" {
		file = beside(c.path, s.rulesFile)
		s.settings, faults = readRules(file, handlers.Action(s.action))
		if len(faults) == 1 && faults[0].place == file { // the file itself: say who names it
			faults[0] = fault{s.rulesPlace, fmt.Sprintf("rules: %s: %s", s.rulesFile, faults[0].what)}
		}
	}
	s.acceptedTopic = cmp.Or(s.acceptedTopic, c.AcceptedTopic)
	s.deadLetterTopic = cmp.Or(s.deadLetterTopic, c.DeadLetterTopic)
	wait, fault := c.waiting(s)
	faults = append(faults, fault...)
	source := &handlers.Source{
		Topic:           s.topic,
		AcceptedTopic:   s.acceptedTopic,
		DeadLetterTopic: s.deadLetterTopic,
		ByEventTime:     s.order == "event-time",
		EventTimeHeader: s.eventTime == "header",
		Wait:            wait,
	}
	if action := handlers.Action(s.action); action == handlers.Tracking || action == handlers.Intervention { // else that was said
		var err error
		if source.Rules, err = handlers.Compile(action, s.settings); err != nil {
			faults = append(faults, ruleFaults(file, err)...)
		}
	}
	return source, faults
}

// How long a row waits for what it refers to.
const (
	defaultDeadline = 24 * time.Hour
	minDeadline     = time.Second
	maxDeadline     = 365 * 24 * time.Hour
)

// waiting reads how long the rows of a source wait for what they refer to; 0:
// they do not.
func (c *config) waiting(s *sourceText) (time.Duration, configError) {
	switch {
	case s.onMissing != "wait" && s.deadline != "":
		return 0, configError{{s.deadlinePlace, "deadline: is how long rows wait, and these do not: say onMissingReference: wait, or leave it out"}}
	case s.onMissing != "wait":
		return 0, nil
	case c.replayTopic() == "":
		return 0, configError{{s.place, "onMissingReference: wait: rows that have waited come back over the replay topic, and replayTopic is off: name one, or say reject"}}
	case s.deadline == "":
		s.deadline, s.deadlinePlace = showPeriod(defaultDeadline), s.place
	}
	deadline, err := parsePeriod(s.deadline)
	switch {
	case err != nil || deadline < minDeadline || deadline > maxDeadline:
		return 0, configError{{s.deadlinePlace, fmt.Sprintf("deadline: %q is not a time from %s to %s: say 30m, 24h or 7d", s.deadline, showPeriod(minDeadline), showPeriod(maxDeadline))}}
	case deadline >= c.Retention:
		return 0, configError{{s.deadlinePlace, fmt.Sprintf("deadline: %s is not below retention (%s): a row would be past keeping when it becomes a dead letter",
			s.deadline, showPeriod(c.Retention))}}
	}
	return deadline, nil
}

// checkRoutes refuses topics that would feed themselves.
func (c *config) checkRoutes() (faults configError) {
	read, accepted := map[string]bool{}, map[string]bool{}
	for _, s := range c.sources {
		if read[s.topic] {
			faults = append(faults, fault{s.place, fmt.Sprintf("topic %s is a source twice: a topic has one action and one set of rules", s.topic)})
		}
		read[s.topic], accepted[s.acceptedTopic] = s.topic != "", true
	}
	if replay := c.replayTopic(); read[replay] {
		faults = append(faults, fault{c.place("replayTopic"), fmt.Sprintf("replayTopic: %s is a source: it is learnsink's own, for rows that are sent again; name another, or say off", replay)})
	} else if replay != "" {
		read[replay] = true
	}
	for _, s := range c.sources {
		for _, out := range []string{s.acceptedTopic, s.deadLetterTopic} {
			if read[out] {
				faults = append(faults, fault{s.place, fmt.Sprintf("outcomes of source %s go to %s, which is read itself: they would be taken for rows", s.topic, out)})
			}
		}
		if accepted[s.deadLetterTopic] {
			faults = append(faults, fault{s.place, fmt.Sprintf("dead letters of source %s go to %s, which takes accepted events", s.topic, s.deadLetterTopic)})
		}
	}
	for _, s := range c.sources {
		read[s.acceptedTopic], read[s.deadLetterTopic] = true, true
	}
	return append(faults, c.checkCatalogTopics(read)...)
}

// source returns the first source of an action.
func (c *config) source(action handlers.Action) *handlers.Source {
	for _, s := range c.Sources {
		if s.Rules.Action() == action {
			return s
		}
	}
	return nil
}

// replayTopic is the topic of rows that are sent again; "": there is none.
func (c *config) replayTopic() string {
	if c.ReplayTopic == "off" {
		return ""
	}
	return c.ReplayTopic
}

// replays returns the sources as their rows are treated on the replay topic;
// nil without one. Records that name no source go where most dead letters go.
func (c *config) replays() *handlers.Replays {
	topic := c.replayTopic()
	if topic == "" {
		return nil
	}
	return handlers.NewReplays(topic, c.Sources, c.strayTopic())
}

// strayTopic takes the dead letters that are of no source: the default one,
// where a source uses it, so that it needs no topic of its own.
func (c *config) strayTopic() string {
	for _, s := range c.Sources {
		if s.DeadLetterTopic == c.DeadLetterTopic {
			return c.DeadLetterTopic
		}
	}
	return c.Sources[0].DeadLetterTopic
}

// reads returns every topic that is consumed: the sources, and the replay topic.
func (c *config) reads() []string {
	var topics []string
	for _, s := range c.Sources {
		topics = append(topics, s.Topic)
	}
	if replay := c.replayTopic(); replay != "" {
		topics = append(topics, replay)
	}
	return topics
}

// topics returns every topic that the configuration names, those that are read first.
func (c *config) topics() []string {
	var topics []string
	add := func(topic string) {
		if !slices.Contains(topics, topic) {
			topics = append(topics, topic)
		}
	}
	for _, topic := range c.reads() {
		add(topic)
	}
	for _, s := range c.Sources {
		add(s.AcceptedTopic)
		add(s.DeadLetterTopic)
	}
	for _, t := range c.catalogTopics() {
		add(t.Topic)
	}
	return topics
}

// store says which database.
func (c *config) store() store.Config { return store.Config{URL: c.DatabaseURL} }
