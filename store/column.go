package store

import (
	"context"
	"encoding/binary"
	"math"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"

	"learnsink/handlers"
)

// column is an array of values, written in PostgreSQL's binary form as the
// values come: the argument of a statement for a batch of rows. pgx's own
// codecs would ask every value what it is; for a million rows of tracking that
// took 3 s of CPU, and this takes half a second.
type column struct {
	element uint32 // the OID of the values' type
	n       int
	nulls   bool
	values  []byte // each with its length in front, -1 for NULL
}

func columnOf(element uint32, rows, bytes int) column {
	return column{element: element, values: make([]byte, 0, rows*(4+bytes))}
}

func (c *column) null() {
	c.n, c.nulls = c.n+1, true
	c.values = append(c.values, 0xff, 0xff, 0xff, 0xff)
}

func (c *column) int64(v int64) {
	c.n++
	c.values = binary.BigEndian.AppendUint64(append(c.values, 0, 0, 0, 8), uint64(v))
}

func (c *column) int32(v int32) {
	c.n++
	c.values = binary.BigEndian.AppendUint32(append(c.values, 0, 0, 0, 4), uint32(v))
}

func (c *column) bool(v bool) {
	c.n++
	b := byte(0)
	if v {
		b = 1
	}
	c.values = append(c.values, 0, 0, 0, 1, b)
}

func (c *column) text(v string) {
	c.n++
	c.values = append(binary.BigEndian.AppendUint32(c.values, uint32(len(v))), v...)
}

func (c *column) float(v handlers.Opt[float64]) {
	if !v.OK {
		c.null()
		return
	}
	c.int64(int64(math.Float64bits(v.V))) // the same bytes
}

// epoch is where PostgreSQL's time begins, in Unix microseconds: 2000-01-01.
const epoch = 946_684_800_000_000

func (c *column) time(v time.Time) { c.int64(v.UnixMicro() - epoch) }

func (c *column) optTime(v handlers.Opt[time.Time]) {
	if !v.OK {
		c.null()
		return
	}
	c.time(v.V)
}

// columnCodec lets a *column pass as the array that it is, and leaves all else
// to the codec of the array's type.
type columnCodec struct{ pgtype.Codec }

// PlanEncode is pgtype.Codec's.
func (c columnCodec) PlanEncode(m *pgtype.Map, oid uint32, format int16, value any) pgtype.EncodePlan {
	if _, ok := value.(*column); ok {
		if format != pgtype.BinaryFormatCode {
			return nil
		}
		return columnPlan{}
	}
	return c.Codec.PlanEncode(m, oid, format, value)
}

type columnPlan struct{}

// Encode is pgtype.EncodePlan's: the array's header, and the values.
func (columnPlan) Encode(value any, buf []byte) ([]byte, error) {
	c := value.(*column)
	put := binary.BigEndian
	if c.n == 0 {
		return append(put.AppendUint64(buf, 0), byte(c.element>>24), byte(c.element>>16), byte(c.element>>8), byte(c.element)), nil
	}
	nulls := uint32(0)
	if c.nulls {
		nulls = 1
	}
	buf = put.AppendUint32(buf, 1) // dimension
	buf = put.AppendUint32(buf, nulls)
	buf = put.AppendUint32(buf, c.element)
	buf = put.AppendUint32(buf, uint32(c.n))
	buf = put.AppendUint32(buf, 1) // the first index
	return append(buf, c.values...), nil
}

// takeColumns teaches a connection to take a *column wherever an array is wanted.
func takeColumns(_ context.Context, conn *pgx.Conn) error {
	m := conn.TypeMap()
	for _, oid := range []uint32{pgtype.Int8ArrayOID, pgtype.Int4ArrayOID, pgtype.TextArrayOID, pgtype.Float8ArrayOID, pgtype.TimestamptzArrayOID, pgtype.BoolArrayOID} {
		if t, ok := m.TypeForOID(oid); ok {
			m.RegisterType(&pgtype.Type{Name: t.Name, OID: oid, Codec: columnCodec{t.Codec}})
		}
	}
	return nil
}
