package consumer

import "github.com/segmentio/kafka-go"

// ErrTopicExists is what CreateTopics says of a topic that is there already.
var ErrTopicExists error = kafka.TopicAlreadyExists
