package store

import (
	"cmp"
	"encoding/json"
	"slices"
	"time"
	"unicode/utf8"

	"learnsink/handlers"
)

// Bounds of a ledger line: senders are whatever the records say.
const (
	ledgerSenders    = 200 // of a batch; the rest are counted under otherSenders
	ledgerSenderText = 200 // characters
	otherSenders     = "…"
)

// outcomeErased is what ledger.counts calls rows of persons who were erased.
// Their offsets are skipped ones: nothing else is left of them.
const outcomeErased = "erased"

const insertLedger = `
INSERT INTO learnsink.ledger (topic, partition, from_offset, to_offset, action, rules, accepted, rejected, waiting, skipped, counts, round, incarnation)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11::text::jsonb, $12, $13)`

// count is one member of ledger.counts.
type count struct {
	Sender  string `json:"sender"`
	Day     string `json:"day"`
	Outcome string `json:"outcome"`
	Code    string `json:"code,omitempty"`
	Rows    int    `json:"rows"`
}

// ledgerLine returns the arguments of insertLedger for a settled batch.
func ledgerLine(b *handlers.Batch, w *writes) []any {
	// What is counted is put into words once for all rows of a kind; rows of a
	// kind mostly follow each other.
	type kind struct {
		sender  string // as the line has it
		day     int64  // since 1970
		verdict handlers.Verdict
		code    handlers.Code
	}
	senders := map[string]string{} // as the records say -> as the line does
	rows := map[kind]*int{}
	var last kind
	var n *int
	for i := range b.Decisions {
		d := &b.Decisions[i]
		k := kind{verdict: d.Verdict, day: floorDiv(d.EventTime.Unix(), 24*60*60)}
		switch d.Verdict {
		case handlers.Accepted:
		case handlers.Rejected, handlers.Waits: // what it would be rejected for
			k.code = d.Errors[0].Code
		case handlers.Gone:
		default:
			continue
		}
		said, _ := d.Record.Header(handlers.SenderHeader)
		sender, ok := senders[string(said)]
		if !ok {
			sender = otherSenders
			if len(senders) < ledgerSenders {
				sender = cut(storable(d.Sender()), ledgerSenderText)
				senders[string(said)] = sender
			}
		}
		if k.sender = sender; n == nil || k != last {
			if last, n = k, rows[k]; n == nil {
				n = new(int)
				rows[k] = n
			}
		}
		*n++
	}
	counts := make([]count, 0, len(rows))
	for k, n := range rows {
		outcome := "accepted"
		switch k.verdict {
		case handlers.Rejected:
			outcome = "rejected"
		case handlers.Gone:
			outcome = outcomeErased
		case handlers.Waits:
			outcome = "waiting"
		}
		counts = append(counts, count{k.sender, time.Unix(k.day*24*60*60, 0).UTC().Format("2006-01-02"), outcome, string(k.code), *n})
	}
	slices.SortFunc(counts, func(a, b count) int {
		return cmp.Or(cmp.Compare(a.Day, b.Day), cmp.Compare(a.Sender, b.Sender), cmp.Compare(a.Outcome, b.Outcome), cmp.Compare(a.Code, b.Code))
	})
	text, _ := json.Marshal(counts) // strings and numbers alone: cannot fail
	return []any{b.Source.Topic, b.Partition, b.From, b.To, string(b.Source.Rules.Action()), b.Source.Rules.Hash(),
		w.accepted, w.rejected, w.waiting, w.skipped, string(text), max(b.Round, 1), max(b.Incarnation, 1)}
}

// cut returns the first n characters of a text.
func cut(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n])
}

// floorDiv divides, rounding down: times before 1970 are of a day before it.
func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}
