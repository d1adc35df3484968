package main

// Shorthands for the files that mutants change.
const (
	apply        = "store/apply.go"
	ledger       = "store/ledger.go"
	rows         = "store/rows.go"
	tracking     = "store/tracking.go"
	intervention = "store/intervention.go"
	leaseFile    = "consumer/lease.go"
	pipelineFile = "consumer/pipeline.go"
	gather       = "consumer/gather.go"
	fetchFile    = "consumer/fetch.go"
	record       = "consumer/record.go"
	transaction  = "consumer/transaction.go"
	publisher    = "consumer/publisher.go"
	settleFile   = "handlers/settle.go"
	replaysFile  = "handlers/replays.go"
	replayFile   = "store/replay.go"
	rejection    = "store/rejection.go"

	dispatchFile   = "store/dispatch.go"
	dispatcherFile = "consumer/dispatcher.go"
)

var (
	simulation = catcher{kind: bySimulation}
	chaos      = catcher{kind: byChaos}
	// zombies wake in the midst of work, again and again.
	zombies     = catcher{kind: byChaos, only: "process asleep past its session", rate: "2000"}
	lostCommits = catcher{kind: byChaos, only: "COMMIT under way, connection cut", rate: "400"}
	// An operator sends rows again whatever the fault is.
	operator = catcher{kind: byChaos, only: "database killed;database connections cut", rate: "400"}
)

func test(pkg, run string) catcher { return catcher{kind: byTest, pkg: pkg, run: run} }

// mutants: first those that take one of the guards away which the promise
// rests on, then those that go about it a wrong way, then the reading.
var mutants = []mutant{
	{"no-compare-and-set", "a batch is applied whatever the position and whoever owns the partition", zombies, []edit{
		{apply, "	case epoch != b.Epoch:\n		return handlers.ErrFenced\n	case held:", "	case held:"},
		{apply, "	case next != b.From:\n		return fmt.Errorf(\"%w: at %d, not %d\", handlers.ErrMoved, next, b.From)\n", ""},
		{apply, "AND epoch = $3 AND next_offset = $4`", "AND $3::bigint IS NOT NULL AND $4::bigint IS NOT NULL`"},
		// The keys of ledger and outbox compare as well.
		{ledger, "$11::text::jsonb, $12, $13)`", "$11::text::jsonb, $12, $13) ON CONFLICT DO NOTHING`"},
		{apply, "payload) VALUES ($1, $2, $3, $4, $5)`", "payload) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`"},
	}},
	{"kafka-offset-for-the-truth", "reading goes on at the offset that the group has committed", simulation, []edit{
		{leaseFile, "	next = l.position.NextOffset\n", `	next = l.position.NextOffset
	if to, _, err := l.offsets.Moved(ctx, l.tp); err == nil && to > 0 {
		next = to
	}
`},
	}},
	{"plain-select-after-a-lost-commit", "a COMMIT without a reply is looked up by a SELECT that does not wait for it", lostCommits, []edit{
		{apply, "err := s.pool.QueryRow(ctx, lockPosition, b.Source.Topic", "err := s.pool.QueryRow(ctx, lockPosition[:len(lockPosition)-len(\" FOR UPDATE\")], b.Source.Topic"},
	}},
	{"safe-to-retry-believed", "a COMMIT without a reply is taken for not done where pgx says that trying again is safe", chaos, []edit{
		{apply, "		case errors.Is(err, errFaster), again(err), outOfPatience", "		case errors.Is(err, errFaster), again(err), unsaid, outOfPatience"},
		{apply, "		case errors.Is(err, errUnknown):\n", "		case errors.Is(err, errUnknown) && !unsaid:\n"},
		{apply, "		err := s.apply(ctx, b, &way)\n", "		err := s.apply(ctx, b, &way)\n		unsaid := errors.Is(err, errUnknown) && pgconn.SafeToRetry(err)\n"},
	}},
	{"no-init-producer-id", "after an uncertain reply the marker is read and publishing goes on, and the transactional id is not taken over first", simulation, []edit{
		{transaction, "	producer *producer\n}", "	producer *producer\n	kept     *producer\n}"},
		{transaction, "	session, err := p.cluster.initProducer(ctx, p.id)\n	if err != nil {\n		return Marker{}, err\n	}\n", `	session := p.kept
	if session == nil {
		var err error
		if session, err = p.cluster.initProducer(ctx, p.id); err != nil {
			return Marker{}, err
		}
		p.kept = session
	}
`},
	}},
	{"unsorted-keys", "keys are locked and written in an order of each process's own", chaos, []edit{
		{tracking, "import (\n	\"cmp\"\n", "import (\n	\"cmp\"\n	\"hash/maphash\"\n"},
		{tracking, "	return cmp.Or(cmp.Compare(a.RegistrationID, b.RegistrationID), cmp.Compare(a.LearningObjectID, b.LearningObjectID))\n}", "	return cmp.Compare(maphash.Comparable(ownSeed, a), maphash.Comparable(ownSeed, b))\n}\n\nvar ownSeed = maphash.MakeSeed()"},
		{intervention, "ORDER BY 1 FOR UPDATE OF i", "FOR UPDATE OF i"},
		{intervention, "ORDER BY 1 FOR UPDATE OF r", "FOR UPDATE OF r"},
		{rows, "	slices.SortFunc(keys, strings.Compare)\n", ""},
		{rows, "	\"strings\"\n", ""},
	}},
	{"no-collapse", "every row of a batch is written, not the last one of each key", chaos, []edit{
		{rows, "				last = d\n			}\n		}\n		if last != nil {\n			w.tracking.add(last, was, looked)\n		}\n", "				last = d\n				w.tracking.add(last, was, looked)\n			}\n		}\n"},
	}},
	{"outbox-dropped-before-end-txn", "an outbox entry may go as soon as its publication begins", simulation, []edit{
		{leaseFile, "		if err := l.publish(ctx, entries); err != nil {\n			return err\n		}\n		// Only now", "		l.published.Store(entries[len(entries)-1].To)\n		if err := l.publish(ctx, entries); err != nil {\n			return err\n		}\n		// Only now"},
	}},
	{"reader-instead-of-our-fetch", "records are read by kafka-go's Reader", chaos, []edit{
		{fetchFile, "	\"slices\"\n", "	\"slices\"\n	\"strings\"\n"},
		{fetchFile, "	set    recordSet // what", "	reader *kafka.Reader\n	set    recordSet // what"},
		{fetchFile, "	if from != l.next {\n		l.set.fill(nil, nil)\n", "	if l.tp.Topic != \"\" {\n		return l.readAsReader(ctx, from, wait)\n	}\n	if from != l.next {\n		l.set.fill(nil, nil)\n"},
		{fetchFile, "// fetch fills set with one response.\n", readAsReader + "// fetch fills set with one response.\n"},
	}},
	{"a-gap-ignored", "where retention was faster, reading goes on at what is left", simulation, []edit{
		{gather, "import (\n	\"context\"\n", "import (\n	\"context\"\n	\"errors\"\n"},
		{gather, "	g.left, err = g.log.Read(ctx, g.next, wait)\n", `	g.left, err = g.log.Read(ctx, g.next, wait)
	if stop := (*StopError)(nil); errors.As(err, &stop) && stop.State == handlers.DataLost {
		start, err := g.log.Start(ctx)
		g.left = Chunk{From: g.next, Next: start, Stable: start, End: start}
		return err
	}
`},
	}},

	{"a-transactional-id-of-its-own", "every owner publishes under an id of its own, and fences nobody", simulation, []edit{
		{transaction, "\".\" + strconv.Itoa(tp.Partition), markers", "\".\" + strconv.Itoa(tp.Partition) + \".\" + strconv.FormatInt(time.Now().UnixNano(), 36), markers"},
	}},
	{"marker-read-too-early", "the marker is read before the transactional id is taken over", simulation, []edit{
		{transaction, "	session, err := p.cluster.initProducer(ctx, p.id)\n	if err != nil {\n		return Marker{}, err\n	}\n	marker, err := p.cluster.marker(ctx, p.markers, p.tp)\n", `	marker, err := p.cluster.marker(ctx, p.markers, p.tp)
	if err != nil {
		return Marker{}, err
	}
	session, err := p.cluster.initProducer(ctx, p.id)
`},
	}},
	{"marker-outside-the-transaction", "the marker is written once the transaction is over", simulation, []edit{
		{transaction, `	if err := p.cluster.addMarker(ctx, session, p.markers, p.tp, marker); err != nil {
		return err
	}
	if err := p.cluster.endTransaction(ctx, session); err != nil {
		return err
	}
`, `	if err := p.cluster.endTransaction(ctx, session); err != nil {
		return err
	}
	if err := p.cluster.addGroup(ctx, session, p.markers); err != nil {
		return err
	}
	if err := p.cluster.addMarker(ctx, session, p.markers, p.tp, marker); err != nil {
		return err
	}
	if err := p.cluster.endTransaction(ctx, session); err != nil {
		return err
	}
`},
		{transaction, "	group.Go(func() error { return p.cluster.addGroup(ctx, session, p.markers) })\n", ""},
	}},
	{"end-txn-error-ignored", "what EndTxn answers does not matter", simulation, []edit{
		{transaction, "	if err := p.cluster.endTransaction(ctx, session); err != nil {\n		return err\n	}\n", "	_ = p.cluster.endTransaction(ctx, session)\n"},
	}},
	{"sequence-not-advanced", "every batch of a session has the same sequence", simulation, []edit{
		{publisher, "				from.advance(f.lane, f.taken)\n", ""},
	}},
	{"marker-gone-is-nothing-published", "a marker that has expired is not looked for in the outputs", simulation, []edit{
		{leaseFile, "		if marker.Through, err = l.publisher.Find(ctx, entries); err != nil {\n			return err\n		}\n", ""},
	}},
	{"published-twice-after-a-restore", "rows below the marker that are applied again are published again", simulation, []edit{
		{leaseFile, "				if settled[i].Record.Offset < silent {\n", "				if settled[i].Record.Offset < 0 && silent > 0 {\n"},
	}},
	{"the-operators-word-ignored", "the marker counts also where an operator wants rows published again", simulation, []edit{
		{leaseFile, "	case marker.Round < l.position.AnnouncedSince:\n", "	case marker.Round < 0:\n"},
	}},
	{"a-claim-not-made-again", "an owner that was fenced off goes on under its old epoch when the partition is its again", simulation, []edit{
		{pipelineFile, "	told := \"\"\n", "	told := \"\"\n	var last handlers.Position\n"},
		{pipelineFile, "		l := &lease{pipeline: p, soft: ctx}\n		err := l.hold()\n", "		l := &lease{pipeline: p, soft: ctx, position: last}\n		err := l.hold()\n		last = l.position\n"},
		{leaseFile, "		l.position, err = l.store.Claim(", "		if l.position.Epoch > 0 {\n			return nil\n		}\n		l.position, err = l.store.Claim("},
	}},
	{"a-zombie-takes-over", "who wakes takes the transactional id over without a look whose the partition is", simulation, []edit{
		{leaseFile, "	if err := l.owned(l.store.Published(ctx, l.tp, l.position.Epoch, 0)); err != nil {\n		return err\n	}\n	marker, err", "	marker, err"},
	}},
	{"publication-out-of-turn", "a batch does not wait for the one before it to be published", simulation, []edit{
		{leaseFile, "	if err := await(ctx, before.published); err != nil {\n		return err\n	}\n", ""},
	}},
	{"packed-for-another-topic", "batches go where they were packed for, whatever number of partitions the topic has by now", test("consumer", "^TestATopicThatHasGrown$"), []edit{
		{publisher, "		packed = packed && t.partitions == p.parcels[i].partitions\n", "		_ = t\n"},
	}},
	{"aborted-rows-are-rows", "what a sender has aborted is applied", simulation, []edit{
		{record, "	case attributes&attrTransactional != 0 && dead:\n", "	case attributes&attrTransactional != 0 && dead && base < 0:\n"},
	}},
	{"a-batch-passed-over", "the error of a batch that cannot be read is told once, and reading goes on behind it", test("consumer", "^TestWhatCannotBeReadIsNotPassed$"), []edit{
		{fetchFile, "			l.set.fill(nil, nil)\n			l.metrics.refused", "			l.metrics.refused"},
	}},
	{"no-checksum", "a batch's checksum is not looked at", test("consumer", "^TestHostileFrames$"), []edit{
		{record, "crc != crc32.Checksum(b[atAttributes:], castagnoli()) {", "crc != crc32.Checksum(b[atAttributes:], castagnoli()) && base < 0 {"},
	}},
	{"no-cap", "a batch may decompress to anything", test("consumer", "^TestHostileFrames$"), []edit{
		{"consumer/compress.go", "func (d *decompressor) decompress(codec int, in []byte, limit int) ([]byte, error) {\n", "func (d *decompressor) decompress(codec int, in []byte, limit int) ([]byte, error) {\n	limit = 1 << 29\n"},
	}},

	{"waiting-not-in-the-sum", "rows that wait are not counted", test("store", "^TestRowsThatWait$"), []edit{
		{rows, "			w.waiting++\n", ""},
	}},
	{"released-twice", "a row goes into a job whatever it has become since", test("store", "^TestRelease$"), []edit{
		{"store/job.go", "AND (r.state = $2\n", "AND (r.state = $2 OR $2 <> ''\n"},
	}},
	{"released-over-a-newer-row", "on the replay topic the row applied last wins, where its source says so", test("consumer", "^TestRoomSimulation$"), []edit{
		{"handlers/replays.go", "= topic, true, true\n", "= topic, s.ByEventTime, true\n"},
	}},
	{"waits-once-more", "a row that has waited waits again", test("consumer", "^TestRoomSimulation$"), []edit{
		{"handlers/replays.go", "		again.Wait = 0 ", "		_ = again.Wait "},
	}},
	{"first-of-its-kind-alone", "of the rows that wait for the same, the first is released", test("consumer", "^TestRoomSimulation$"), []edit{
		{"consumer/release.go", "o.room.Rows(ctx, &last, o.limits.page); err != nil || len(page) == 0 {", "o.room.Rows(ctx, &last, o.limits.page); err != nil || len(page) >= 0 {"},
	}},
	{"judged-before-it-is", "the rows that wait are taken for judged before they are", test("consumer", "^TestRoomSimulation$"), []edit{
		{"consumer/release.go", "		began := time.Now()\n		if err := r.judge", "		began := time.Now()\n		r.judged = catalogue\n		if err := r.judge"},
	}},
	{"announced-while-it-waits", "a row that waits is dead-lettered too", simulation, []edit{
		{"handlers/output.go", "	case Rejected:\n		return m.deadLetter(d), true\n", "	case Rejected, Waits:\n		return m.deadLetter(d), true\n"},
	}},
	{"deadlines-pass", "nobody looks at deadlines", test("consumer", "^TestRoomSimulation$"), []edit{
		{"consumer/release.go", "	if overdue {\n", "	if overdue && catalogue < 0 {\n"},
	}},

	{"guard-in-the-preview-only", "a row that is sent again is not held against what is stored when it is applied", simulation, []edit{
		{settleFile, "(d.olderThan(s) || d.putsBack()) && !d.overwrites(s) {", "(d.olderThan(s) || d.putsBack()) && !d.overwrites(s) && d.Replay == nil {"},
	}},
	{"replays-in-the-order-of-their-log", "of rows that are sent again the one applied last wins", simulation, []edit{
		{replaysFile, "again.EventTimeHeader = topic, true, true", "again.EventTimeHeader = topic, false, true"},
	}},
	{"replays-as-of-now", "the event's time is when the row is sent again", simulation, []edit{
		{replaysFile, "again.EventTimeHeader = topic, true, true", "again.EventTimeHeader = topic, true, false"},
	}},
	{"a-replay-stands-where-it-is", "a row that is sent again stands in the order where its record is, and not where its original is", simulation, []edit{
		{settleFile, "r != nil && r.Origin.OK {", "r != nil && r.Origin.OK && r.Of == \"\" {"},
	}},
	{"overwrites-whatever-is-there", "what a person wanted to win over one row wins over any", simulation, []edit{
		{settleFile, "d.Replay.Overwrite != \"\" && d.Replay.Overwrite == s.Seen()", "d.Replay.Overwrite != \"\""},
	}},
	{"lanes-in-one-batch", "rows whose originals stand in several partitions are one batch", simulation, []edit{
		{gather, "full = lane != (handlers.Lane{Source: b.source, Origin: b.origin}); full {", "full = lane.Source == nil; full {"},
	}},
	{"the-breaker-counts-replays", "rows that are sent again trip the breaker", simulation, []edit{
		{"consumer/consumer.go", "breaker.Off = c.replays.None, c.replays, true", "breaker.Off = c.replays.None, c.replays, false"},
	}},
	{"the-replays-of-another-row", "what a record says of itself is taken for its neighbour's", simulation, []edit{
		{leaseFile, "			rows[i].Replays(&says[i])\n", "			rows[i].Replays(&says[0])\n"},
	}},
	{"resolution-outside-the-transaction", "a dead letter is settled once the row is committed", test("store", "^TestReplayCrash$"), []edit{
		{rows, "	w.replays.queue(b)\n", ""},
		{apply, "	way.went(w)\n	return nil\n", "	third := &pgx.Batch{}\n	w.replays.queue(third)\n	_ = conn.SendBatch(ctx, third).Close()\n	way.went(w)\n	return nil\n"},
	}},
	{"attempt-not-counted", "a row may be sent again without an end", test("store", "^TestReplaySettles$"), []edit{
		{replayFile, "THEN 0 ELSE 1 END AS attempt", "THEN 0 ELSE 0 END AS attempt"},
	}},
	{"an-attempt-is-worked-with", "the line of an attempt is one more open dead letter", test("store", "^TestReplaySettles$"), []edit{
		{rejection, "r.id = u.replay_of) THEN 'archived'", "r.id = u.replay_of) THEN 'open'"},
	}},
	{"resolved-twice", "a dead letter that is resolved is opened again by another record that replays it", test("store", "^TestReplaySettles$"), []edit{
		{replayFile, "ELSE r.state IN ('open', 'replaying', 'waiting', 'quarantined') AND NOT", "ELSE r.state <> 'archived' AND NOT"},
	}},
	{"dispatcher-without-epoch", "rows of jobs are taken whoever has claimed them since", test("store", "^TestDispatch$"), []edit{
		{dispatchFile, "	case epoch != d.Epoch:\n		return handlers.ErrFenced\n", ""},
		{dispatchFile, "WHERE epoch = $1 AND next = $2\", d.Epoch", "WHERE $1::bigint IS NOT NULL AND next = $2\", d.Epoch"},
	}},
	{"dispatcher-without-marker", "who takes over publishes all rows of jobs that are pending, whatever is published of them", test("consumer", "^TestACrashAtAnyStepOfAJob$"), []edit{
		{dispatcherFile, "	published := marker.Through\n", "	published := int64(0)\n"},
	}},
	{"dispatcher-count-behind-the-marker", "the count of sent rows stays where the database has gone back to", test("consumer", "^TestAnotherJobAfterTheDatabaseWentBack$"), []edit{
		{dispatcherFile, "	if marker.Through > me.Next {\n", "	if false {\n"},
	}},
	{"sent-outside-of-the-transaction", "rows of jobs are marked as sent beside the transaction that puts them into the outbox", test("store", "^TestDispatch$"), []edit{
		{dispatchFile, "	second.Queue(setItems, m.jobs, m.seqs, m.states).Exec(exactly(len(taken)))\n", "	if _, err := l.store.pool.Exec(ctx, setItems, m.jobs, m.seqs, m.states); err != nil {\n		return err\n	}\n"},
	}},
	{"a-row-of-a-job-twice", "some rows of a job are put onto the replay topic twice", operator, []edit{
		{dispatcherFile, "	b := d.packer.begin(originPartition(&rows[0]))\n", "	b := d.packer.begin(originPartition(&rows[0]))\n	if len(rows) > 3 {\n		rows = append(rows, rows[0])\n	}\n"},
	}},
	{"a-settlement-that-is-left-out", "where many rows that are sent again are applied at once, their dead letters are not settled", operator, []edit{
		{replayFile, "		b.Queue(settleReplayed, append(now.args(), quarantinedFrom)...)\n", "		if len(now.id) < 3 {\n			b.Queue(settleReplayed, append(now.args(), quarantinedFrom)...)\n		}\n"},
	}},
}

const readAsReader = `// readAsReader reads by kafka-go's Reader.
func (l *partitionLog) readAsReader(ctx context.Context, from int64, wait time.Duration) (Chunk, error) {
	if l.reader == nil {
		l.reader = kafka.NewReader(kafka.ReaderConfig{Brokers: strings.Split(l.client.addr.String(), ","), Dialer: l.client.dialer,
			Topic: l.tp.Topic, Partition: l.tp.Partition, MinBytes: 1, MaxBytes: 10 << 20, MaxWait: 250 * time.Millisecond,
			IsolationLevel: kafka.ReadCommitted})
		l.next = -1
	}
	if from != l.next {
		if err := l.reader.SetOffset(from); err != nil {
			return Chunk{}, err
		}
	}
	chunk := Chunk{From: from, Next: from}
	reading, cancel := context.WithTimeout(ctx, max(wait, 50*time.Millisecond))
	defer cancel()
	for len(chunk.Records) < 100 {
		m, err := l.reader.FetchMessage(reading)
		if err != nil {
			break
		}
		r := handlers.Record{Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Timestamp: m.Time.UTC(), Key: m.Key, Value: m.Value}
		for _, h := range m.Headers {
			r.Headers = append(r.Headers, handlers.Header{Key: h.Key, Value: h.Value})
		}
		chunk.Records, chunk.Next = append(chunk.Records, r), m.Offset+1
		chunk.Bytes += sizeOf(&r)
	}
	l.next = chunk.Next
	_, end, err := l.client.bounds(ctx, l.tp)
	chunk.Stable, chunk.End = max(end, chunk.Next), max(end, chunk.Next)
	return chunk, err
}

`
