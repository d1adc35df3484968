package store

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
)

// A catalogue that comes in events is another one every second. Were all that
// is remembered forgotten each time, nothing would be remembered: so a small
// change says which learners it is about (catalogue_change), and no more than
// what is known of them is forgotten. After any other change (a load of files,
// an erasure, a session that is moved) there is no such line, and all is.

// change is the difference between two catalogues.
type change struct {
	was, becomes int64
	learners     []int32
	texts        [bySeveral][]string // by which they are known now, by kind
	objects      bool                // learning objects may be others
}

// recentChanges is how many changes are kept for a reading of the whole
// catalogue that began before them.
const recentChanges = 64

// catchUp brings what is remembered up to the catalogue that the database
// holds: by forgetting what has changed since, or everything.
func (s *Store) catchUp(ctx context.Context) error {
	s.cache.mu.RLock()
	known := s.cache.version
	s.cache.mu.RUnlock()
	if known == 0 {
		return nil
	}
	c := &change{was: known}
	var now int64
	whole := true // every step from known to now has a line
	err := pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, "SELECT "+catalogueIdentity+" FROM learnsink.catalogue_version").Scan(&now); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT was, becomes, learners, objects FROM learnsink.catalogue_change WHERE becomes > $1 ORDER BY becomes`, known)
		if err != nil {
			return err
		}
		var was, becomes int64
		var learners []int32
		var objects bool
		c.becomes = known
		if _, err := pgx.ForEachRow(rows, []any{&was, &becomes, &learners, &objects}, func() error {
			whole = whole && was == c.becomes
			c.becomes, c.learners, c.objects = becomes, append(c.learners, learners...), c.objects || objects
			return nil
		}); err != nil {
			return err
		}
		if whole = whole && c.becomes == now; !whole {
			return nil
		}
		if rows, err = tx.Query(ctx, `SELECT login_folded, coalesce(ref_number, ''), coalesce(email_folded, '') FROM learnsink.learner WHERE id = ANY ($1)`, c.learners); err != nil {
			return err
		}
		var login, ref, email string
		_, err = pgx.ForEachRow(rows, []any{&login, &ref, &email}, func() error {
			for kind, text := range [bySeveral]string{byLogin: login, byRefNumber: ref, byEmail: email} {
				if text != "" {
					c.texts[kind] = append(c.texts[kind], text)
				}
			}
			return nil
		})
		return err
	})
	switch {
	case err != nil:
		s.cache.heed(0)
	case whole:
		s.cache.advance(c)
	default:
		s.cache.heed(now)
	}
	return err
}

// advance moves on from one catalogue to the next, which is another one by a
// change alone. Whoever was faster has done it.
func (c *cache) advance(ch *change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version != ch.was || ch.was == ch.becomes {
		return
	}
	for _, a := range []*answers{c.whole, c.young, c.old} {
		if a != nil {
			a.forget(ch)
		}
	}
	if c.erasedOf == c.version { // an erasure is no such change
		c.erasedOf = ch.becomes
	}
	c.version = ch.becomes
	if c.bulk.recent = append(c.bulk.recent, ch); len(c.bulk.recent) > recentChanges {
		c.bulk.recent = slices.Delete(c.bulk.recent, 0, 1)
	}
}

// bring brings answers of an earlier catalogue up to the present one; false:
// it is not known any more what has changed since.
func (c *cache) bring(a *answers, version int64) bool {
	if version == c.version {
		return true
	}
	at := slices.IndexFunc(c.bulk.recent, func(ch *change) bool { return ch.was <= version && version < ch.becomes })
	if at < 0 || c.bulk.recent[len(c.bulk.recent)-1].becomes != c.version {
		return false
	}
	for _, ch := range c.bulk.recent[at:] {
		a.forget(ch)
	}
	return true
}

// forget forgets what a change has made doubtful: each answer that means one
// of its learners, and each question that one of them answers by now. (A text
// that one of them was known by, without being the one who was meant, means
// whom it meant.)
func (a *answers) forget(ch *change) {
	changed := newIDs(ch.learners)
	for kind := range bySeveral {
		t := &a.learners[kind]
		t.forget(changed)
		for _, text := range ch.texts[kind] {
			if s := t.find(text); s != nil {
				s.id = forgotten
			} else if a.complete[kind] {
				t.put(text, forgotten)
			}
		}
	}
	a.learners[bySeveral] = table{}
	for _, id := range ch.learners {
		a.registrations.forget(int64(id))
	}
	if ch.objects {
		clear(a.byGUID)
		clear(a.byCode)
		a.objectBytes, a.allObjects = 0, false
	}
}

// ids is a set of ids, quick to ask.
type ids []uint64

func newIDs(members []int32) ids {
	var set ids
	for _, id := range members {
		if at := int(id) >> 6; at >= len(set) {
			set = append(set, make(ids, at+1-len(set))...)
		}
		set[id>>6] |= 1 << (id & 63)
	}
	return set
}

func (s ids) has(id int32) bool {
	at := int(id) >> 6
	return id >= 0 && at < len(s) && s[at]&(1<<(id&63)) != 0
}
