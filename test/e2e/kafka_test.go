package e2e_test

import (
	"os"
	"strings"
	"testing"

	"learnsink/test/kafkatest"
)

// eachKafka runs a story on kfake in this process, and on a real Apache Kafka
// where there is one. LEARNSINK_TEST_KAFKA=real leaves kfake out: CI has run
// those stories before it runs them on the real one, under the race detector.
func eachKafka(t *testing.T, run func(t *testing.T, brokers string)) {
	if os.Getenv("LEARNSINK_TEST_KAFKA") != "real" {
		t.Run("kfake", func(t *testing.T) { run(t, strings.Join(kafkatest.New(t).Brokers, ",")) })
	}
	t.Run("kafka", func(t *testing.T) { run(t, strings.Join(kafkatest.Real(t).Brokers, ",")) })
}
