package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"learnsink/consumer"
)

// topicsCommand is `topics create` and `topics check`.
func (a *app) topicsCommand() *cobra.Command {
	cmd := group(&cobra.Command{Use: "topics", Short: "create or check the topics that the configuration names"})
	partitions, replication := 4, -1
	create := &cobra.Command{
		Use:   "create",
		Short: "create the topics that are not there, with fitting settings",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if partitions == 0 || partitions < -1 || replication == 0 || replication < -1 || replication > 1<<15 {
				return badCall("--partitions and --replication are at least 1, or -1 for the broker's default")
			}
			c, client, err := a.kafka()
			if err != nil {
				return err
			}
			defer client.Close()
			specs, err := c.topicSpecs(cmd.Context(), client, partitions, replication)
			if err != nil {
				return err
			}
			return a.createTopics(cmd.Context(), client, specs)
		},
	}
	create.Flags().IntVar(&partitions, "partitions", partitions, "partitions of a new topic; -1: the broker's default")
	create.Flags().IntVar(&replication, "replication", replication, "replicas of a new topic; -1: the broker's default")
	cmd.AddCommand(create, &cobra.Command{
		Use:   "check",
		Short: "say what is missing or unfit",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, client, err := a.kafka()
			if err != nil {
				return err
			}
			defer client.Close()
			return a.checkTopics(cmd.Context(), client, c)
		},
	})
	return cmd
}

// kafka reads the configuration and prepares a client for its topics.
func (a *app) kafka() (*config, *consumer.Client, error) {
	c, err := a.load()
	if err != nil {
		return nil, nil, err
	}
	client, err := c.client()
	return c, client, err
}

// client prepares a client for the configuration's topics.
func (c *config) client() (*consumer.Client, error) {
	connection := c.Kafka
	connection.Topics = c.topics()
	client, err := consumer.NewClient(connection)
	if err != nil {
		return nil, callError{err}
	}
	return client, nil
}

// A dead letter is its row and some headers, and so is a row that is sent
// again: their topics take what the source topic takes, and so much more.
const (
	usualMessageBytes = 1 << 20
	deadLetterRoom    = 1 << 20
)

// topicSpecs says how each topic is to be. The replay topic has as many
// partitions as the first source: rows are sent again as evenly as they came.
func (c *config) topicSpecs(ctx context.Context, client *consumer.Client, partitions, replication int) ([]consumer.TopicSpec, error) {
	counts, err := client.Partitions(ctx, c.Sources[0].Topic)
	if err != nil {
		return nil, err
	}
	deadLetters := map[string]bool{}
	for _, s := range c.Sources {
		deadLetters[s.DeadLetterTopic] = true
	}
	var specs []consumer.TopicSpec
	for _, topic := range c.topics() {
		spec := consumer.TopicSpec{Name: topic, Partitions: partitions, ReplicationFactor: replication, Configs: map[string]string{"cleanup.policy": "delete"}}
		if deadLetters[topic] || topic == c.replayTopic() {
			spec.Configs["max.message.bytes"] = strconv.Itoa(usualMessageBytes + deadLetterRoom)
		}
		if deadLetters[topic] {
			spec.Configs["retention.ms"] = strconv.FormatInt(c.Retention.Milliseconds(), 10)
		}
		if n := counts[c.Sources[0].Topic]; topic == c.replayTopic() && n > 0 {
			spec.Partitions = n
		}
		if c.isCatalogTopic(topic) {
			catalogSpec(&spec)
		}
		specs = append(specs, spec)
	}
	return specs, nil
}

func (a *app) createTopics(ctx context.Context, client *consumer.Client, specs []consumer.TopicSpec) error {
	created, err := client.CreateTopics(ctx, specs...)
	if err != nil {
		return err
	}
	var failed []error
	for _, s := range specs {
		switch err := created[s.Name]; {
		case err == nil:
			fmt.Fprintf(a.stdout, "created %s\n", s.Name)
		case errors.Is(err, consumer.ErrTopicExists):
			fmt.Fprintf(a.stdout, "exists %s\n", s.Name)
		default:
			failed = append(failed, fmt.Errorf("create %s: %w", s.Name, err))
		}
	}
	return errors.Join(failed...)
}

// checkTopics prints a line for each topic. What is missing or unfit is a
// failure; what is merely worth knowing is a remark.
func (a *app) checkTopics(ctx context.Context, client *consumer.Client, c *config) error {
	topics := c.topics()
	counts, err := client.Partitions(ctx, topics...)
	if err != nil {
		return err
	}
	settings := map[string]map[string]string{}
	for topic := range counts {
		if settings[topic], err = client.TopicConfigs(ctx, topic); err != nil {
			return err
		}
	}
	faults := 0
	out := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, topic := range topics {
		count, there := counts[topic]
		if !there {
			faults++
			fmt.Fprintf(out, "%s\tmissing\tlearnsink topics create makes it\n", topic)
			continue
		}
		state, remarks := "fits", c.remarks(topic, settings)
		if c.isCatalogTopic(topic) {
			unfit, more := catalogRemarks(settings[topic])
			if remarks = append(remarks, more...); unfit {
				faults++
				state = "unfit"
			}
		} else if strings.Contains(settings[topic]["cleanup.policy"], "compact") {
			faults++
			state = "unfit"
			remarks = append([]string{"cleanup.policy is " + settings[topic]["cleanup.policy"] + ": records vanish before they are read; set it to delete"}, remarks...)
		}
		fmt.Fprintf(out, "%s\t%s\tpartitions %d\t%s\n", topic, state, count, strings.Join(remarks, "; "))
	}
	if err := out.Flush(); err != nil {
		return err
	}
	if faults > 0 {
		return fmt.Errorf("topics missing or unfit: %d of %d", faults, len(topics))
	}
	return nil
}

// remarks says what is worth knowing of a topic that works.
func (c *config) remarks(topic string, settings map[string]map[string]string) (remarks []string) {
	limit := func(topic string) int {
		n, _ := strconv.Atoi(settings[topic]["max.message.bytes"])
		return n
	}
	for _, s := range c.Sources {
		if topic == c.replayTopic() && limit(topic) < limit(s.Topic)+64<<10 {
			remarks = append(remarks, fmt.Sprintf("max.message.bytes is %d: the largest rows of %s cannot be sent again", limit(topic), s.Topic))
		}
		if s.Topic == topic && settings[topic]["message.timestamp.type"] == "LogAppendTime" && !s.EventTimeHeader {
			remarks = append(remarks, "its timestamps are LogAppendTime: an event's own time is that of its arrival")
		}
		if s.DeadLetterTopic == topic && limit(topic) < limit(s.Topic)+64<<10 {
			remarks = append(remarks, fmt.Sprintf("max.message.bytes is %d: the largest dead letters of %s go without their value", limit(topic), s.Topic))
		}
	}
	return remarks
}
