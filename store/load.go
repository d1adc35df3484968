package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"learnsink/handlers"
	"learnsink/store/catalogue"
)

// LoadOptions says how a catalogue is loaded.
type LoadOptions struct {
	// SkipBad loads what is good; otherwise one bad line stops the load.
	SkipBad bool
	// Prune looks for what a kind's files no longer name and nothing refers
	// to. Execute removes it as well.
	Prune, Execute bool
	// MaxPrune is how many of a kind may be removed. 0: at most 5 % of it.
	MaxPrune int64
	// Step, if set, is told what is being done, a few words at a time. How far
	// the files are read is for Folder.OnRead to tell.
	Step func(step string)
}

// LoadReport is what a load did, or would have done.
type LoadReport struct {
	Version int64 // the catalogue's, after the load; 0: nothing was loaded
	Kinds   []LoadCount
	Bad     []catalogue.BadLine // in the order of kinds, files and lines
}

// LoadCount is what a load did to one kind.
type LoadCount struct {
	Kind           catalogue.Kind
	Lines          int64 // good ones
	Added, Changed int64 // what is there already, as the files say it, is neither
	Erased         int64 // lines of persons who were erased: they are passed over
	// Pruned is how many a prune removes, or would; Examples are the keys of
	// the first few. Personal data: for the operator's eyes, not for logs.
	Pruned   int64
	Examples []string
}

var (
	// ErrBadLines: the load was stopped by bad lines; nothing was loaded.
	ErrBadLines = errors.New("some lines are bad, and nothing was loaded")
	// ErrPrune: a prune would remove too much, or cannot be trusted; nothing was loaded.
	ErrPrune = errors.New("refused to prune, and nothing was loaded")
)

// LoadCatalogue loads a folder of catalogue files in one transaction, or not
// at all: what they name is added or brought up to date, what they do not name
// stays (unless it is pruned). Loading the same files again changes nothing.
//
// Consumers go on meanwhile. Only for the end of the load, when rooms are
// merged, prunes done and the version raised, do their batches wait; the first
// one after it is decided again by the new catalogue.
//
// The report is useful with ErrBadLines and ErrPrune too.
func (s *Store) LoadCatalogue(ctx context.Context, folder *catalogue.Folder, opt LoadOptions) (report LoadReport, err error) {
	defer wrap(&err, "load the catalogue")
	l := &load{folder: folder, opt: opt, counts: map[catalogue.Kind]*LoadCount{}, refused: map[catalogue.Kind]int{}}
	err = pgx.BeginTxFunc(ctx, s.pool, pgx.TxOptions{}, func(tx pgx.Tx) error {
		l.tx = tx
		return l.run(ctx)
	})
	slices.SortStableFunc(l.bad, func(a, b badLine) int { return a.compare(b) })
	for _, b := range l.bad {
		report.Bad = append(report.Bad, b.line)
	}
	for _, kind := range folder.Kinds() {
		if c := l.counts[kind]; c != nil {
			report.Kinds = append(report.Kinds, *c)
		}
	}
	if err == nil {
		report.Version = l.version
	}
	return report, s.heed(err)
}

// load is one load under way.
type load struct {
	tx      pgx.Tx
	folder  *catalogue.Folder
	opt     LoadOptions
	files   []string // by number
	bad     []badLine
	counts  map[catalogue.Kind]*LoadCount
	refused map[catalogue.Kind]int // bad lines by kind
	says    said
	erased  *handlers.Erased
	version int64

	// beside files: what topics have said (load_events.go)
	waits  waits   // what has been there since before
	events *events // of records of topics; nil: of files
}

// said is how many registrations say what.
type said struct {
	by         [bySeveral]int64 // name their learner by login, reference number, e-mail first
	several    int64            // say more of him than his login
	sessionIDs int64            // name their session by id
}

// badLine is a bad line with its place in the order of the report.
type badLine struct {
	kind  int
	place int64
	line  catalogue.BadLine
}

func (b badLine) compare(other badLine) int {
	if b.kind != other.kind {
		return b.kind - other.kind
	}
	return int(min(max(b.place-other.place, -1), 1))
}

// A line's place is one number: the number of its file, then that of the line.
// It says which of two lines about one key holds: the later.
const placeBits = 40

func (l *load) place(line *catalogue.Line) int64 {
	if n := len(l.files); n == 0 || l.files[n-1] != line.File {
		l.files = append(l.files, line.File)
	}
	return int64(len(l.files)-1)<<placeBits | int64(line.Number)
}

func (l *load) fault(kind catalogue.Kind, place int64, why string) {
	l.refused[kind]++
	l.bad = append(l.bad, badLine{slices.Index(catalogue.Kinds(), kind), place,
		catalogue.BadLine{Kind: kind, File: l.files[place>>placeBits], Number: int(place & (1<<placeBits - 1)), Why: why}})
}

func (l *load) step(format string, args ...any) {
	if l.opt.Step != nil {
		l.opt.Step(fmt.Sprintf(format, args...))
	}
}

// run is the transaction, from top to bottom.
func (l *load) run(ctx context.Context) error {
	if err := l.begin(ctx, catalogue.Kinds()...); err != nil {
		return err
	}
	erased, err := readErased(ctx, l.tx)
	if err != nil {
		return err
	}
	l.erased = erased
	if err := l.stage(ctx); err != nil {
		return err
	}
	// Kind by kind, whatever a kind refers to first. Consumers see nothing of
	// it before the commit, and write to none of these tables.
	for _, kind := range catalogue.Kinds() {
		if kind == catalogue.Rooms {
			continue
		}
		if err := l.mergeAll(ctx, kind); err != nil {
			return err
		}
	}
	if len(l.bad) > 0 && !l.opt.SkipBad {
		return ErrBadLines
	}
	// From here on batches wait. Rooms come last because batches write them as
	// well: merged earlier, one of ours and one of theirs could wait for each
	// other. Whatever a batch has written by now is seen by the prune, and
	// what is decided by the catalogue before it is refused after it.
	l.step("waiting for batches under way")
	if _, err := l.tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", catalogueLock); err != nil {
		return err
	}
	if err := l.mergeAll(ctx, catalogue.Rooms); err != nil {
		return err
	}
	if l.opt.Prune {
		l.step("pruning")
		if err := l.prune(ctx); err != nil {
			return err
		}
	}
	l.step("committing")
	return l.tx.QueryRow(ctx, "UPDATE learnsink.catalogue_version SET version = version + 1, loaded_at = now() RETURNING version").Scan(&l.version)
}

// begin makes the staging tables of kinds, and waits for its turn.
func (l *load) begin(ctx context.Context, kinds ...catalogue.Kind) error {
	// The limits of consumers' statements are not for a load. One load at a
	// time: two could both find the same thing missing, and add it.
	if err := l.exec(ctx, "SET LOCAL statement_timeout = 0", "SET LOCAL lock_timeout = 0", "SET LOCAL idle_in_transaction_session_timeout = 0",
		"SET LOCAL work_mem = '128MB'"); err != nil {
		return err
	}
	for _, kind := range kinds {
		if err := l.exec(ctx, staging[kind]); err != nil {
			return err
		}
	}
	if _, err := l.tx.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", loadLock); err != nil {
		return err
	}
	return l.tx.QueryRow(ctx, selectWaits).Scan(&l.waits.sessions, &l.waits.registrations, &l.waits.tombstones)
}

// mergeAll merges what is staged of a kind, and what has waited for that.
func (l *load) mergeAll(ctx context.Context, kind catalogue.Kind) error {
	woken, err := l.wake(ctx, kind)
	if err != nil || l.counts[kind] == nil && !woken {
		return err
	}
	l.step("merging %s", kind)
	if err := l.merge(ctx, kind); err != nil {
		return err
	}
	return l.revive(ctx, kind)
}

func (l *load) exec(ctx context.Context, statements ...string) error {
	for _, sql := range statements {
		if _, err := l.tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// loadLock is the advisory lock that loads hold from beginning to end.
const loadLock int64 = catalogueLock + 1
