package store

import (
	"context"
	"time"
)

// DropRejections deletes the rejections that are older than before, a few
// thousand a transaction, and returns how many those were.
func (s *Store) DropRejections(ctx context.Context, before time.Time) (dropped int64, err error) {
	defer wrap(&err, "drop old rejections")
	for {
		tag, err := s.pool.Exec(ctx, `DELETE FROM learnsink.rejection WHERE id = ANY (ARRAY(
			SELECT id FROM learnsink.rejection WHERE rejected_at < $1 AND state NOT IN ('waiting', 'replaying') ORDER BY rejected_at LIMIT 5000))`, before)
		dropped += tag.RowsAffected()
		if err != nil || tag.RowsAffected() == 0 {
			return dropped, err
		}
	}
}
