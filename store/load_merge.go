package store

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"learnsink/store/catalogue"
)

// merging is how a kind gets from its staging table into its own.
type merging struct {
	check  string // place and why of lines that refer to what is not there
	key    string // what is the same thing: of lines about one the last holds
	update string
	insert string
}

var mergings = map[catalogue.Kind]merging{
	catalogue.Learners: {
		key: "login_folded",
		update: `UPDATE learnsink.learner t SET login = s.login, ref_number = s.ref_number, email = s.email, email_folded = s.email_folded, created_at = s.created_at
FROM load_learners s WHERE t.login_folded = s.login_folded
AND (t.login, t.ref_number, t.email, t.email_folded, t.created_at) IS DISTINCT FROM (s.login, s.ref_number, s.email, s.email_folded, s.created_at)`,
		insert: `INSERT INTO learnsink.learner (login, login_folded, ref_number, email, email_folded, created_at)
SELECT login, login_folded, ref_number, email, email_folded, created_at FROM load_learners s
WHERE NOT EXISTS (SELECT FROM learnsink.learner t WHERE t.login_folded = s.login_folded)`,
	},
	catalogue.LearningObjects: {
		key: "guid_folded",
		update: `UPDATE learnsink.learning_object t SET guid = s.guid, code = s.code, title = s.title, provider = s.provider
FROM load_learning_objects s WHERE t.guid_folded = s.guid_folded
AND (t.guid, t.code, t.title, t.provider) IS DISTINCT FROM (s.guid, s.code, s.title, s.provider)`,
		insert: `INSERT INTO learnsink.learning_object (guid, guid_folded, code, title, provider)
SELECT guid, guid_folded, code, title, provider FROM load_learning_objects s
WHERE NOT EXISTS (SELECT FROM learnsink.learning_object t WHERE t.guid_folded = s.guid_folded) ORDER BY place`,
	},
	catalogue.Trainings: {
		key: "id",
		update: `UPDATE learnsink.training t SET guid = s.guid, guid_folded = s.guid_folded, path_code = s.path_code, title = s.title
FROM load_trainings s WHERE t.id = s.id AND (t.guid, t.guid_folded, t.path_code, t.title) IS DISTINCT FROM (s.guid, s.guid_folded, s.path_code, s.title)`,
		insert: `INSERT INTO learnsink.training (id, guid, guid_folded, path_code, title)
SELECT id, guid, guid_folded, path_code, title FROM load_trainings s WHERE NOT EXISTS (SELECT FROM learnsink.training t WHERE t.id = s.id) ORDER BY id`,
	},
	catalogue.Sessions: {
		check: `SELECT place, 'there is no training with id ' || training_id FROM load_sessions s
WHERE NOT EXISTS (SELECT FROM learnsink.training t WHERE t.id = s.training_id)`,
		key: "id",
		update: `UPDATE learnsink.session t SET training_id = s.training_id, guid = s.guid, guid_folded = s.guid_folded, title = s.title
FROM load_sessions s WHERE t.id = s.id AND (t.training_id, t.guid, t.guid_folded, t.title) IS DISTINCT FROM (s.training_id, s.guid, s.guid_folded, s.title)`,
		insert: `INSERT INTO learnsink.session (id, training_id, guid, guid_folded, title)
SELECT id, training_id, guid, guid_folded, title FROM load_sessions s WHERE NOT EXISTS (SELECT FROM learnsink.session t WHERE t.id = s.id) ORDER BY id`,
	},
	catalogue.Registrations: {
		check: `SELECT place, concat_ws('; ', CASE WHEN session_id IS NULL THEN 'no session fits sessionGuid and sessionId' END,
  CASE WHEN learner_id IS NULL THEN 'no learner fits learnerLogin, learnerRefNumber and learnerEmail' END)
FROM load_resolved WHERE session_id IS NULL OR learner_id IS NULL`,
		// Ids by session: what a report on a session reads stands together.
		insert: `INSERT INTO learnsink.registration (session_id, learner_id)
SELECT DISTINCT session_id, learner_id FROM load_resolved s WHERE session_id IS NOT NULL AND learner_id IS NOT NULL
AND NOT EXISTS (SELECT FROM learnsink.registration t WHERE t.learner_id = s.learner_id AND t.session_id = s.session_id)
ORDER BY session_id, learner_id`,
	},
	catalogue.Teachers: {
		key:    "login_folded",
		update: `UPDATE learnsink.teacher t SET login = s.login FROM load_teachers s WHERE t.login_folded = s.login_folded AND t.login <> s.login`,
		insert: `INSERT INTO learnsink.teacher (login, login_folded)
SELECT login, login_folded FROM load_teachers s WHERE NOT EXISTS (SELECT FROM learnsink.teacher t WHERE t.login_folded = s.login_folded) ORDER BY place`,
	},
	catalogue.Rooms: {
		key: "guid_folded",
		// What the file leaves out stays: rows of interventions may have said it.
		update: `UPDATE learnsink.room t SET guid = s.guid, label = coalesce(s.label, t.label), capacity = coalesce(s.capacity, t.capacity)
FROM load_rooms s WHERE t.guid_folded = s.guid_folded
AND (t.guid, t.label, t.capacity) IS DISTINCT FROM (s.guid, coalesce(s.label, t.label), coalesce(s.capacity, t.capacity))`,
		insert: `INSERT INTO learnsink.room (guid, guid_folded, label, capacity)
SELECT guid, guid_folded, label, capacity FROM load_rooms s WHERE NOT EXISTS (SELECT FROM learnsink.room t WHERE t.guid_folded = s.guid_folded) ORDER BY guid_folded`,
	},
}

// resolution resolves the registrations that name their learner in one way: by
// login, else by reference number, else by e-mail, as rows do. Of several
// sessions of one guid the lowest id is meant. What no line of this load says
// is not asked for: that saves a fourth of the time.
func (l *load) resolution(by int) string {
	from, session := "INSERT INTO load_resolved SELECT r.place, l.id, s.id FROM load_registrations r\n", resolveSession
	if l.says.sessionIDs == 0 {
		session = resolveSessionByGUID
	}
	learner := resolveLearner[by]
	if by == byLogin && l.says.several > 0 {
		learner += ` AND (r.ref IS NULL OR l.ref_number = r.ref) AND (r.email IS NULL OR l.email_folded = r.email)`
	}
	return from + learner + session + resolveWhere[by]
}

var (
	resolveLearner = [...]string{
		byLogin: `LEFT JOIN learnsink.learner l ON l.login_folded = r.login`,
		byRefNumber: `LEFT JOIN LATERAL (SELECT id FROM learnsink.learner WHERE ref_number = r.ref AND (r.email IS NULL OR email_folded = r.email)
  ORDER BY created_at NULLS LAST, login_folded LIMIT 1) l ON true`,
		byEmail: `LEFT JOIN LATERAL (SELECT id FROM learnsink.learner WHERE email_folded = r.email
  ORDER BY created_at NULLS LAST, login_folded LIMIT 1) l ON true`,
	}
	resolveWhere = [...]string{
		byLogin:     ` WHERE r.login IS NOT NULL`,
		byRefNumber: ` WHERE r.login IS NULL AND r.ref IS NOT NULL`,
		byEmail:     ` WHERE r.login IS NULL AND r.ref IS NULL`,
	}
)

const (
	resolveSessionByGUID = `
LEFT JOIN (SELECT guid_folded, min(id) AS id FROM learnsink.session WHERE guid_folded IS NOT NULL GROUP BY guid_folded) s ON s.guid_folded = r.session_guid`

	resolveSession = `
LEFT JOIN (SELECT guid_folded, min(id) AS id FROM learnsink.session WHERE guid_folded IS NOT NULL GROUP BY guid_folded) g ON g.guid_folded = r.session_guid
LEFT JOIN learnsink.session s ON s.id = coalesce(r.session_id, g.id) AND (r.session_guid IS NULL OR s.guid_folded = r.session_guid)`
)

// merge brings a kind's table up to date with its staging table.
func (l *load) merge(ctx context.Context, kind catalogue.Kind) error {
	m, table, count := mergings[kind], "load_"+string(kind), l.counts[kind]
	if count == nil { // nothing but what has waited
		count = &LoadCount{Kind: kind}
	}
	if l.events != nil && kind == catalogue.Rooms {
		m.update = replaceRooms
	}
	if kind == catalogue.Registrations {
		// Learners of this very load are looked up: the planner has to know
		// that there are many.
		if l.many() {
			if err := l.exec(ctx, "ANALYZE learnsink.learner", "ANALYZE learnsink.session"); err != nil {
				return err
			}
		}
		for by, lines := range l.says.by {
			if lines == 0 {
				continue
			}
			if err := l.exec(ctx, l.resolution(by)); err != nil {
				return err
			}
		}
		// They are sorted in any case, and of those of a load done again none is left to be.
		if err := l.exec(ctx, "SET LOCAL enable_hashagg = off", "SET LOCAL enable_mergejoin = off"); err != nil {
			return err
		}
	}
	if kind == catalogue.Registrations && l.erased != nil {
		if err := l.passErased(ctx, count); err != nil {
			return err
		}
	}
	if m.check != "" {
		if err := l.putBack(ctx, kind); err != nil {
			return err
		}
		if err := l.check(ctx, kind, m.check, table); err != nil {
			return err
		}
	}
	if m.key != "" {
		if err := l.exec(ctx, fmt.Sprintf(`DELETE FROM %[1]s t USING (SELECT %[2]s, max(place) AS last FROM %[1]s GROUP BY %[2]s HAVING count(*) > 1) d
			WHERE t.%[2]s = d.%[2]s AND t.place < d.last`, table, m.key)); err != nil {
			return err
		}
	}
	if m.update != "" {
		changed, err := l.write(ctx, kind, m.update, "t.id")
		if err != nil {
			return err
		}
		count.Changed = changed
		l.events.updated(kind, changed)
	}
	added, err := l.write(ctx, kind, m.insert, "id")
	if err != nil {
		return err
	}
	count.Added = added
	l.events.added(kind, added)
	if kind == catalogue.Registrations {
		return l.exec(ctx, "SET LOCAL enable_hashagg = on", "SET LOCAL enable_mergejoin = on")
	}
	return nil
}

// check notes the lines that refer to what is not there, and takes them out.
func (l *load) check(ctx context.Context, kind catalogue.Kind, query, table string) error {
	rows, err := l.tx.Query(ctx, query)
	if err != nil {
		return err
	}
	var place int64
	var why string
	var places []int64
	if _, err := pgx.ForEachRow(rows, []any{&place, &why}, func() error {
		places = append(places, place)
		l.fault(kind, place, why)
		return nil
	}); err != nil || len(places) == 0 {
		return err
	}
	l.counts[kind].Lines -= int64(len(places))
	_, err = l.tx.Exec(ctx, "DELETE FROM "+table+" WHERE place = ANY ($1)", places)
	return err
}
