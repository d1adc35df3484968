package main

import "math/bits"

// bitmap is a set of numbers from 0 on, in pages: offsets that an operator
// skips, millions at a time, take no room.
type bitmap map[int64]*[pageWords]uint64

const (
	pageWords = 1 << 10
	pageBits  = pageWords * 64
)

func (m bitmap) set(i int64) {
	page := m[i/pageBits]
	if page == nil {
		page = new([pageWords]uint64)
		m[i/pageBits] = page
	}
	page[i%pageBits/64] |= 1 << (i % 64)
}

func (m bitmap) has(i int64) bool {
	page := m[i/pageBits]
	return page != nil && page[i%pageBits/64]&(1<<(i%64)) != 0
}

// count returns how many numbers of [from, to) are in the set.
func (m bitmap) count(from, to int64) (n int64) {
	for from < to {
		next := min(to, (from/64+1)*64)
		if page := m[from/pageBits]; page == nil {
			next = min(to, (from/pageBits+1)*pageBits)
		} else {
			word := page[from%pageBits/64] >> (from % 64)
			if width := next - from; width < 64 {
				word &= 1<<width - 1
			}
			n += int64(bits.OnesCount64(word))
		}
		from = next
	}
	return n
}

// tally counts how often each number came: the sets of those that came once,
// twice …
type tally []bitmap

func (t *tally) add(i int64) {
	for _, m := range *t {
		if !m.has(i) {
			m.set(i)
			return
		}
	}
	m := bitmap{}
	m.set(i)
	*t = append(*t, m)
}

// of returns how often a number came.
func (t tally) of(i int64) (n int) {
	for n < len(t) && t[n].has(i) {
		n++
	}
	return n
}

// count returns how many numbers of [from, to) came at all.
func (t tally) count(from, to int64) int64 {
	if len(t) == 0 {
		return 0
	}
	return t[0].count(from, to)
}
