package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"learnsink/handlers"
	"learnsink/store/catalogue"
)

// staging makes the tables that a kind's lines are copied into.
var staging = map[catalogue.Kind]string{
	catalogue.Learners:        `CREATE TEMP TABLE load_learners (place bigint, login text, login_folded text COLLATE "C", ref_number text COLLATE "C", email text, email_folded text COLLATE "C", created_at timestamptz) ON COMMIT DROP`,
	catalogue.LearningObjects: `CREATE TEMP TABLE load_learning_objects (place bigint, guid text, guid_folded text COLLATE "C", code text COLLATE "C", title text, provider text) ON COMMIT DROP`,
	catalogue.Trainings:       `CREATE TEMP TABLE load_trainings (place bigint, id bigint, guid text, guid_folded text COLLATE "C", path_code text COLLATE "C", title text) ON COMMIT DROP`,
	catalogue.Sessions:        `CREATE TEMP TABLE load_sessions (place bigint, id bigint, training_id bigint, guid text, guid_folded text COLLATE "C", title text COLLATE "C") ON COMMIT DROP`,
	catalogue.Registrations: `CREATE TEMP TABLE load_registrations (place bigint, login text COLLATE "C", ref text COLLATE "C", email text COLLATE "C", session_guid text COLLATE "C", session_id bigint, key bytea) ON COMMIT DROP;
CREATE TEMP TABLE load_resolved (place bigint, learner_id integer, session_id bigint) ON COMMIT DROP`,
	catalogue.Teachers: `CREATE TEMP TABLE load_teachers (place bigint, login text, login_folded text COLLATE "C") ON COMMIT DROP`,
	catalogue.Rooms:    `CREATE TEMP TABLE load_rooms (place bigint, guid text, guid_folded text COLLATE "C", label text, capacity integer) ON COMMIT DROP`,
}

// staged are the columns of the staging tables in the order of cells.
var staged = map[catalogue.Kind][]string{
	catalogue.Learners:        {"place", "login", "login_folded", "ref_number", "email", "email_folded", "created_at"},
	catalogue.LearningObjects: {"place", "guid", "guid_folded", "code", "title", "provider"},
	catalogue.Trainings:       {"place", "id", "guid", "guid_folded", "path_code", "title"},
	catalogue.Sessions:        {"place", "id", "training_id", "guid", "guid_folded", "title"},
	catalogue.Registrations:   {"place", "login", "ref", "email", "session_guid", "session_id", "key"},
	catalogue.Teachers:        {"place", "login", "login_folded"},
	catalogue.Rooms:           {"place", "guid", "guid_folded", "label", "capacity"},
}

// block is a stretch of good lines of one kind, as COPY reads them.
type block struct {
	kind catalogue.Kind
	rows copyRows
}

// A block is closed at so many bytes; what pgconn sends at once is a little less.
const blockBytes = 64 << 10

// stage copies every good line into its kind's staging table: one goroutine
// reads and encodes what another one sends.
func (l *load) stage(ctx context.Context) error {
	for _, kind := range l.folder.Kinds() {
		l.counts[kind] = &LoadCount{Kind: kind}
	}
	blocks, quit := make(chan block, 16), make(chan struct{})
	read := make(chan error, 1)
	go func() {
		defer close(blocks)
		read <- l.encode(blocks, quit)
	}()
	err := l.copy(ctx, blocks)
	close(quit)
	if readErr := <-read; readErr != nil && readErr != errStopped {
		return readErr
	}
	return err
}

// errStopped ends a read whose lines nobody wants any more.
var errStopped = errors.New("stopped")

// encode reads the folder.
func (l *load) encode(blocks chan<- block, quit <-chan struct{}) error {
	var b block
	flush := func() error {
		if len(b.rows) == 0 {
			return nil
		}
		select {
		case blocks <- b:
		case <-quit:
			return errStopped
		}
		b.rows = make(copyRows, 0, blockBytes+4096)
		return nil
	}
	err := l.folder.Read(func(line catalogue.Line) error {
		place := l.place(&line)
		if line.Bad != "" {
			l.fault(line.Kind, place, line.Bad)
			return nil
		}
		if l.ofErased(&line) {
			l.counts[line.Kind].Erased++
			return nil
		}
		if line.Kind != b.kind || len(b.rows) >= blockBytes {
			if err := flush(); err != nil {
				return err
			}
			b.kind = line.Kind
		}
		l.counts[line.Kind].Lines++
		l.appendLine(&b.rows, place, &line)
		return nil
	})
	if err != nil {
		return err
	}
	return flush()
}

func (s *said) note(r *catalogue.Registration) {
	switch {
	case r.LearnerLogin != "":
		s.by[byLogin]++
		if r.LearnerRefNumber != "" || r.LearnerEmail != "" {
			s.several++
		}
	case r.LearnerRefNumber != "":
		s.by[byRefNumber]++
	default:
		s.by[byEmail]++
	}
	if r.SessionID != 0 {
		s.sessionIDs++
	}
}

// appendLine appends a good line as its staging table has it. What is absent is NULL.
func (l *load) appendLine(c *copyRows, place int64, line *catalogue.Line) {
	c.row(len(staged[line.Kind]))
	c.bigint(place)
	switch {
	case line.Learner != nil:
		r := line.Learner
		c.text(r.Login)
		c.text(handlers.Fold(r.Login))
		c.optional(r.RefNumber)
		c.optional(r.Email)
		c.optional(handlers.Fold(r.Email))
		c.timestamp(r.CreatedAt)
	case line.LearningObject != nil:
		r := line.LearningObject
		c.text(r.GUID)
		c.text(handlers.Fold(r.GUID))
		c.optional(r.Code)
		c.optional(r.Title)
		c.text(string(r.Provider))
	case line.Training != nil:
		r := line.Training
		c.bigint(r.ID)
		c.optional(r.GUID)
		c.optional(handlers.Fold(r.GUID))
		c.optional(r.PathCode)
		c.optional(r.Title)
	case line.Session != nil:
		r := line.Session
		c.bigint(r.ID)
		c.bigint(r.TrainingID)
		c.optional(r.GUID)
		c.optional(handlers.Fold(r.GUID))
		c.optional(r.Title)
	case line.Registration != nil:
		r := line.Registration
		l.says.note(r)
		c.optional(handlers.Fold(r.LearnerLogin))
		c.optional(r.LearnerRefNumber)
		c.optional(handlers.Fold(r.LearnerEmail))
		c.optional(handlers.Fold(r.SessionGUID))
		if r.SessionID == 0 {
			c.null()
		} else {
			c.bigint(r.SessionID)
		}
		if l.events == nil {
			c.null()
		} else {
			c.bytes(waitingKey(line))
		}
	case line.Teacher != nil:
		c.text(line.Teacher.Login)
		c.text(handlers.Fold(line.Teacher.Login))
	case line.Room != nil:
		r := line.Room
		c.text(r.GUID)
		c.text(handlers.Fold(r.GUID))
		c.optional(r.Label)
		c.integer(r.Capacity)
	}
}

// copyRows are rows in PostgreSQL's binary COPY format. (pgx would box every
// value, and look its type up.)
type copyRows []byte

const (
	copyBegin = "PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" // signature, flags, length of the extension
	copyEnd   = "\xff\xff"
)

// row begins a row of so many values.
func (c *copyRows) row(values int) { *c = binary.BigEndian.AppendUint16(*c, uint16(values)) }

func (c *copyRows) bigint(v int64) {
	*c = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(*c, 8), uint64(v))
}

func (c *copyRows) text(v string) {
	*c = append(binary.BigEndian.AppendUint32(*c, uint32(len(v))), v...)
}

func (c *copyRows) bytes(v []byte) {
	*c = append(binary.BigEndian.AppendUint32(*c, uint32(len(v))), v...)
}

func (c *copyRows) null() { *c = append(*c, "\xff\xff\xff\xff"...) }

// optional appends a text; "" is NULL.
func (c *copyRows) optional(v string) {
	if v == "" {
		c.null()
		return
	}
	c.text(v)
}

func (c *copyRows) integer(v handlers.Opt[int32]) {
	if !v.OK {
		c.null()
		return
	}
	*c = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(*c, 4), uint32(v.V))
}

// PostgreSQL counts microseconds from 2000 on.
var copyEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

func (c *copyRows) timestamp(v handlers.Opt[time.Time]) {
	if !v.OK {
		c.null()
		return
	}
	c.bigint(v.V.UnixMicro() - copyEpoch)
}

// copy sends blocks, one COPY a kind.
func (l *load) copy(ctx context.Context, blocks <-chan block) error {
	from := &blockReader{blocks: blocks}
	for from.next() {
		kind := from.block.kind
		l.step("reading %s", kind)
		from.begin()
		sql := fmt.Sprintf("COPY load_%s (%s) FROM STDIN (FORMAT binary)", kind, strings.Join(staged[kind], ", "))
		if _, err := l.tx.Conn().PgConn().CopyFrom(ctx, from, sql); err != nil {
			return err
		}
		if kind == catalogue.Registrations {
			continue // how many there are the planner sees, and there is one way to join them
		}
		if err := l.exec(ctx, "ANALYZE load_"+string(kind)); err != nil {
			return err
		}
	}
	return nil
}

// blockReader reads blocks, of one kind at a time, with what COPY wants before
// and after them.
type blockReader struct {
	blocks <-chan block
	block  block // at hand; without rows where there are no more blocks
	kind   catalogue.Kind
	rest   []byte // not yet read of what goes before the next block
	ended  bool   // the kind's trailer is in rest, or was
}

// next reports whether there is another block.
func (r *blockReader) next() bool {
	if len(r.block.rows) == 0 {
		r.block = <-r.blocks
	}
	return len(r.block.rows) > 0
}

// begin begins with the kind of the block at hand.
func (r *blockReader) begin() { r.kind, r.rest, r.ended = r.block.kind, []byte(copyBegin), false }

func (r *blockReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		switch {
		case r.ended:
			return 0, io.EOF
		case r.next() && r.block.kind == r.kind:
			r.rest, r.block.rows = r.block.rows, nil
		default:
			r.rest, r.ended = []byte(copyEnd), true
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
