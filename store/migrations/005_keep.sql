-- +goose Up
-- What is kept, and what is not: persons who were erased.

CREATE TABLE learnsink.erasure (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  person text COLLATE "C" NOT NULL CHECK (person IN ('learner', 'teacher')),
  person_id integer,
  erased_at timestamptz NOT NULL
);
COMMENT ON TABLE learnsink.erasure IS 'Persons who were erased (dlq erase), a line each. No personal data.';
COMMENT ON COLUMN learnsink.erasure.person_id IS 'What was their id in the catalogue; NULL where that had never known them.';

-- The secret lies here, and not in the settings. Settings would keep it out of
-- dumps: who has only a dump could not try logins against the hashes. But every
-- process would need it, and where one day one has another, or it is lost with a
-- deployment, whoever was erased comes back without anybody's noticing, which is
-- the worse of the two. A dump without the hashes is one without erased_key.
CREATE TABLE learnsink.erased_key (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  secret bytea NOT NULL
);
INSERT INTO learnsink.erased_key (secret) VALUES (uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())); -- 244 bits of chance
COMMENT ON TABLE learnsink.erased_key IS 'One row: the key of the hashes in erased, made when the table was. With another one nobody who was erased would be known again.';

CREATE TABLE learnsink.erased (
  hash bytea PRIMARY KEY,
  erasure bigint NOT NULL REFERENCES learnsink.erasure
);
COMMENT ON TABLE learnsink.erased IS 'By what rows and catalogue files named persons who were erased: HMAC-SHA-256 of it, so that it is known again when it comes again, and cannot be read.';

ALTER TABLE learnsink.rejection DROP CONSTRAINT rejection_state_check,
  ADD CONSTRAINT rejection_state_check CHECK (state IN ('open', 'replaying', 'waiting', 'resolved', 'superseded', 'quarantined', 'archived', 'erased'));
COMMENT ON COLUMN learnsink.rejection.state IS 'erased: of a person who was. The line stays, so that the books sum up; key, value, headers and errors are gone, codes stay.';
COMMENT ON COLUMN learnsink.ledger.counts IS '[{"sender", "day", "outcome": "accepted", "rejected", "waiting" or "erased", "code"?, "rows"}]: sender is the record''s ce_source ("" without, "…" beyond 200 of a batch), day the event''s in UTC, code a rejection''s first. Every row counts once. An erased person''s are among the skipped offsets.';
