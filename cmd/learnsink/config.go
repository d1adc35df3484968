package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"os"
	"regexp"
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
	Publish         string
	BatchRows       int
	BatchBytes      int
	BatchLinger     time.Duration
	Breaker         string
	HTTP            string // address, or off
	Metrics         string // address, or off
	Retention       time.Duration
	LogLevel        zerolog.Level
	LogFormat       string // pretty, json or "": by what stderr is

	path         string            // of the file; "" = none
	tls          string            // on, off or "": on if another setting of tls is there
	passwordFile string            // sasl.passwordFile
	origins      map[string]string // for each setting that is not a default: where it was said
	sources      []sourceText      // the sources as they were written
}

// sourceText is a source as it was written.
type sourceText struct {
	place                                                           string // FILE:LINE, or default
	topic, action, acceptedTopic, deadLetterTopic, order, eventTime string
	settings                                                        []handlers.Setting
	rulesFile, rulesPlace                                           string // the vendor's XML, or YAML, as named, and where
}

// setting is one scalar of the configuration: its name in the file, how it is
// read and shown. The sources alone are not scalars.
type setting struct {
	key    string
	env    string // the variable; with secret also its _FILE
	secret bool
	set    func(c *config, text string) error
	get    func(c *config) string // as config print shows it
}

// settings lists every scalar, in the order in which config print shows them.
func settings() []setting {
	return []setting{
		{key: "brokers", env: "KAFKA_BROKERS", set: setBrokers, get: func(c *config) string { return strings.Join(c.Kafka.Brokers, ",") }},
		{key: "databaseUrl", env: "DATABASE_URL", secret: true, set: setDatabaseURL, get: func(c *config) string { return maskURL(c.DatabaseURL) }},
		text("group", "LEARNSINK_GROUP", func(c *config) *string { return &c.Group }, noBlank),
		text("acceptedTopic", "LEARNSINK_ACCEPTED_TOPIC", func(c *config) *string { return &c.AcceptedTopic }, topicName),
		text("deadLetterTopic", "LEARNSINK_DEAD_LETTER_TOPIC", func(c *config) *string { return &c.DeadLetterTopic }, topicName),
		text("publish", "", func(c *config) *string { return &c.Publish }, publishMode),
		number("batch.rows", 1, 100_000, func(c *config) *int { return &c.BatchRows }),
		number("batch.bytes", 1<<10, 1<<28, func(c *config) *int { return &c.BatchBytes }),
		period("batch.linger", 0, 10*time.Second, func(c *config) *time.Duration { return &c.BatchLinger }),
		text("breaker", "", func(c *config) *string { return &c.Breaker }, breaker),
		text("http", "LEARNSINK_HTTP", func(c *config) *string { return &c.HTTP }, listenAddress),
		text("metrics", "LEARNSINK_METRICS", func(c *config) *string { return &c.Metrics }, listenAddress),
		period("retention", time.Hour, 100*365*24*time.Hour, func(c *config) *time.Duration { return &c.Retention }),
		{key: "logLevel", env: "LEARNSINK_LOG_LEVEL", set: setLogLevel, get: func(c *config) string { return c.LogLevel.String() }},
		text("logFormat", "LEARNSINK_LOG_FORMAT", func(c *config) *string { return &c.LogFormat }, oneOf("pretty", "json")),
		text("tls.enabled", "KAFKA_TLS", func(c *config) *string { return &c.tls }, onOff),
		text("tls.ca", "KAFKA_TLS_CA", func(c *config) *string { return &c.Kafka.TLS.CAFile }, noBlank),
		text("tls.cert", "KAFKA_TLS_CERT", func(c *config) *string { return &c.Kafka.TLS.CertFile }, noBlank),
		text("tls.key", "KAFKA_TLS_KEY", func(c *config) *string { return &c.Kafka.TLS.KeyFile }, noBlank),
		text("tls.serverName", "KAFKA_TLS_SERVER_NAME", func(c *config) *string { return &c.Kafka.TLS.ServerName }, noBlank),
		text("sasl.mechanism", "KAFKA_SASL_MECHANISM", func(c *config) *string { return &c.Kafka.SASL.Mechanism },
			oneOf(consumer.Plain, consumer.ScramSHA256, consumer.ScramSHA512)),
		text("sasl.user", "KAFKA_SASL_USER", func(c *config) *string { return &c.Kafka.SASL.User }, noBlank),
		{key: "sasl.password", env: "KAFKA_SASL_PASSWORD", secret: true,
			set: func(c *config, text string) error { c.Kafka.SASL.Password = consumer.Secret(text); return nil },
			get: func(c *config) string {
				if c.origins["sasl.password"] == "" { // none, or a file's
					return ""
				}
				return "***"
			}},
		{key: "sasl.passwordFile", set: setPasswordFile, get: func(c *config) string { return c.passwordFile }},
	}
}

// defaults is the configuration where nothing is said.
func defaults() *config {
	return &config{
		Kafka:           consumer.Connection{Brokers: []string{"localhost:9092"}},
		Group:           "learnsink",
		AcceptedTopic:   "learning.accepted",
		DeadLetterTopic: "learning.dead-letter",
		Publish:         "at-least-once",
		BatchRows:       2000,
		BatchBytes:      4 << 20,
		BatchLinger:     5 * time.Millisecond,
		Breaker:         "off",
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
	if err := s.set(c, strings.TrimSpace(text)); err != nil {
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
	source := &handlers.Source{
		Topic:           s.topic,
		AcceptedTopic:   s.acceptedTopic,
		DeadLetterTopic: s.deadLetterTopic,
		ByEventTime:     s.order == "event-time",
		EventTimeHeader: s.eventTime == "header",
	}
	if action := handlers.Action(s.action); action == handlers.Tracking || action == handlers.Intervention { // else that was said
		var err error
		if source.Rules, err = handlers.Compile(action, s.settings); err != nil {
			faults = append(faults, ruleFaults(file, err)...)
		}
	}
	return source, faults
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
	for _, s := range c.sources {
		for _, out := range []string{s.acceptedTopic, s.deadLetterTopic} {
			if read[out] {
				faults = append(faults, fault{s.place, fmt.Sprintf("outcomes of source %s go to %s, which is a source itself: they would be read as rows", s.topic, out)})
			}
		}
		if accepted[s.deadLetterTopic] {
			faults = append(faults, fault{s.place, fmt.Sprintf("dead letters of source %s go to %s, which takes accepted events", s.topic, s.deadLetterTopic)})
		}
	}
	return faults
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

// topics returns every topic that the configuration names, sources first.
func (c *config) topics() []string {
	var topics []string
	add := func(topic string) {
		if !slices.Contains(topics, topic) {
			topics = append(topics, topic)
		}
	}
	for _, s := range c.Sources {
		add(s.Topic)
	}
	for _, s := range c.Sources {
		add(s.AcceptedTopic)
		add(s.DeadLetterTopic)
	}
	return topics
}

// store says which database.
func (c *config) store() store.Config { return store.Config{URL: c.DatabaseURL} }

// Readers of single settings.

func text(key, env string, field func(*config) *string, check func(string) error) setting {
	return setting{
		key: key, env: env,
		set: func(c *config, text string) error { *field(c) = text; return check(text) },
		get: func(c *config) string { return *field(c) },
	}
}

func number(key string, lo, hi int, field func(*config) *int) setting {
	return setting{
		key: key,
		set: func(c *config, text string) error {
			n, err := strconv.Atoi(text)
			if err != nil || n < lo || n > hi {
				return fmt.Errorf("%q is not a whole number from %d to %d", text, lo, hi)
			}
			*field(c) = n
			return nil
		},
		get: func(c *config) string { return strconv.Itoa(*field(c)) },
	}
}

func period(key string, lo, hi time.Duration, field func(*config) *time.Duration) setting {
	return setting{
		key: key,
		set: func(c *config, text string) error {
			d, err := parsePeriod(text)
			if err != nil || d < lo || d > hi {
				return fmt.Errorf("%q is not a time from %s to %s: say 50ms, 10s, 36h or 90d", text, showPeriod(lo), showPeriod(hi))
			}
			*field(c) = d
			return nil
		},
		get: func(c *config) string { return showPeriod(*field(c)) },
	}
}

// parsePeriod reads a duration, in days too: 90d.
func parsePeriod(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err
	}
	return time.ParseDuration(text)
}

func showPeriod(d time.Duration) string {
	const day = 24 * time.Hour
	if d > 0 && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return d.String()
}

func setBrokers(c *config, text string) error {
	var brokers []string
	for broker := range strings.SplitSeq(text, ",") {
		broker = strings.TrimSpace(broker)
		if _, port, err := net.SplitHostPort(broker); err != nil || port == "" {
			return fmt.Errorf("%q is not host:port", broker)
		}
		brokers = append(brokers, broker)
	}
	c.Kafka.Brokers = brokers
	return nil
}

func setDatabaseURL(c *config, text string) error {
	c.DatabaseURL = text
	if scheme, _, ok := strings.Cut(text, "://"); ok {
		if scheme != "postgres" && scheme != "postgresql" {
			return fmt.Errorf("the scheme is %s: say postgres://user@host:5432/database", scheme)
		}
		if _, err := url.Parse(text); err != nil {
			return errors.New("is not a URL: percent-encode what is special in user and password") // err holds the password
		}
		return nil
	}
	if text != "" && !strings.Contains(text, "=") {
		return errors.New("is neither postgres://user@host:5432/database nor key=value pairs")
	}
	return nil
}

// setPasswordFile takes the password from a file; the environment, which is
// read later, may still say another.
func setPasswordFile(c *config, path string) error {
	password, err := readSecret(path)
	c.passwordFile, c.Kafka.SASL.Password = path, consumer.Secret(password)
	return err
}

func setLogLevel(c *config, text string) (err error) {
	if err := oneOf("debug", "info", "warn", "error")(text); err != nil {
		return err
	}
	c.LogLevel, err = zerolog.ParseLevel(text)
	return err
}

func oneOf(words ...string) func(string) error {
	return func(text string) error {
		if slices.Contains(words, text) {
			return nil
		}
		return fmt.Errorf("%q is not %s", text, strings.Join(words, " or "))
	}
}

func noBlank(text string) error {
	if text == "" {
		return errors.New("is empty: give it a value or leave it out")
	}
	return nil
}

var kafkaTopic = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

func topicName(text string) error {
	if !kafkaTopic.MatchString(text) || text == "." || text == ".." {
		return fmt.Errorf("%q is no topic name: letters, digits, '.', '_' and '-', at most 249", text)
	}
	return nil
}

func publishMode(text string) error {
	if text == "transactional" {
		return errors.New("transactional is not there yet: say at-least-once; outputs keep their ids, so that readers can drop repeats")
	}
	return oneOf("at-least-once")(text)
}

func breaker(text string) error {
	if text == "off" {
		return nil
	}
	return errors.New("is not there yet: say off, or leave it out")
}

func onOff(text string) error { return oneOf("on", "off")(text) }

func listenAddress(text string) error {
	if text == "off" {
		return nil
	}
	if _, port, err := net.SplitHostPort(text); err != nil || port == "" {
		return fmt.Errorf("%q is not an address: say host:port, :port or off", text)
	}
	return nil
}

var passwordPair = regexp.MustCompile(`(?i)(password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&]+)`)

// maskURL hides the passwords of a database address.
func maskURL(address string) string {
	if scheme, rest, ok := strings.Cut(address, "://"); ok {
		authority, path := rest, ""
		if at := strings.IndexAny(rest, "/?"); at >= 0 {
			authority, path = rest[:at], rest[at:]
		}
		if at := strings.LastIndexByte(authority, '@'); at >= 0 {
			user, _, hasPassword := strings.Cut(authority[:at], ":")
			if hasPassword {
				user += ":***"
			}
			authority = user + authority[at:]
		}
		address = scheme + "://" + authority + path
	}
	return passwordPair.ReplaceAllString(address, "$1***")
}
