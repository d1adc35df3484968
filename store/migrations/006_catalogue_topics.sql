-- +goose Up
-- The catalogue as events: compacted topics, a kind each, whose records are upserts by key and tombstones.

CREATE TABLE learnsink.catalogue_position (
  topic text COLLATE "C" NOT NULL,
  partition integer NOT NULL,
  cluster_id text NOT NULL,
  next_offset bigint NOT NULL,
  first_end bigint NOT NULL,
  records bigint NOT NULL DEFAULT 0,
  bad bigint NOT NULL DEFAULT 0,
  anchor_offset bigint,
  anchor_hash bytea,
  begun integer NOT NULL DEFAULT 1,
  state text COLLATE "C" NOT NULL DEFAULT 'running',
  state_reason text NOT NULL DEFAULT '',
  updated_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (topic, partition),
  CONSTRAINT catalogue_position_anchor CHECK ((anchor_offset IS NULL) = (anchor_hash IS NULL))
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
COMMENT ON TABLE learnsink.catalogue_position IS 'How far each partition of a catalogue topic has been read; moved in the transaction that writes what it says.';
COMMENT ON COLUMN learnsink.catalogue_position.first_end IS 'The end that it had when it was first seen. Until all have come to theirs, consumers wait for the catalogue.';
COMMENT ON COLUMN learnsink.catalogue_position.records IS 'Records read since it was last begun at the start, bad ones among them.';
COMMENT ON COLUMN learnsink.catalogue_position.begun IS 'How often it was read from the start: again for a topic that was made anew, or cut.';
COMMENT ON COLUMN learnsink.catalogue_position.anchor_offset IS 'The last record that was read; anchor_hash is of its timestamp, key and value. A log that holds another record there is another log.';

CREATE TABLE learnsink.catalogue_bad (
  topic text COLLATE "C" NOT NULL,
  partition integer NOT NULL,
  source_offset bigint NOT NULL,
  why text NOT NULL,
  seen_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (topic, partition, source_offset)
);
COMMENT ON TABLE learnsink.catalogue_bad IS 'Records of catalogue topics that say nothing that can be stored: the last thousand of each partition. What stands in them is in the topic alone.';

-- What refers to what is not there yet. It becomes an entry of the catalogue as soon as that comes.
CREATE TABLE learnsink.catalogue_waiting_session (
  id bigint PRIMARY KEY,
  training_id bigint NOT NULL,
  guid text,
  guid_folded text COLLATE "C",
  title text COLLATE "C",
  since timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX catalogue_waiting_session_training ON learnsink.catalogue_waiting_session (training_id);
COMMENT ON TABLE learnsink.catalogue_waiting_session IS 'Sessions from catalogue topics whose training is not there yet.';

CREATE TABLE learnsink.catalogue_waiting_registration (
  key bytea PRIMARY KEY,
  login text COLLATE "C",
  ref text COLLATE "C",
  email text COLLATE "C",
  session_guid text COLLATE "C",
  session_id bigint,
  since timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX catalogue_waiting_registration_login ON learnsink.catalogue_waiting_registration (login) WHERE login IS NOT NULL;
CREATE INDEX catalogue_waiting_registration_ref ON learnsink.catalogue_waiting_registration (ref) WHERE ref IS NOT NULL;
CREATE INDEX catalogue_waiting_registration_email ON learnsink.catalogue_waiting_registration (email) WHERE email IS NOT NULL;
CREATE INDEX catalogue_waiting_registration_session_guid ON learnsink.catalogue_waiting_registration (session_guid) WHERE session_guid IS NOT NULL;
CREATE INDEX catalogue_waiting_registration_session_id ON learnsink.catalogue_waiting_registration (session_id) WHERE session_id IS NOT NULL;
COMMENT ON TABLE learnsink.catalogue_waiting_registration IS 'Registrations from catalogue topics whose learner or session is not there yet. Personal data.';
COMMENT ON COLUMN learnsink.catalogue_waiting_registration.key IS 'SHA-256 of what names learner and session, folded.';

CREATE TABLE learnsink.catalogue_tombstone (
  kind text COLLATE "C" NOT NULL,
  thing text COLLATE "C" NOT NULL,
  since timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (kind, thing)
);
COMMENT ON TABLE learnsink.catalogue_tombstone IS 'What a tombstone has named while something that is stored refers to it. It is deleted once nothing does, unless it is said anew before.';
COMMENT ON COLUMN learnsink.catalogue_tombstone.thing IS 'The id of the entry; of a room its folded guid.';

CREATE TABLE learnsink.catalogue_change (
  becomes bigint PRIMARY KEY,
  was bigint NOT NULL,
  learners integer[] NOT NULL,
  objects boolean NOT NULL,
  changed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX catalogue_change_changed_at ON learnsink.catalogue_change (changed_at);
COMMENT ON TABLE learnsink.catalogue_change IS 'What small changes of the catalogue have changed, from one identity to the next, kept for some minutes: processes then forget no more of what they remember than that.';
COMMENT ON COLUMN learnsink.catalogue_change.learners IS 'The ids of learners who changed, came, went, or whose registrations did. A change of anything else that is remembered, but learning objects, has no line here.';
