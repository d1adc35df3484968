-- +goose Up
-- Rejections by what is wrong with them, in their order, and by whom they speak of.
--
-- rejection_fault has a narrow line for each thing that is wrong with each rejection, so that a million of them are
-- grouped in a second. Triggers keep it, whoever writes rejection: it cannot tell another story than errors and state do.

ALTER TABLE learnsink.rejection
  ADD COLUMN seq bigint,
  ADD COLUMN sender text COLLATE "C" NOT NULL DEFAULT '',
  ADD COLUMN names bigint[] NOT NULL DEFAULT '{}',
  ADD COLUMN subject bigint,
  ADD COLUMN registration bigint;
COMMENT ON COLUMN learnsink.rejection.seq IS 'Tells rejections of one moment apart, in the order in which they came.';
COMMENT ON COLUMN learnsink.rejection.sender IS 'The record''s ce_source.';
COMMENT ON COLUMN learnsink.rejection.names IS 'By what the row is found: learnsink.digest of each name that it has for a learner; of teacher, a line end and the name; of sender, a line end and the sender. Logins and e-mails folded.';
COMMENT ON COLUMN learnsink.rejection.subject IS 'Tells learners, or interventions, apart: learnsink.digest of the first name. NULL: the row has none.';
COMMENT ON COLUMN learnsink.rejection.registration IS 'learnsink.digest of which learner in which session the row means.';

-- The same is computed in Go (store/digest.go); a test holds them against each other.
-- +goose StatementBegin
CREATE FUNCTION learnsink.digest(text) RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
RETURN ('x' || left(encode(sha256(convert_to($1, 'UTF8')), 'hex'), 16))::bit(64)::bigint;
-- +goose StatementEnd
COMMENT ON FUNCTION learnsink.digest IS 'The first 8 bytes of SHA-256, by which texts are compared and counted that are kept in one place only.';

-- handlers.Error.Template is the same in Go; a test holds them against each other.
-- +goose StatementBegin
CREATE FUNCTION learnsink.message_template(code text, field text, value text, message text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE
  WHEN code IN ('value_type', 'value_out_of_range') THEN
    'Field [' || field || '] has invalid value [ ' || substr(message, length('Field [' || field || '] has invalid value [') + length(value) + 1)
  WHEN code IN ('status_unknown', 'status_invalid', 'lo_not_found', 'training_guid_not_found', 'training_path_code_not_found',
    'session_guid_not_found', 'session_title_not_found', 'date_not_valid', 'teacher_not_found', 'source_unknown') AND value <> '' THEN
    left(message, strpos(message, '[')) || ' ' || substr(message, strpos(message, '[') + length(value) + 1)
  WHEN code = 'column_unknown' AND field IS NULL AND message LIKE 'And [%' THEN
    'And [ ]' || substr(message, strpos(message, ']') + 1)
  ELSE message END;
-- +goose StatementEnd

CREATE TABLE learnsink.fault (
  id bigint PRIMARY KEY,
  action text COLLATE "C" NOT NULL,
  code text COLLATE "C" NOT NULL,
  field text COLLATE "C" NOT NULL,
  message text NOT NULL
);
COMMENT ON TABLE learnsink.fault IS 'What can be wrong with a row: every fault that was ever found. Its id is made of the other columns, the same everywhere.';
COMMENT ON COLUMN learnsink.fault.field IS 'The column to blame; empty where no single one is.';
COMMENT ON COLUMN learnsink.fault.message IS 'The message with its values taken out.';

CREATE TABLE learnsink.rejection_fault (
  seq bigint NOT NULL,
  fault bigint NOT NULL,
  subject bigint,
  value bigint,
  sender bigint NOT NULL,
  topic bigint NOT NULL,
  rejected_at timestamptz NOT NULL,
  partition integer NOT NULL,
  state "char" NOT NULL,
  PRIMARY KEY (seq, fault)
);
-- Lists are in the order of rejected_at and seq, by whatever they are asked for.
CREATE INDEX rejection_fault_list ON learnsink.rejection_fault (fault, state, rejected_at, seq);
CREATE INDEX rejection_fault_value ON learnsink.rejection_fault (value, state, rejected_at, seq) WHERE value IS NOT NULL;
COMMENT ON TABLE learnsink.rejection_fault IS 'What is wrong with each rejection, a line each. Kept by triggers of rejection. No text of a row: digests.';
COMMENT ON COLUMN learnsink.rejection_fault.value IS 'The digest of the error''s value; of registration_not_found, which has none, that of the registration.';
COMMENT ON COLUMN learnsink.rejection_fault.state IS 'rejection.state by its first letter; resolved is d (done).';

-- +goose StatementBegin
CREATE FUNCTION learnsink.state_letter(state text) RETURNS "char" LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (CASE state WHEN 'open' THEN 'o' WHEN 'replaying' THEN 'r' WHEN 'waiting' THEN 'w' WHEN 'resolved' THEN 'd'
  WHEN 'superseded' THEN 's' WHEN 'quarantined' THEN 'q' WHEN 'archived' THEN 'a' WHEN 'erased' THEN 'e' END)::"char";
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION learnsink.faults_of(action text, errors jsonb, registration bigint)
RETURNS TABLE (fault bigint, code text, field text, message text, value bigint) LANGUAGE sql STABLE PARALLEL SAFE AS $$
SELECT ('x' || left(encode(sha256(convert_to(action || E'\n' || e.code || E'\n' || e.field || E'\n' || e.message, 'UTF8')), 'hex'), 12))::bit(48)::bigint,
  e.code, e.field, e.message, CASE WHEN e.code = 'registration_not_found' THEN registration ELSE learnsink.digest(nullif(e.value, '')) END
FROM (
  SELECT e ->> 'code' AS code, CASE WHEN length(e ->> 'field') > 80 THEN left(e ->> 'field', 80) || '…' ELSE coalesce(e ->> 'field', '') END AS field,
    learnsink.message_template(e ->> 'code', e ->> 'field', e ->> 'value', e ->> 'message') AS message, e ->> 'value' AS value
  FROM jsonb_array_elements(errors) AS e) AS e
$$;
-- +goose StatementEnd

-- Apply brings the lines of what it inserts along (store/rejection.go: quicker by far than digests in SQL), and the
-- trigger finds them there; those of whoever else inserts are made here. The settings: a plan that is kept was made for
-- the tables as they were, empty at first. EXECUTE plans anew, which would take too long where there is nothing to do.
-- +goose StatementBegin
CREATE FUNCTION learnsink.rejection_written() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    PERFORM FROM written LIMIT 1;
    IF NOT FOUND THEN RETURN NULL; END IF;
    PERFORM set_config('enable_hashjoin', 'on', true);
    EXECUTE 'UPDATE learnsink.rejection_fault f SET state = learnsink.state_letter(n.state)
      FROM written n JOIN gone g USING (id) WHERE f.seq = n.seq AND n.state <> g.state';
    EXECUTE 'DELETE FROM learnsink.rejection_fault f USING gone g JOIN written n USING (id)
      WHERE f.seq = g.seq AND (n.seq, n.errors, n.rejected_at, n.subject, n.registration) IS DISTINCT FROM (g.seq, g.errors, g.rejected_at, g.subject, g.registration)';
  END IF;
  IF TG_OP = 'INSERT' THEN -- whoever brings the lines of one brings those of all
    PERFORM FROM (SELECT seq FROM written LIMIT 1) n WHERE NOT EXISTS (SELECT FROM learnsink.rejection_fault k WHERE k.seq = n.seq);
  ELSE
    PERFORM FROM written n WHERE NOT EXISTS (SELECT FROM learnsink.rejection_fault k WHERE k.seq = n.seq) LIMIT 1;
  END IF;
  IF NOT FOUND THEN RETURN NULL; END IF;
  EXECUTE 'WITH one AS MATERIALIZED (
      SELECT n.seq, f.*, n.subject, learnsink.digest(n.sender) AS sender, learnsink.digest(n.source_topic) AS topic,
        n.rejected_at, n.source_partition, learnsink.state_letter(n.state) AS state, n.action
      FROM written n CROSS JOIN LATERAL learnsink.faults_of(n.action, n.errors, n.registration) AS f
      WHERE NOT EXISTS (SELECT FROM learnsink.rejection_fault k WHERE k.seq = n.seq)),
    known AS (
      INSERT INTO learnsink.fault (id, action, code, field, message)
      SELECT DISTINCT o.fault, o.action, o.code, o.field, o.message FROM one o
      WHERE NOT EXISTS (SELECT FROM learnsink.fault k WHERE k.id = o.fault) ORDER BY o.fault
      ON CONFLICT (id) DO NOTHING)
    INSERT INTO learnsink.rejection_fault (seq, fault, subject, value, sender, topic, rejected_at, partition, state)
    SELECT seq, fault, subject, value, sender, topic, rejected_at, source_partition, state FROM one
    ON CONFLICT (seq, fault) DO NOTHING';
  RETURN NULL;
END $$;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE FUNCTION learnsink.rejection_gone() RETURNS trigger LANGUAGE plpgsql
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
  DELETE FROM learnsink.rejection_fault f USING gone g WHERE f.seq = g.seq;
  RETURN NULL;
END $$;
-- +goose StatementEnd

-- What is there already is brought up to this as far as SQL can. It cannot fold letters beyond ASCII (handlers.Fold):
-- the names of older lines that hold such in capitals are found, and counted, as they were written. Of rows that are no
-- JSON to PostgreSQL (a fault somewhere, or U+0000) it reads no name at all, where Go reads those before the fault.
-- +goose StatementBegin
CREATE FUNCTION learnsink.row_of(value bytea) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE r jsonb;
BEGIN
  r := convert_from(value, 'UTF8')::jsonb;
  RETURN CASE jsonb_typeof(r) WHEN 'object' THEN r ELSE '{}' END;
EXCEPTION WHEN OTHERS THEN
  RETURN '{}';
END $$;
CREATE FUNCTION learnsink.folded(text) RETURNS text LANGUAGE sql IMMUTABLE
RETURN translate(nullif(btrim($1), ''), 'ABCDEFGHIJKLMNOPQRSTUVWXYZ', 'abcdefghijklmnopqrstuvwxyz');
UPDATE learnsink.rejection r SET
  seq = o.seq,
  sender = coalesce(o.sender, ''),
  names = array_remove(CASE WHEN r.action = 'tracking'
    THEN ARRAY[learnsink.digest(learnsink.folded(v ->> 'candidateLogin')), learnsink.digest(nullif(btrim(v ->> 'candidateRefNumber'), '')), learnsink.digest(learnsink.folded(v ->> 'candidateEmail'))]
    ELSE ARRAY[learnsink.digest(E'teacher\n' || learnsink.folded(v ->> 'teacherLogin'))] END || learnsink.digest(E'sender\n' || o.sender), NULL),
  subject = learnsink.digest(CASE WHEN r.action = 'tracking'
    THEN coalesce(learnsink.folded(v ->> 'candidateLogin'), nullif(btrim(v ->> 'candidateRefNumber'), ''), learnsink.folded(v ->> 'candidateEmail'))
    ELSE learnsink.folded(v ->> 'interventionGuid') END),
  registration = CASE WHEN r.action = 'tracking' THEN learnsink.digest((
    SELECT CASE WHEN bool_or(i <= 3) AND bool_or(i > 3) THEN string_agg(name || ' ' || CASE WHEN length(said) > 80 THEN left(said, 80) || '…' ELSE said END, ', ' ORDER BY i) END
    FROM unnest('{candidateLogin,candidateRefNumber,candidateEmail,sessionGuid,sessionId,sessionTitle,trainingPathCode,trainingId}'::text[]) WITH ORDINALITY AS c(name, i)
    CROSS JOIN LATERAL (SELECT CASE WHEN name IN ('candidateLogin', 'candidateEmail', 'sessionGuid') THEN learnsink.folded(v ->> name) ELSE nullif(btrim(v ->> name), '') END AS said) t
    WHERE said IS NOT NULL)) END
FROM (SELECT id, learnsink.row_of(value) AS v,
  (SELECT nullif(h ->> 'value', '') FROM jsonb_array_elements(headers) WITH ORDINALITY AS h(h, i) WHERE h ->> 'key' = 'ce_source' ORDER BY i DESC LIMIT 1) AS sender,
  row_number() OVER (ORDER BY rejected_at, source_topic, source_partition, source_offset) AS seq FROM learnsink.rejection) AS o WHERE o.id = r.id;
WITH one AS (
  SELECT n.seq, f.*, n.subject, learnsink.digest(n.sender) AS sender, learnsink.digest(n.source_topic) AS topic,
    n.rejected_at, n.source_partition, learnsink.state_letter(n.state) AS state, n.action
  FROM learnsink.rejection n CROSS JOIN LATERAL learnsink.faults_of(n.action, n.errors, n.registration) AS f),
known AS (
  INSERT INTO learnsink.fault (id, action, code, field, message)
  SELECT DISTINCT fault, action, code, field, message FROM one ON CONFLICT (id) DO NOTHING)
INSERT INTO learnsink.rejection_fault (seq, fault, subject, value, sender, topic, rejected_at, partition, state)
SELECT seq, fault, subject, value, sender, topic, rejected_at, source_partition, state FROM one ON CONFLICT DO NOTHING;
ALTER TABLE learnsink.rejection ALTER COLUMN seq SET NOT NULL, ALTER COLUMN seq ADD GENERATED BY DEFAULT AS IDENTITY (INCREMENT BY 1048576); -- a batch takes one, and counts on from it
SELECT setval('learnsink.rejection_seq_seq', (coalesce(max(seq), 0) / 1048576 + 1) * 1048576, false) FROM learnsink.rejection;
DROP FUNCTION learnsink.row_of(bytea);
DROP FUNCTION learnsink.folded(text);
-- +goose StatementEnd

-- Of an erased person's row the digests go, whoever erases it.
-- +goose StatementBegin
CREATE FUNCTION learnsink.rejection_erased() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.names := '{}';
  NEW.subject := NULL;
  NEW.registration := NULL;
  RETURN NEW;
END $$;
-- +goose StatementEnd
CREATE TRIGGER rejection_erased BEFORE UPDATE ON learnsink.rejection
  FOR EACH ROW WHEN (NEW.state = 'erased' AND OLD.state <> 'erased') EXECUTE FUNCTION learnsink.rejection_erased();

CREATE TRIGGER rejection_inserted AFTER INSERT ON learnsink.rejection REFERENCING NEW TABLE AS written
  FOR EACH STATEMENT EXECUTE FUNCTION learnsink.rejection_written();
CREATE TRIGGER rejection_updated AFTER UPDATE ON learnsink.rejection REFERENCING NEW TABLE AS written OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION learnsink.rejection_written();
CREATE TRIGGER rejection_deleted AFTER DELETE ON learnsink.rejection REFERENCING OLD TABLE AS gone
  FOR EACH STATEMENT EXECUTE FUNCTION learnsink.rejection_gone();

CREATE UNIQUE INDEX rejection_seq ON learnsink.rejection (seq);
CREATE INDEX rejection_list ON learnsink.rejection (state, rejected_at, seq);
CREATE INDEX rejection_names ON learnsink.rejection USING gin (names);
CREATE INDEX rejection_of_job ON learnsink.rejection (job, rejected_at, seq) WHERE job IS NOT NULL;
DROP INDEX learnsink.rejection_state;
DROP INDEX learnsink.rejection_codes;
