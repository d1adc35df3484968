package main

import (
	"crypto/md5"
	"encoding/hex"
	"fmt"
	"strings"
)

// world is a catalogue by numbers: who is registered where follows from a
// registration's number, here and in SQL alike, so that millions of them need
// neither a file nor a map.
type world struct{ learners int }

const (
	objects   = 5_000
	perPerson = 3 // registrations of each learner

	// How many keys rows are drawn from, at least: otherwise a small catalogue
	// would have fewer new rows than a large one, and not be comparable.
	keys = 12_000_000

	firstSession, firstTraining = 1_000, 100 // ids
)

func (w world) registrations() int { return perPerson * w.learners }
func (w world) sessions() int      { return max(perPerson, w.learners/100) }
func (w world) trainings() int     { return max(1, w.sessions()/10) }

// perRegistration is of how many learning objects rows about one registration speak.
func (w world) perRegistration() int {
	return min(max((keys+w.registrations()-1)/w.registrations(), 4), objects/2)
}

var (
	given  = strings.Fields("anna bruno charlotte daniel elena francois gabriela hugo isabelle joaquim katharina laurent madeleine nicolas olivia philippe")
	family = strings.Fields("almeida bernard carvalho dubois esposito fournier garcia hernandez ivanova jansen kowalski lefebvre moreau nguyen oliveira petit")
)

// login is that of learner i, folded already.
func login(i int) string {
	return fmt.Sprintf("%s.%s.%d", given[i%16], family[i/16%16], i)
}

// loginSQL is the same of the column i.
var loginSQL = fmt.Sprintf("('{%s}'::text[])[1 + i %% 16] || '.' || ('{%s}'::text[])[1 + i / 16 %% 16] || '.' || i",
	strings.Join(given, ","), strings.Join(family, ","))

func objectGUID(i int) string  { return guid("object", i) }
func sessionGUID(i int) string { return guid("session", i) }

// guid looks like one and is the same in SQL: md5(…)::uuid.
func guid(kind string, i int) string {
	sum := md5.Sum(fmt.Appendf(nil, "%s%d", kind, i))
	text := make([]byte, 36)
	hex.Encode(text[0:8], sum[0:4])
	hex.Encode(text[9:13], sum[4:6])
	hex.Encode(text[14:18], sum[6:8])
	hex.Encode(text[19:23], sum[8:10])
	hex.Encode(text[24:36], sum[10:16])
	text[8], text[13], text[18], text[23] = '-', '-', '-', '-'
	return string(text)
}

func pathCode(training int) string { return fmt.Sprintf("PATH-%05d", training) }

// session is the one that a registration is in; both by number.
func (w world) session(registration int) int {
	learner, n := registration/perPerson, registration%perPerson
	return (learner*31 + n*(w.sessions()/perPerson)) % w.sessions()
}

func (w world) training(session int) int { return session % w.trainings() }

// object is the n-th learning object of a registration. Those from objects/2
// on are never drawn: the rows that are there already speak of them.
func (w world) object(registration, n int) int {
	return (w.session(registration)*31 + n) % objects
}

// catalogueSQL fills the catalogue. Its ids are the numbers, from one on.
func (w world) catalogueSQL() string {
	s, t := w.sessions(), w.trainings()
	return fmt.Sprintf(`
INSERT INTO learnsink.learner (id, login, login_folded, ref_number, email, email_folded, created_at)
SELECT i + 1, l, l, (10000000 + i)::text, l || '@mail.example', l || '@mail.example', timestamptz '2020-01-01 00:00:00Z' + i * interval '1 s'
FROM (SELECT i, %[1]s AS l FROM generate_series(0, %[2]d - 1) AS i) AS x;
INSERT INTO learnsink.learning_object (id, guid, guid_folded, code, title, provider)
SELECT i + 1, g, g, 'LO-' || i, 'Learning object ' || i, 'customer' FROM (SELECT i, (md5('object' || i)::uuid)::text AS g FROM generate_series(0, %[3]d - 1) AS i) AS x;
INSERT INTO learnsink.training (id, guid, guid_folded, path_code, title)
SELECT %[4]d + i, g, g, 'PATH-' || lpad(i::text, 5, '0'), 'Training ' || i FROM (SELECT i, (md5('training' || i)::uuid)::text AS g FROM generate_series(0, %[5]d - 1) AS i) AS x;
INSERT INTO learnsink.session (id, training_id, guid, guid_folded, title)
SELECT %[6]d + i, %[4]d + i %% %[5]d, g, g, 'Session ' || i FROM (SELECT i, (md5('session' || i)::uuid)::text AS g FROM generate_series(0, %[7]d - 1) AS i) AS x;
INSERT INTO learnsink.registration (id, session_id, learner_id)
SELECT i + 1, %[6]d + (i / 3 * 31 + i %% 3 * (%[7]d / 3)) %% %[7]d, i / 3 + 1 FROM generate_series(0::bigint, %[8]d - 1) AS i;
SELECT setval(pg_get_serial_sequence('learnsink.learner', 'id'), (SELECT max(id) FROM learnsink.learner)),
       setval(pg_get_serial_sequence('learnsink.learning_object', 'id'), (SELECT max(id) FROM learnsink.learning_object)),
       setval(pg_get_serial_sequence('learnsink.registration', 'id'), (SELECT max(id) FROM learnsink.registration));
UPDATE learnsink.catalogue_version SET version = version + 1, loaded_at = now();
`, loginSQL, w.learners, objects, firstTraining, t, firstSession, s, w.registrations())
}

// filler is the source topic of the rows that are there already.
const filler = "filler"

// fillSQL puts n other rows into tracking: of the same registrations, so that
// new ones come between them, and in no order.
func (w world) fillSQL(n int) string {
	return fmt.Sprintf(`
INSERT INTO learnsink.tracking (registration_id, learning_object_id, status, progression, score, score_max, time_spent_seconds, first_access_at, last_access_at,
  first_completion_at, first_completion_filled_in, event_at, source_topic, source_partition, source_offset)
SELECT r + 1, ((%[4]d + (r / 3 * 31 + r %% 3 * (%[5]d / 3)) %% %[5]d * 31 + g / %[1]d) %% %[6]d) + 1, 'completed', 100, (g %% 1000) / 10.0, 100, g %% 36000, t, t + interval '3 h',
  t + interval '2 h', false, t + interval '3 h', '%[2]s', g %% 4, g
FROM (SELECT g, g * 7919 %% %[1]d AS r, timestamptz '2025-01-01 00:00:00Z' + g * interval '1 s' AS t FROM generate_series(0::bigint, %[3]d - 1) AS g) AS x`,
		w.registrations(), filler, n, objects/2, w.sessions(), objects)
}
