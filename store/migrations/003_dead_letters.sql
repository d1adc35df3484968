-- +goose Up
-- Dead letters one can work with: what waits, what is replayed, and the jobs that send rows again.

-- ---------------------------------------------------------------- the waiting room

ALTER TABLE learnsink.position
  ADD COLUMN waiting bigint NOT NULL DEFAULT 0,
  DROP CONSTRAINT position_sum,
  ADD CONSTRAINT position_sum CHECK (first_offset + accepted + rejected + waiting + skipped = next_offset);
COMMENT ON COLUMN learnsink.position.waiting IS 'Rows that went into the waiting room: what becomes of them is counted where they are judged again, on the replay topic.';
COMMENT ON COLUMN learnsink.position.next_offset IS 'The next offset to apply: first_offset + accepted + rejected + waiting + skipped.';

ALTER TABLE learnsink.ledger ADD COLUMN waiting integer NOT NULL DEFAULT 0;

-- ---------------------------------------------------------------- dead letters and their attempts

ALTER TABLE learnsink.rejection
  ADD COLUMN replay_of text COLLATE "C",
  ADD COLUMN job bigint,
  ADD COLUMN history jsonb NOT NULL DEFAULT '[]',
  ADD COLUMN judged_by text COLLATE "C",
  ADD COLUMN settled_at timestamptz,
  ADD COLUMN settled_by text COLLATE "C",
  ADD COLUMN waits_for text[] COLLATE "C",
  ADD COLUMN deadline timestamptz;
CREATE INDEX rejection_replay_of ON learnsink.rejection (replay_of) WHERE replay_of IS NOT NULL;
COMMENT ON COLUMN learnsink.rejection.attempt IS 'How often the row has been judged so far; of an attempt''s own line, which it was.';
COMMENT ON COLUMN learnsink.rejection.replay_of IS 'This line is an attempt: the id of the dead letter that was replayed. Its state is archived; the work goes on with that dead letter.';
COMMENT ON COLUMN learnsink.rejection.job IS 'The job that has sent the row again last.';
COMMENT ON COLUMN learnsink.rejection.history IS 'What was said of the row by the attempts before the last: [{"attempt", "at", "id", "job"?, "codes", "errors"}], oldest first. codes and errors are of the last.';
COMMENT ON COLUMN learnsink.rejection.judged_by IS 'The id of the attempt that codes and errors are of; NULL: of the first, its own.';
COMMENT ON COLUMN learnsink.rejection.settled_at IS 'When it was resolved or superseded.';
COMMENT ON COLUMN learnsink.rejection.settled_by IS 'The id of the outcome that did so.';
-- One row tells of all that wait for the same: they are found by it, each in its order; and by when they are to go.
CREATE INDEX rejection_waits_for ON learnsink.rejection (waits_for, source_topic, source_partition, incarnation, source_offset) WHERE state = 'waiting';
CREATE INDEX rejection_deadline ON learnsink.rejection (deadline) WHERE state = 'waiting';
CREATE INDEX rejection_waiting ON learnsink.rejection (source_topic, rejected_at) WHERE state = 'waiting';
COMMENT ON COLUMN learnsink.rejection.waits_for IS 'waiting: what is missing, such as {session guid s-12}. It stays once the row has been released. Personal data, where it names a learner.';
COMMENT ON COLUMN learnsink.rejection.deadline IS 'waiting: when it becomes an ordinary dead letter. By the clock: so long after it came in. It stays once the row has been released, and tells that it has waited.';

-- ---------------------------------------------------------------- jobs

CREATE TABLE learnsink.job (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  kind text COLLATE "C" NOT NULL,
  state text COLLATE "C" NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'paused', 'cancelled', 'done')),
  actor text NOT NULL,
  why text NOT NULL DEFAULT '',
  selection jsonb NOT NULL DEFAULT '{}',
  rate integer NOT NULL CHECK (rate > 0),
  items bigint NOT NULL,
  sent bigint NOT NULL DEFAULT 0,
  created_at timestamptz NOT NULL DEFAULT now(),
  ended_at timestamptz
);
CREATE INDEX job_running ON learnsink.job (id) WHERE state = 'running';
COMMENT ON TABLE learnsink.job IS 'Rows that are to be sent again: a frozen list (job_item), put onto the replay topic by serve. Done: all are sent.';
COMMENT ON COLUMN learnsink.job.kind IS 'replay, edit, revert, release.';
COMMENT ON COLUMN learnsink.job.selection IS 'What was asked for. No data of rows.';
COMMENT ON COLUMN learnsink.job.sent IS 'So many items have gone, the first by seq: sent, or dropped.';
COMMENT ON COLUMN learnsink.job.rate IS 'Rows a second, at most.';

CREATE TABLE learnsink.job_item (
  job bigint NOT NULL REFERENCES learnsink.job ON DELETE CASCADE,
  seq bigint NOT NULL,
  rejection text COLLATE "C",
  source_topic text COLLATE "C" NOT NULL,
  event_at timestamptz NOT NULL,
  key bytea,
  value bytea,
  headers jsonb,
  overwrite text COLLATE "C",
  edit jsonb,
  state text COLLATE "C" NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'sent', 'accepted', 'rejected', 'superseded', 'dropped')),
  outcome text COLLATE "C",
  PRIMARY KEY (job, seq)
);
CREATE INDEX job_item_rejection ON learnsink.job_item (rejection) WHERE rejection IS NOT NULL;
COMMENT ON TABLE learnsink.job_item IS 'A row of a job. Personal data, where it has a value of its own.';
COMMENT ON COLUMN learnsink.job_item.rejection IS 'The dead letter; NULL: a row of learnsink''s own (revert).';
COMMENT ON COLUMN learnsink.job_item.value IS 'What is sent; NULL with a rejection: key, value and headers as that has them.';
COMMENT ON COLUMN learnsink.job_item.overwrite IS 'What was seen to be stored, which this row wins over though it is older.';
COMMENT ON COLUMN learnsink.job_item.edit IS 'The patch that made the value.';
COMMENT ON COLUMN learnsink.job_item.outcome IS 'The id of the outcome.';

CREATE TABLE learnsink.dispatcher (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  cluster_id text NOT NULL DEFAULT '',
  epoch bigint NOT NULL DEFAULT 0,
  next bigint NOT NULL DEFAULT 0,
  round integer NOT NULL DEFAULT 1,
  reason text NOT NULL DEFAULT ''
);
INSERT INTO learnsink.dispatcher DEFAULT VALUES;
COMMENT ON TABLE learnsink.dispatcher IS 'One row: who puts the items of jobs onto the replay topic (epoch, the fence), and how many have gone.';
COMMENT ON COLUMN learnsink.dispatcher.reason IS 'Why nothing of the running jobs is sent; empty: it is.';
