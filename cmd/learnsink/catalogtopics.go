package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"learnsink/consumer"
	"learnsink/handlers"
	"learnsink/store"
	"learnsink/store/catalogue"
)

// catalogPrefix begins the names of the catalogue topics where none is named.
const catalogPrefix = "learning.catalog."

// catalogTopicsSetting reads on, off, or what the names of the topics begin with.
func catalogTopicsSetting() setting {
	return setting{
		key: "catalogTopics", env: "LEARNSINK_CATALOG_TOPICS",
		set: func(c *config, text string) error {
			switch text {
			case "off":
				c.CatalogTopics = ""
			case "on":
				c.CatalogTopics = catalogPrefix
			default:
				c.CatalogTopics = text
				return errors.Join(noBlank(text), topicName(text+string(catalogue.LearningObjects)))
			}
			return nil
		},
		get: func(c *config) string {
			switch c.CatalogTopics {
			case "":
				return "off"
			case catalogPrefix:
				return "on"
			}
			return c.CatalogTopics
		},
	}
}

// catalogTopic returns the topic of a kind; "": there is none.
func (c *config) catalogTopic(kind catalogue.Kind) string {
	if c.CatalogTopics == "" {
		return ""
	}
	return c.CatalogTopics + string(kind)
}

// catalogTopics returns the topics that the catalogue comes on, each after
// those of what it refers to.
func (c *config) catalogTopics() (topics []consumer.CatalogueTopic) {
	if c.CatalogTopics == "" {
		return nil
	}
	refers := map[catalogue.Kind][]string{
		catalogue.Sessions:      {string(catalogue.Trainings)},
		catalogue.Registrations: {string(catalogue.Learners), string(catalogue.Sessions)},
	}
	for _, kind := range catalogue.Kinds() {
		topics = append(topics, consumer.CatalogueTopic{Topic: c.catalogTopic(kind), Kind: string(kind), After: refers[kind]})
	}
	return topics
}

// isCatalogTopic reports whether the catalogue comes on a topic.
func (c *config) isCatalogTopic(topic string) bool {
	return slices.ContainsFunc(c.catalogTopics(), func(t consumer.CatalogueTopic) bool { return t.Topic == topic })
}

// checkCatalogTopics refuses catalogue topics that are something else as well.
func (c *config) checkCatalogTopics(taken map[string]bool) (faults configError) {
	for _, t := range c.catalogTopics() {
		if taken[t.Topic] {
			faults = append(faults, fault{c.place("catalogTopics"), fmt.Sprintf("catalogTopics: %s is a topic of rows or outcomes too: let the names begin otherwise", t.Topic)})
		}
	}
	return faults
}

// A tombstone is kept in a compacted topic for a while only. Whoever is away
// for longer does not hear of it.
const (
	tombstonesKept  = 30 * 24 * time.Hour
	tombstonesShort = 7 * 24 * time.Hour
)

// catalogSpec is how a catalogue topic is to be.
func catalogSpec(spec *consumer.TopicSpec) {
	spec.Configs = map[string]string{"cleanup.policy": "compact", "delete.retention.ms": strconv.FormatInt(tombstonesKept.Milliseconds(), 10)}
}

// catalogRemarks says what is unfit of a catalogue topic, and what is worth knowing.
func catalogRemarks(settings map[string]string) (unfit bool, remarks []string) {
	if policy := settings["cleanup.policy"]; !strings.Contains(policy, "compact") || strings.Contains(policy, "delete") {
		unfit = true
		remarks = append(remarks, "cleanup.policy is "+policy+": entries vanish that are not said again; set it to compact")
	}
	if kept, err := strconv.ParseInt(settings["delete.retention.ms"], 10, 64); err == nil && kept < tombstonesShort.Milliseconds() {
		remarks = append(remarks, fmt.Sprintf("delete.retention.ms is %s: a tombstone is not heard of by a learnsink that is away for longer", showPeriod(time.Duration(kept)*time.Millisecond)))
	}
	return unfit, remarks
}

// badShown is how many bad records `catalog status` names.
const badShown = 20

// showCatalogTopics prints how the catalogue topics stand.
func showCatalogTopics(w io.Writer, s store.CatalogueTopicsStatus) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(out, "\nTOPIC\tPARTITION\tSTATE\tNEXT\tFIRST END\tRECORDS\tBAD\tREAD FROM THE START")
	for _, p := range s.Positions {
		state := string(p.State)
		switch {
		case p.StateReason != "":
			state += ": " + p.StateReason
		case p.State == handlers.Running && p.NextOffset < p.FirstEnd:
			state = "not yet at its first end"
		}
		fmt.Fprintf(out, "%s\t%d\t%s\t%d\t%d\t%d\t%d\t%d\n", p.Topic, p.Partition, state, p.NextOffset, p.FirstEnd, p.Records, p.Bad, p.Begun)
	}
	waitFor := map[string]string{string(catalogue.Sessions): "their training", string(catalogue.Registrations): "their learner or session"}
	for _, c := range s.Waiting {
		fmt.Fprintf(out, "%s that wait for %s\t%d\n", c.Kind, waitFor[c.Kind], c.Rows)
	}
	for _, c := range s.Held {
		fmt.Fprintf(out, "%s with a tombstone, that something refers to\t%d\n", c.Kind, c.Rows)
	}
	if err := out.Flush(); err != nil {
		return err
	}
	for _, b := range s.Bad {
		if _, err := fmt.Fprintf(w, "bad record %s/%d at offset %d: %s\n", b.Topic, b.Partition, b.Offset, b.Why); err != nil {
			return err
		}
	}
	return nil
}
