package consumer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"learnsink/handlers"
)

// watchInterval is how often a member looks whether its subscription still
// fits the cluster; the coordinator is asked every few times only.
const watchInterval = time.Second

// awaitTopics returns the source topics that exist, once there is one. A topic
// is looked for in the metadata, which creates none: joining a group for a
// topic that is not there may, on a broker that creates topics by themselves.
func (c *Consumer) awaitTopics(ctx context.Context) []string {
	var told string
	for ctx.Err() == nil {
		counts, err := c.client.Partitions(ctx, c.topics...)
		var there, missing []string
		for _, t := range c.topics {
			if counts[t] > 0 {
				there = append(there, t)
			} else {
				missing = append(missing, t)
			}
		}
		switch now := fmt.Sprint(missing, err); {
		case err != nil && now != told:
			c.logger.Warn().Err(err).Msg("waiting for a broker")
			told = now
		case err == nil && len(missing) > 0 && now != told:
			c.missing(missing)
			told = now
		}
		if len(there) > 0 {
			return there
		}
		pause(ctx, watchInterval)
	}
	return nil
}

// missing warns of topics that are not there. Without its own topic learnsink
// works all the same: nothing can be sent again.
func (c *Consumer) missing(topics []string) {
	if c.replays != nil {
		if i := slices.Index(topics, c.replays.Topic); i >= 0 {
			c.logger.Warn().Str("topic", c.replays.Topic).Msg("the replay topic does not exist: no dead letter can be sent again until `learnsink topics create` makes it")
			topics = slices.Delete(topics, i, i+1)
		}
	}
	if len(topics) > 0 {
		c.logger.Warn().Strs("topics", topics).Msg("source topics do not exist yet and are waited for")
	}
}

// member is one membership of the group, subscribed to topics. It returns when
// ctx ends, or when the subscription has to change.
func (c *Consumer) member(ctx context.Context, topics []string) error {
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID:                c.config.Group,
		Brokers:           c.config.Connection.Brokers,
		Dialer:            c.client.dialer,
		Topics:            topics,
		GroupBalancers:    []kafka.GroupBalancer{kafka.RoundRobinGroupBalancer{}, kafka.RangeGroupBalancer{}},
		SessionTimeout:    c.config.SessionTimeout,
		HeartbeatInterval: c.config.HeartbeatInterval,
		JoinGroupBackoff:  time.Second,
		StartOffset:       kafka.FirstOffset, // of no meaning here: the position says where to begin
	})
	if err != nil {
		return fmt.Errorf("group: %w", err)
	}
	defer c.metrics.board.leave()
	defer c.leave(group)
	var told, last string
	buried := func() {}
	defer func() { buried() }()
	for {
		generation, err := group.Next(ctx)
		switch {
		case ctx.Err() != nil, errors.Is(err, kafka.ErrGroupClosed):
			return nil
		case err != nil: // the group tries again by itself
			c.metrics.failures.WithLabelValues("group").Inc()
			c.metrics.board.leave()
			if last != "" && !errors.Is(err, kafka.RebalanceInProgress) {
				burial, done := context.WithCancel(ctx)
				buried = done
				go c.bury(burial, last)
				last = ""
			}
			if err.Error() != told {
				told = err.Error()
				c.logger.Warn().Err(err).Msg("joining the group")
			}
			continue
		}
		told, last = "", generation.MemberID
		buried()
		ended := make(chan bool, 1)
		generation.Start(func(ctx context.Context) { ended <- c.generation(ctx, generation, topics) })
		select {
		case change := <-ended:
			if change {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// bury takes out of the group a member that this process was and that
// kafka-go has forgotten because the coordinator was away: a group waits for
// all its members, until the session of one expires. A coordinator that has
// just come back may say yes and forget it, so it is asked until it says that
// there is no such member, or ctx ends.
func (c *Consumer) bury(ctx context.Context, member string) {
	for pause(ctx, 250*time.Millisecond) {
		asking, cancel := context.WithTimeout(ctx, requestTimeout)
		response, err := c.client.kafka.LeaveGroup(asking, &kafka.LeaveGroupRequest{
			GroupID: c.config.Group, Members: []kafka.LeaveGroupRequestMember{{ID: member}},
		})
		cancel()
		if err == nil && len(response.Members) == 1 && errors.Is(response.Members[0].Error, kafka.UnknownMemberId) {
			return
		}
	}
}

// leave ends the generation, waits for it, and leaves the group, so that
// nobody waits for the session to expire. A group that is just being joined
// answers to nothing until the others have joined too: then the process goes
// without a word.
func (c *Consumer) leave(group *kafka.ConsumerGroup) {
	left := make(chan struct{})
	go func() {
		defer close(left)
		_ = group.Close() // always nil
	}()
	timer := time.NewTimer(c.config.Grace + 2*time.Second)
	defer timer.Stop()
	select {
	case <-left:
	case <-timer.C:
	}
}

// generation works on what one generation assigns, until it ends. It runs in
// the generation's one function, which never returns because of one partition:
// that would end the generation for all of them. It reports whether the
// subscription has to change.
func (c *Consumer) generation(ctx context.Context, generation *kafka.Generation, topics []string) (change bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var assigned []*progress
	var pipelines []*pipeline
	for topic, partitions := range generation.Assignments {
		for _, a := range partitions {
			p := c.pipeline(handlers.TopicPartition{Topic: topic, Partition: a.ID}, &groupOffsets{
				client: c.client, group: c.config.Group, generation: int(generation.ID), member: generation.MemberID,
			})
			assigned, pipelines = append(assigned, p.progress), append(pipelines, p)
		}
	}
	c.metrics.board.assign(assigned)
	c.metrics.rebalances.Inc()
	c.logger.Info().Int32("generation", generation.ID).Int("partitions", len(assigned)).Msg("joined the group")

	var running sync.WaitGroup
	for _, p := range pipelines {
		running.Go(func() { p.run(ctx) })
	}
	change = c.watch(ctx, topics, assigned)
	cancel()
	running.Wait()
	return change
}

// watch returns true once the subscription no longer fits the cluster: a
// source topic has come or gone, or a partition has no owner (one that was
// added; the group's leader may have assigned by metadata older than it). It
// returns false when ctx ends.
func (c *Consumer) watch(ctx context.Context, topics []string, assigned []*progress) bool {
	gone, orphaned := 0, 0
	for tick := rand.IntN(5); pause(ctx, watchInterval); tick++ {
		counts, err := c.client.Partitions(ctx, c.topics...)
		if err != nil {
			continue
		}
		missing := false
		for _, t := range c.topics {
			switch subscribed := slices.Contains(topics, t); {
			case counts[t] > 0 && !subscribed:
				c.logger.Info().Str("topic", t).Msg("source topic has come into being")
				return true
			case counts[t] == 0 && subscribed:
				missing = true
			}
		}
		if gone++; !missing {
			gone = 0
		}
		if gone >= 10 {
			c.logger.Warn().Msg("a source topic is gone")
			return true
		}
		if tick%5 != 0 && orphaned == 0 {
			continue
		}
		c.refreshStable(ctx, assigned)
		if orphaned++; !c.orphan(ctx, topics, counts) {
			orphaned = 0
		}
		if orphaned >= 2 {
			c.logger.Info().Msg("a partition has no owner: the group is joined again")
			return true
		}
	}
	return false
}

// orphan reports whether a partition of the topics is assigned to nobody.
func (c *Consumer) orphan(ctx context.Context, topics []string, counts map[string]int) bool {
	response, err := c.client.kafka.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{c.config.Group}})
	if err != nil || len(response.Groups) != 1 || response.Groups[0].Error != nil || response.Groups[0].GroupState != "Stable" {
		return false
	}
	owned := map[handlers.TopicPartition]bool{}
	for _, m := range response.Groups[0].Members {
		for _, t := range m.MemberAssignments.Topics {
			for _, p := range t.Partitions {
				owned[handlers.TopicPartition{Topic: t.Topic, Partition: p}] = true
			}
		}
	}
	for _, t := range topics {
		for p := range counts[t] {
			if !owned[handlers.TopicPartition{Topic: t, Partition: p}] {
				return true
			}
		}
	}
	return false
}

// refreshStable keeps the lag true of partitions that are not being read
// because something downstream is waiting.
func (c *Consumer) refreshStable(ctx context.Context, assigned []*progress) {
	ends := map[string]map[int]int64{}
	for _, p := range assigned {
		if _, asked := ends[p.Topic]; !asked {
			ends[p.Topic], _ = c.client.StableOffsets(ctx, p.Topic) // best effort: nil says nothing
		}
		if end, ok := ends[p.Topic][p.Partition]; ok {
			p.update(func(p *progress) { p.Stable = max(p.Stable, end) })
		}
	}
}

// Moved returns the group's offset where it is not one that this program has committed.
func (o *groupOffsets) Moved(ctx context.Context, tp handlers.TopicPartition) (to int64, moved bool, err error) {
	committed, err := o.client.committed(ctx, o.group, map[string][]int{tp.Topic: {tp.Partition}})
	if err != nil {
		return 0, false, err
	}
	at, there := committed[tp]
	return at.offset, there && !strings.HasPrefix(at.metadata, offsetMetadata), nil
}

// offsetMetadata goes with every offset that we commit, and tells it from one
// that a tool has set.
const offsetMetadata = "ls1:"

// groupOffsets commits for one generation.
type groupOffsets struct {
	client        *Client
	group, member string
	generation    int
}

// Commit writes the group's offset. Where the generation is over it is no
// longer this member's to write, and the next owner's claim does.
func (o *groupOffsets) Commit(ctx context.Context, tp handlers.TopicPartition, next, epoch int64) error {
	response, err := o.client.kafka.OffsetCommit(ctx, &kafka.OffsetCommitRequest{
		GroupID: o.group, GenerationID: o.generation, MemberID: o.member,
		Topics: map[string][]kafka.OffsetCommit{tp.Topic: {{
			Partition: tp.Partition, Offset: next,
			Metadata: offsetMetadata + strconv.FormatInt(epoch, 10),
		}}},
	})
	if err != nil {
		return err
	}
	for _, p := range response.Topics[tp.Topic] {
		switch {
		case errors.Is(p.Error, kafka.IllegalGeneration), errors.Is(p.Error, kafka.UnknownMemberId), errors.Is(p.Error, kafka.RebalanceInProgress):
			return nil
		case p.Error != nil:
			return fmt.Errorf("commit the offset of %s/%d: %w", tp.Topic, tp.Partition, p.Error)
		}
	}
	return nil
}
