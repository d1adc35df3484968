package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"learnsink/test/kafkaserver"
)

// kafka is the broker, with what the chaos wants to know of it.
type kafka struct{ *kafkaserver.Server }

// nothingPrepared waits until the broker has no transaction left that it is
// just ending.
func (k *kafka) nothingPrepared(ctx context.Context) error {
	for deadline := time.Now().Add(5 * time.Second); ; {
		ending, err := k.Admin.ListTransactions(ctx, nil, []string{"PrepareCommit", "PrepareAbort", "PrepareEpochFence"})
		if err != nil {
			return fmt.Errorf("list transactions: %w", err)
		}
		if len(ending) == 0 {
			return nil
		}
		if time.Now().After(deadline) || !sleep(ctx, 20*time.Millisecond) {
			return fmt.Errorf("%d transactions are being ended, and do not end", len(ending))
		}
	}
}

// torn returns what the broker says of transactions that it has completed
// without their markers: their outputs and their offsets are not one any more,
// and no client can help it.
func (k *kafka) torn() (lines []string, err error) {
	text, err := os.ReadFile(k.Log())
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "while trying to send transaction markers") && strings.Contains(line, "can be skipped") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines, nil
}

// committed returns how far the partitions of topics are committed, and their sum.
func (k *kafka) committed(ctx context.Context, topics ...string) (map[partition]int64, int64, error) {
	listed, err := k.Admin.ListCommittedOffsets(ctx, topics...)
	if err == nil {
		err = listed.Error()
	}
	if err != nil {
		return nil, 0, err
	}
	ends, sum := map[partition]int64{}, int64(0)
	listed.Each(func(o kadm.ListedOffset) {
		ends[partition{o.Topic, o.Partition}] = o.Offset
		sum += o.Offset
	})
	return ends, sum, nil
}

// stable waits until no transaction is open in a partition: one that its
// sender has lost sight of ends by its timeout.
func (k *kafka) stable(ctx context.Context, p partition) error {
	for deadline := time.Now().Add(20 * time.Second); ; {
		ends, err := k.Admin.ListEndOffsets(ctx, p.topic)
		if err == nil {
			err = ends.Error()
		}
		if err != nil {
			return err
		}
		committed, _, err := k.committed(ctx, p.topic)
		if err != nil {
			return err
		}
		if end, _ := ends.Lookup(p.topic, p.n); end.Offset == committed[p] {
			return nil
		}
		if time.Now().After(deadline) || !sleep(ctx, 50*time.Millisecond) {
			return fmt.Errorf("a transaction of ours stays open in %s", p)
		}
	}
}

// partition is one of a topic.
type partition struct {
	topic string
	n     int32
}

func (p partition) String() string { return fmt.Sprintf("%s/%d", p.topic, p.n) }

func tail(text []byte) string {
	s := strings.TrimSpace(string(text))
	return s[max(0, len(s)-2000):]
}
