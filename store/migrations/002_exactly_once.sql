-- +goose Up
-- Exactly once: by what a log is known again, how far its outputs are to be believed published, and what operators did.

ALTER TABLE learnsink.position
  ADD COLUMN incarnation integer NOT NULL DEFAULT 1,
  ADD COLUMN round integer NOT NULL DEFAULT 1,
  ADD COLUMN announced_since integer NOT NULL DEFAULT 1,
  ADD COLUMN anchor_offset bigint,
  ADD COLUMN anchor_hash bytea,
  ADD COLUMN breaker_below bigint NOT NULL DEFAULT 0,
  ADD CONSTRAINT position_anchor CHECK ((anchor_offset IS NULL) = (anchor_hash IS NULL));
COMMENT ON COLUMN learnsink.position.incarnation IS 'Which log of this name it is: raised when an operator accepts a topic that was made anew. From 2 on the ids of outcomes carry it.';
COMMENT ON COLUMN learnsink.position.round IS 'Raised whenever an operator sets the position back, or onto another log. first_offset and the counters are this round''s.';
COMMENT ON COLUMN learnsink.position.announced_since IS 'A published marker counts if its round is not below this one: an operator who wants rows published again raises it.';
COMMENT ON COLUMN learnsink.position.anchor_offset IS 'The last record that was applied; anchor_hash is of its timestamp, key and value. A log that holds another record there is another log.';
COMMENT ON COLUMN learnsink.position.breaker_below IS 'The breaker does not count rows below this offset: an operator has let them on.';

ALTER TABLE learnsink.ledger
  ADD COLUMN round integer NOT NULL DEFAULT 1,
  ADD COLUMN incarnation integer NOT NULL DEFAULT 1,
  ADD COLUMN superseded boolean NOT NULL DEFAULT false,
  DROP CONSTRAINT ledger_pkey,
  ADD PRIMARY KEY (topic, partition, round, from_offset);
COMMENT ON TABLE learnsink.ledger IS 'One line for each batch that was applied, or skipped by an operator, kept for ever: what a sender''s own counts can be reconciled with.';
COMMENT ON COLUMN learnsink.ledger.round IS 'The position''s, when the batch was applied; so is incarnation.';
COMMENT ON COLUMN learnsink.ledger.superseded IS 'An operator has set the position back to before this line: a later round counts its rows again.';

ALTER TABLE learnsink.rejection ADD COLUMN incarnation integer NOT NULL DEFAULT 1;
COMMENT ON COLUMN learnsink.rejection.incarnation IS 'Which log of the source topic''s name: position.incarnation.';

CREATE TABLE learnsink.operation (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  done_at timestamptz NOT NULL DEFAULT now(),
  actor text NOT NULL,
  verb text COLLATE "C" NOT NULL,
  topic text COLLATE "C",
  partition integer,
  detail jsonb NOT NULL DEFAULT '{}',
  why text NOT NULL DEFAULT ''
);
CREATE INDEX operation_partition ON learnsink.operation (topic, partition, id);
COMMENT ON TABLE learnsink.operation IS 'What operators did, a line each, written in the transaction that did it.';
COMMENT ON COLUMN learnsink.operation.actor IS 'The user of the machine it was done from; serve where learnsink notes by itself what somebody did to its group.';
COMMENT ON COLUMN learnsink.operation.detail IS 'What changed, from what to what: offsets, rounds, states. No data of rows.';

-- Rows that a later round counts again are counted once.
CREATE OR REPLACE VIEW learnsink.outcome_daily AS
SELECT (c.line ->> 'day')::date AS day, g.topic, g.action, c.line ->> 'sender' AS sender,
       c.line ->> 'outcome' AS outcome, c.line ->> 'code' AS code, sum((c.line ->> 'rows')::bigint)::bigint AS rows
FROM learnsink.ledger g CROSS JOIN LATERAL jsonb_array_elements(g.counts) AS c(line)
WHERE NOT g.superseded
GROUP BY 1, 2, 3, 4, 5, 6;
