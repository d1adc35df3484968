package store

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
)

// table maps texts to ids: open addressing over an arena of texts, some 20
// bytes an entry beside the text. The zero value is empty.
type table struct {
	seed  maphash.Seed
	slots []slot
	n     int
	texts arena
}

type slot struct {
	hash uint32 // 0: empty
	at   uint32
	id   int32
}

// forgotten is the id of a text that has to be asked for again.
const forgotten = -1

func (t *table) bytes() int { return 12*len(t.slots) + t.texts.bytes() }

// grow makes room for n entries.
func (t *table) grow(n int) {
	if n*4 <= len(t.slots)*3 {
		return
	}
	if t.slots == nil {
		t.seed = maphash.MakeSeed()
	}
	old := t.slots
	t.slots = make([]slot, max(64, n*4/3+1, 2*len(old)))
	for _, s := range old {
		if s.hash != 0 {
			i := spread(maphash.Bytes(t.seed, t.texts.get(s.at)), len(t.slots))
			for ; t.slots[i].hash != 0; i = next(i, len(t.slots)) {
			}
			t.slots[i] = s
		}
	}
}

// spread spreads hashes over n slots; next is the slot after i.
func spread(hash uint64, n int) int {
	high, _ := bits.Mul64(hash, uint64(n))
	return int(high)
}

func next(i, n int) int {
	if i++; i == n {
		return 0
	}
	return i
}

// tag is what a slot keeps of a hash; never 0.
func tag(hash uint64) uint32 { return uint32(hash) | 1 }

// get returns the id of a text, which may be forgotten.
func (t *table) get(text string) (id int32, known bool) {
	if s := t.find(text); s != nil {
		return s.id, true
	}
	return 0, false
}

// find returns a text's slot; nil: it has none.
func (t *table) find(text string) *slot {
	if len(t.slots) == 0 {
		return nil
	}
	hash := maphash.String(t.seed, text)
	for i := spread(hash, len(t.slots)); t.slots[i].hash != 0; i = next(i, len(t.slots)) {
		if s := &t.slots[i]; s.hash == tag(hash) && string(t.texts.get(s.at)) == text {
			return s
		}
	}
	return nil
}

// forget forgets every text that means one of ids.
func (t *table) forget(ids ids) {
	for i := range t.slots {
		if s := &t.slots[i]; s.hash != 0 && ids.has(s.id) {
			s.id = forgotten
		}
	}
}

// put adds a text, unless it is there and not forgotten.
func (t *table) put(text string, id int32) {
	if s := t.find(text); s != nil {
		if s.id == forgotten {
			s.id = id
		}
		return
	}
	t.grow(t.n + 1)
	t.n++
	hash := maphash.String(t.seed, text)
	i := spread(hash, len(t.slots))
	for ; t.slots[i].hash != 0; i = next(i, len(t.slots)) {
	}
	t.slots[i] = slot{tag(hash), t.texts.add(text), id}
}

// arena keeps texts one after the other, each with its length in front, in
// pieces that never move.
type arena struct{ pieces [][]byte }

const pieceBits = 18 // of 256 kB

func (a *arena) bytes() int { return len(a.pieces) << pieceBits }

// add returns where the text lies. A text longer than a piece cannot be: what
// rows refer to is 255 characters at most, of several things at most three.
func (a *arena) add(text string) uint32 {
	need := len(text) + binary.MaxVarintLen32
	last := len(a.pieces) - 1
	if last < 0 || cap(a.pieces[last])-len(a.pieces[last]) < need {
		a.pieces = append(a.pieces, make([]byte, 0, max(1<<pieceBits, need)))
		last++
	}
	at := len(a.pieces[last])
	a.pieces[last] = append(binary.AppendUvarint(a.pieces[last], uint64(len(text))), text...)
	return uint32(last)<<pieceBits | uint32(at)
}

func (a *arena) get(at uint32) []byte {
	piece := a.pieces[at>>pieceBits][at&(1<<pieceBits-1):]
	n, head := binary.Uvarint(piece)
	return piece[head : head+int(n)]
}

// chains keep what each learner is registered for: entries that lead from one
// to the next, in pieces that never move, and where each learner's begin: in a
// list by the learner's id where there are nearly as many as ids, else in a
// table. The zero value is empty.
type chains struct {
	first   []uint32 // by learner; nil: heads have it. 0: not known, unknown: not any more, 1: registered for nothing, else the entry + 2
	heads   []head   // open addressing by the learner's id
	known   int
	pages   [][]entry
	entries uint32
}

type head struct {
	learner uint32
	first   uint32 // as in chains.first; 0: nobody's slot
}

type entry struct{ next, place, id uint32 }

// unknown stands for a learner's who is to be asked for again.
const unknown = ^uint32(0)

// fits reports whether a registration's id can be kept: those beyond four
// billion are asked for every time.
func fits(id int64) bool { return id == int64(uint32(id)) }

const entriesOfPage = 1 << 13

func (c *chains) bytes() int { return 4*len(c.first) + 8*len(c.heads) + 12*entriesOfPage*len(c.pages) }

// grow makes room for n learners.
func (c *chains) grow(n int) {
	if n*4 <= len(c.heads)*3 {
		return
	}
	old := c.heads
	c.heads = make([]head, max(64, n*4/3+1, 2*len(old)))
	for _, h := range old {
		if h.first != 0 {
			*c.slot(int64(h.learner)) = h
		}
	}
}

// slot returns a learner's slot, or the empty one where it would be.
func (c *chains) slot(learner int64) *head {
	i := spread(uint64(learner)*0x9e3779b97f4a7c15, len(c.heads)) // neighbours apart
	for ; c.heads[i].first != 0 && c.heads[i].learner != uint32(learner); i = next(i, len(c.heads)) {
	}
	return &c.heads[i]
}

// find returns where a learner's begin; nil: there is no place for them.
func (c *chains) find(learner int64) *uint32 {
	switch {
	case learner < int64(len(c.first)):
		return &c.first[learner]
	case len(c.heads) == 0:
		return nil
	}
	return &c.slot(learner).first
}

// begin makes a learner known; false: it is.
func (c *chains) begin(learner int64) bool {
	if learner >= int64(len(c.first)) {
		c.grow(c.known + 1)
		if h := c.slot(learner); h.first == 0 {
			c.known++
			*h = head{uint32(learner), 1}
			return true
		} else if h.first == unknown {
			h.first = 1
			return true
		}
		return false
	}
	if first := c.first[learner]; first != 0 && first != unknown {
		return false
	}
	c.first[learner] = 1
	return true
}

// add adds to a learner that is known.
func (c *chains) add(learner int64, place uint32, id int64) {
	first := c.find(learner)
	if c.entries%entriesOfPage == 0 {
		c.pages = append(c.pages, make([]entry, entriesOfPage))
	}
	c.pages[c.entries/entriesOfPage][c.entries%entriesOfPage] = entry{*first, place, uint32(id)}
	*first = c.entries + 2
	c.entries++
}

// forget makes a learner unknown.
func (c *chains) forget(learner int64) {
	if first := c.find(learner); first != nil && *first != 0 {
		*first = unknown
	}
}

// each calls f with all of a learner's, the last one added first.
func (c *chains) each(learner int64, f func(place uint32, id int64)) {
	first := c.find(learner)
	if first == nil {
		return
	}
	for at := *first; at > 1 && at != unknown; {
		e := &c.pages[(at-2)/entriesOfPage][(at-2)%entriesOfPage]
		f(e.place, int64(e.id))
		at = e.next
	}
}
