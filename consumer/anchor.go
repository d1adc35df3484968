package consumer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"learnsink/handlers"
)

// anchorOf returns the anchor that the last of the records is.
func anchorOf(records []handlers.Record) handlers.Opt[handlers.Anchor] {
	if len(records) == 0 {
		return handlers.Opt[handlers.Anchor]{}
	}
	r := &records[len(records)-1]
	return handlers.Some(handlers.Anchor{Offset: r.Offset, Hash: fingerprint(r)})
}

// fingerprint is of a record's timestamp, key and value.
func fingerprint(r *handlers.Record) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(r.Timestamp.UnixMilli()))
	b = appendNullable(b, r.Key)
	b = appendNullable(b, r.Value)
	sum := sha256.Sum256(b)
	return sum[:]
}

// Verify compares what the log holds at an anchor with what was applied. A
// log that no longer holds the anchor cannot be told; nor can one that ends
// before it, of which Read says what there is to say.
func (l *partitionLog) Verify(ctx context.Context, anchor handlers.Anchor) error {
	probe := newPartitionLog(l.client, l.tp, l.limits)
	chunk, err := probe.Read(ctx, anchor.Offset, 0)
	var stop *StopError
	switch {
	case errors.As(err, &stop), errors.Is(err, errBeyondEnd):
		return nil
	case err != nil:
		return err
	case chunk.Next == anchor.Offset: // nothing is there yet
		return nil
	case len(chunk.Records) > 0 && chunk.Records[0].Offset == anchor.Offset:
		if bytes.Equal(fingerprint(&chunk.Records[0]), anchor.Hash) {
			return nil
		}
		return &StopError{handlers.LogDiverged, fmt.Sprintf("the record at offset %d is not the one that was applied: the topic was made anew, or its log was cut and written again", anchor.Offset)}
	}
	if compacted, err := l.client.compacted(ctx, l.tp.Topic); err != nil || compacted {
		return err // it may have been compacted away
	}
	return &StopError{handlers.LogDiverged, fmt.Sprintf("the record at offset %d, which was applied, is not in the log: the topic was made anew, or its log was cut and written again", anchor.Offset)}
}
