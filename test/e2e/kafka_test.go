package e2e_test

import (
	"strings"
	"testing"

	"learnsink/test/kafkatest"
)

// eachKafka runs a story on kfake in this process, and on a real Apache Kafka where there is one.
func eachKafka(t *testing.T, run func(t *testing.T, brokers string)) {
	t.Run("kfake", func(t *testing.T) { run(t, strings.Join(kafkatest.New(t).Brokers, ",")) })
	t.Run("kafka", func(t *testing.T) { run(t, strings.Join(kafkatest.Real(t).Brokers, ",")) })
}
