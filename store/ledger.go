package store

import (
	"cmp"
	"encoding/json"
	"slices"
	"unicode/utf8"

	"learnsink/handlers"
)

// Bounds of a ledger line: senders are whatever the records say.
const (
	ledgerSenders    = 200 // of a batch; the rest are counted under otherSenders
	ledgerSenderText = 200 // characters
	otherSenders     = "…"
)

const insertLedger = `
INSERT INTO learnsink.ledger (topic, partition, from_offset, to_offset, action, rules, accepted, rejected, skipped, counts, round, incarnation)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text::jsonb, $11, $12)`

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
	senders := map[string]string{} // as the records say -> as the line does
	rows := map[count]int{}
	for i := range b.Decisions {
		d := &b.Decisions[i]
		c := count{Day: d.EventTime.UTC().Format("2006-01-02")}
		switch d.Verdict {
		case handlers.Accepted:
			c.Outcome = "accepted"
		case handlers.Rejected:
			c.Outcome, c.Code = "rejected", string(d.Errors[0].Code)
		default:
			continue
		}
		said := d.Sender()
		sender, ok := senders[said]
		if !ok {
			sender = otherSenders
			if len(senders) < ledgerSenders {
				sender = cut(storable(said), ledgerSenderText)
				senders[said] = sender
			}
		}
		c.Sender = sender
		rows[c]++
	}
	counts := make([]count, 0, len(rows))
	for c, n := range rows {
		c.Rows = n
		counts = append(counts, c)
	}
	slices.SortFunc(counts, func(a, b count) int {
		return cmp.Or(cmp.Compare(a.Day, b.Day), cmp.Compare(a.Sender, b.Sender), cmp.Compare(a.Outcome, b.Outcome), cmp.Compare(a.Code, b.Code))
	})
	text, _ := json.Marshal(counts) // strings and numbers alone: cannot fail
	return []any{b.Source.Topic, b.Partition, b.From, b.To, string(b.Source.Rules.Action()), b.Source.Rules.Hash(),
		w.accepted, w.rejected, w.skipped, string(text), max(b.Round, 1), max(b.Incarnation, 1)}
}

// cut returns the first n characters of a text.
func cut(text string, n int) string {
	if utf8.RuneCountInString(text) <= n {
		return text
	}
	return string([]rune(text)[:n])
}
