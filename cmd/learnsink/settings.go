package main

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"learnsink/consumer"
)

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
		text("replayTopic", "LEARNSINK_REPLAY_TOPIC", func(c *config) *string { return &c.ReplayTopic }, topicName), // or off, which could be one
		catalogTopicsSetting(),
		text("publish", "", func(c *config) *string { return &c.Publish }, oneOf(string(consumer.Transactional), string(consumer.AtLeastOnce))),
		period("sessionTimeout", time.Second, 5*time.Minute, func(c *config) *time.Duration { return &c.SessionTimeout }),
		number("batch.rows", 1, 100_000, func(c *config) *int { return &c.BatchRows }),
		number("batch.bytes", 1<<10, 1<<28, func(c *config) *int { return &c.BatchBytes }),
		period("batch.linger", 0, 10*time.Second, func(c *config) *time.Duration { return &c.BatchLinger }),
		text("breaker.enabled", "", func(c *config) *string { return &c.breaker }, onOff),
		share("breaker.rejected", func(c *config) *float64 { return &c.Breaker.Rejected }),
		share("breaker.deleted", func(c *config) *float64 { return &c.Breaker.Deleted }),
		number("breaker.window", 1, 1_000_000, func(c *config) *int { return &c.Breaker.Window }),
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

// Readers of single settings.

func text(key, env string, field func(*config) *string, check func(string) error) setting {
	return setting{
		key: key, env: env,
		set: func(c *config, text string) error { *field(c) = text; return check(text) },
		get: func(c *config) string { return *field(c) },
	}
}

// share reads a part of 1: more than 0, so that something may pass.
func share(key string, field func(*config) *float64) setting {
	return setting{
		key: key,
		set: func(c *config, text string) error {
			n, err := strconv.ParseFloat(text, 64)
			if err != nil || !(n > 0 && n <= 1) {
				return fmt.Errorf("%q is not a share: a number above 0, at most 1", text)
			}
			*field(c) = n
			return nil
		},
		get: func(c *config) string { return strconv.FormatFloat(*field(c), 'g', -1, 64) },
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
	text = strings.TrimSpace(text)
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
