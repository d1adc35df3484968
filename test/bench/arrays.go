package main

import (
	"encoding/binary"
	"math"
	"time"
)

// array is a one-dimensional array in PostgreSQL's binary format, under
// construction. Nothing of pgx's codecs is in it.
type array struct {
	text  []byte
	n     uint32
	nulls bool
}

const arrayHead = 20 // dimensions, whether there are nulls, type, length, first index

func newArray(oid uint32) *array {
	a := &array{text: make([]byte, arrayHead)}
	binary.BigEndian.PutUint32(a.text[0:], 1)
	binary.BigEndian.PutUint32(a.text[8:], oid)
	binary.BigEndian.PutUint32(a.text[16:], 1)
	return a
}

func (a *array) null() {
	a.n++
	a.nulls = true
	a.text = binary.BigEndian.AppendUint32(a.text, math.MaxUint32)
}

func (a *array) int4(v int32) {
	a.n++
	a.text = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(a.text, 4), uint32(v))
}

func (a *array) int8(v int64) {
	a.n++
	a.text = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint32(a.text, 8), uint64(v))
}

func (a *array) float8(v float64) { a.int8(int64(math.Float64bits(v))) }

func (a *array) bool(v bool) {
	a.n++
	a.text = binary.BigEndian.AppendUint32(a.text, 1)
	if v {
		a.text = append(a.text, 1)
	} else {
		a.text = append(a.text, 0)
	}
}

func (a *array) string(v string) {
	a.n++
	a.text = append(binary.BigEndian.AppendUint32(a.text, uint32(len(v))), v...)
}

// epoch is PostgreSQL's.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

func (a *array) time(v time.Time) {
	if v.IsZero() {
		a.null()
		return
	}
	a.int8(v.UnixMicro() - epoch)
}

// done returns the array.
func (a *array) done() []byte {
	if a.nulls {
		binary.BigEndian.PutUint32(a.text[4:], 1)
	}
	binary.BigEndian.PutUint32(a.text[12:], a.n)
	return a.text
}
