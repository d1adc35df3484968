package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"learnsink/test/kafkatest"
)

// BenchmarkSend sends 50,000 tracking rows of 350 bytes to a topic of four
// partitions of a real broker: with the verb, from a file, and by kafka-go's
// bare Writer, from memory, so many messages a call, keyed as the verb does and
// acknowledged alike. The broker's caches are cold for nobody: each
// runs once before it is measured.
func BenchmarkSend(b *testing.B) {
	cluster := kafkatest.Real(b)
	const n = 50_000
	var messages []kafka.Message
	path := filepath.Join(b.TempDir(), "rows.jsonl")
	file, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	w := bufio.NewWriter(file)
	for i := range n {
		login := fmt.Sprintf("anna.almeida.%d", i*7919%100_000)
		row := fmt.Appendf(nil, `{"candidateLogin":"%s","lovGuid":"3f2a6c1e-0000-4000-8000-%012d","sessionGuid":"9b1deb4d-3b7d-4bad-9bdd-%012d","trackingStatus":"completed","progression":"%d","score":%d.5,"scoreMax":100,"timeSpent":%d,`+
			`"firstAccessDate":"2025-03-%02d 08:15:00","lastAccessDate":"2025-04-%02d 17:45:30","firstCompletionDate":"2025-04-%02d 17:45:30"}`,
			login, i%5000, i%10_000, i%101, i%100, i%36_000, i%28+1, i%28+1, i%28+1)
		messages = append(messages, kafka.Message{Key: []byte(login), Value: row})
		w.Write(row)
		w.WriteByte('\n')
	}
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
	file.Close()

	bench := func(name string, send func(topic string) error) {
		b.Run(name, func(b *testing.B) {
			topic := cluster.Topic(b, "send", 4)
			if err := send(topic); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if err := send(topic); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(n*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
	bench("learnsink", func(topic string) error {
		config := filepath.Join(b.TempDir(), topic+".yaml")
		if err := os.WriteFile(config, fmt.Appendf(nil, "sources:\n  - topic: %s\n    action: tracking\n", topic), 0o600); err != nil {
			return err
		}
		var stderr strings.Builder
		if exit := run(b.Context(), []string{"send", "-c", config, "-b", strings.Join(cluster.Brokers, ","), "--action", "tracking", path}, nil, io.Discard, &stderr); exit != exitDone {
			return fmt.Errorf("exit %d: %s", exit, &stderr)
		}
		return nil
	})
	for _, codec := range []kafka.Compression{kafka.Lz4, kafka.Zstd} {
		for _, call := range []int{1000, 10_000, n} {
			bench(fmt.Sprintf("writer/%s/%d", codec, call), func(topic string) error {
				transport := &kafka.Transport{} // one that has not learned its topics before this one was made
				defer transport.CloseIdleConnections()
				w := &kafka.Writer{Addr: kafka.TCP(cluster.Brokers...), Transport: transport, Topic: topic, Balancer: kafka.Murmur2Balancer{Consistent: true},
					BatchSize: 1000, BatchTimeout: 10 * time.Millisecond, RequiredAcks: kafka.RequireAll, Compression: codec}
				for rest := messages; len(rest) > 0; {
					size := min(call, len(rest))
					if err := w.WriteMessages(b.Context(), rest[:size]...); err != nil {
						return err
					}
					rest = rest[size:]
				}
				return w.Close()
			})
		}
	}
}
