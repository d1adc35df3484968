package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"learnsink/handlers"
)

// configCommand is `config check` and `config print`.
func (a *app) configCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "config",
		Short: "check or print the configuration",
		Long: "The configuration is the file of --config (YAML; an unknown key is an error), under what the\n" +
			"environment and flags say. A secret may stand in a file that VARIABLE_FILE names. Variables:\n\n" + variables(),
	})
	cmd.AddCommand(
		&cobra.Command{
			Use:   "check",
			Short: "name every fault of the configuration with its place",
			Args:  cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				c, err := a.load()
				if err != nil {
					return err
				}
				for _, s := range c.Sources {
					fmt.Fprintf(a.stdout, "%s: %s, accepted to %s, dead letters to %s\n", s.Topic, s.Rules.Action(), s.AcceptedTopic, s.DeadLetterTopic)
				}
				if replay := c.replayTopic(); replay != "" {
					fmt.Fprintf(a.stdout, "%s: rows that are sent again\n", replay)
				}
				if c.Kafka.ClearPassword() {
					a.warn("sasl: PLAIN without TLS sends the password as it is")
				}
				_, err = fmt.Fprintln(a.stdout, "no faults")
				return err
			},
		},
		&cobra.Command{
			Use:   "print",
			Short: "print the effective configuration, secrets masked, and where each value comes from",
			Args:  cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				c, err := a.load()
				if err != nil {
					return err
				}
				return c.print(a.stdout)
			},
		},
	)
	return cmd
}

// variables lists the variables of the environment and what each sets.
func variables() string {
	var b strings.Builder
	out := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "  LEARNSINK_CONFIG\tthe file")
	for _, s := range settings() {
		switch {
		case s.secret:
			fmt.Fprintf(out, "  %s, %[1]s_FILE\t%s\n", s.env, s.key)
		case s.env != "":
			fmt.Fprintf(out, "  %s\t%s\n", s.env, s.key)
		}
	}
	fmt.Fprintln(out, "  PGHOST, PGUSER, …, PGPASSWORD_FILE\tthe database, where databaseUrl is not given")
	out.Flush()
	return b.String()
}

// print writes the configuration as a file of it would stand, each value with
// a comment that says where it comes from.
func (c *config) print(out io.Writer) error {
	root := &yaml.Node{Kind: yaml.MappingNode}
	mappings := map[string]*yaml.Node{"": root}
	for _, s := range settings() {
		value := s.get(c)
		if value == "" && c.origins[s.key] == "" {
			continue
		}
		group, name, nested := strings.Cut(s.key, ".")
		if !nested {
			group, name = "", s.key
		}
		if mappings[group] == nil {
			mappings[group] = &yaml.Node{Kind: yaml.MappingNode}
			add(root, group, mappings[group])
		}
		node := scalar(value)
		node.LineComment = cmp.Or(c.origins[s.key], "default")
		add(mappings[group], name, node)
		if s.key == "deadLetterTopic" {
			add(root, "sources", c.printSources())
		}
	}
	encoder := yaml.NewEncoder(out)
	encoder.SetIndent(2)
	if err := encoder.Encode(root); err != nil {
		return err
	}
	return encoder.Close()
}

func (c *config) printSources() *yaml.Node {
	list := &yaml.Node{Kind: yaml.SequenceNode}
	for i, written := range c.sources {
		source := c.Sources[i]
		item := &yaml.Node{Kind: yaml.MappingNode}
		item.HeadComment = written.place + ", rules " + source.Rules.Hash()
		if written.rulesFile != "" {
			item.HeadComment += " from " + written.rulesFile
		}
		add(item, "topic", scalar(source.Topic))
		add(item, "action", scalar(written.action))
		add(item, "rules", settingsNode(written.settings))
		add(item, "acceptedTopic", scalar(source.AcceptedTopic))
		add(item, "deadLetterTopic", scalar(source.DeadLetterTopic))
		add(item, "order", scalar(map[bool]string{false: "log", true: "event-time"}[source.ByEventTime]))
		add(item, "eventTime", scalar(map[bool]string{false: "timestamp", true: "header"}[source.EventTimeHeader]))
		add(item, "onMissingReference", scalar(map[bool]string{false: "reject", true: "wait"}[source.Wait > 0]))
		if source.Wait > 0 {
			add(item, "deadline", scalar(showPeriod(source.Wait)))
		}
		list.Content = append(list.Content, item)
	}
	return list
}

// settingsNode writes settings as they could stand in the file.
func settingsNode(settings []handlers.Setting) *yaml.Node {
	node := &yaml.Node{Kind: yaml.MappingNode}
	for _, s := range settings {
		add(node, s.Name, settingNode(s))
	}
	return node
}

func settingNode(s handlers.Setting) *yaml.Node {
	switch {
	case s.Words == nil:
		return scalar(s.Text)
	case len(s.Words) > 0 && s.Words[0].Name == "":
		list := &yaml.Node{Kind: yaml.SequenceNode}
		for _, item := range s.Words {
			list.Content = append(list.Content, settingNode(item))
		}
		return list
	}
	return settingsNode(s.Words)
}

func add(mapping *yaml.Node, key string, value *yaml.Node) {
	mapping.Content = append(mapping.Content, scalar(key), value)
}

// scalar is a text that our reader reads back as the same text; it need not be
// quoted where it looks like a number.
func scalar(text string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: text} }
