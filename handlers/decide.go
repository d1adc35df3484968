package handlers

import "slices"

// Decide says what becomes of the row, by the catalogue's facts: every
// message of its rejection in the order of rules.md, or the typed row. A
// check whose input has failed an earlier one is skipped.
func (r *Rules) Decide(w *Row, f *Facts) (d Decision) {
	w.decide(&d, f, &slab[TrackingRow]{chunk: 1})
	return d
}

// DecideAll decides rows, each by itself. What it returns shares memory.
func (r *Rules) DecideAll(rows []Row, f *Facts) []Decision {
	decisions := make([]Decision, len(rows))
	typed := slab[TrackingRow]{chunk: min(len(rows), 64)}
	for i := range rows {
		rows[i].decide(&decisions[i], f, &typed)
	}
	return decisions
}

// slab makes values, a chunk of them at a time.
type slab[T any] struct {
	chunk int
	free  []T
}

func (s *slab[T]) next() *T {
	if len(s.free) == 0 {
		s.free = make([]T, s.chunk)
	}
	v := &s.free[0]
	s.free = s.free[1:]
	return v
}

// decide fills in d, which is zero; an accepted tracking row is put into typed.
func (w *Row) decide(d *Decision, f *Facts, typed *slab[TrackingRow]) {
	d.Record, d.Rules, d.EventTime, d.Replay = w.record, w.rules, w.eventTime, w.replay
	switch {
	case w.ignored:
		d.Verdict = Ignored
	case w.whole != "":
		d.reject(plain(w.whole))
	case w.rules.action == Tracking:
		w.decideTracking(d, f, typed)
	default:
		w.decideIntervention(d, f)
	}
	if f.Erased != nil && d.Verdict != Accepted && d.Verdict != Ignored && w.ofErased(f) {
		*d = Decision{Record: d.Record, Rules: d.Rules, EventTime: d.EventTime, Replay: d.Replay, Verdict: Gone}
	}
}

// reject makes the decision a rejection, whatever it was.
func (d *Decision) reject(errs ...Error) {
	d.Verdict, d.Errors = Rejected, errs
	d.Tracking, d.Intervention = nil, nil
}

// Refuse makes an accepted decision a rejection, where the database alone
// found the row wrong; sqlstate is what it said.
func (d *Decision) Refuse(sqlstate string) {
	d.reject(Error{Code: DatabaseRefused, Message: "Row was refused by the database [" + sqlstate + "]."})
}

// The context columns of a tracking row: together one reference.
var contextColumns = []int{colSessionGUID, colSessionID, colSessionTitle, colTrainingPathCode, colTrainingID}

// precise reports whether a tracking row's context names a session precisely enough.
func (w *Row) precise() bool {
	f := &w.fields
	return f[colSessionGUID].given() || f[colSessionID].given() ||
		f[colSessionTitle].given() && (f[colTrainingPathCode].given() || f[colTrainingID].given())
}

// contextUsable reports whether the context can be looked up.
func (w *Row) contextUsable() bool { return w.precise() && !w.anyBad(contextColumns...) }

// decideTracking runs the checks of createOrUpdateConsolidatedTrackingAction in their order.
func (w *Row) decideTracking(d *Decision, facts *Facts, typed *slab[TrackingRow]) {
	f := &w.fields
	// 1. The common ones.
	errs := append(w.unknown, w.columns...)
	// 2. to 4. What must be there at all.
	if !w.anyGiven(colLovCode, colLovGUID) {
		errs = append(errs, plain(LOReferenceGone))
	}
	if !w.anyGiven(colCandidateLogin, colCandidateRefNumber, colCandidateEmail) {
		errs = append(errs, plain(LearnerRefGone))
	}
	if !w.precise() && !w.anyBad(contextColumns...) {
		errs = append(errs, plain(ContextMissing))
	}
	// 5. Dates.
	for i := colFirstAccessDate; i <= colFirstCompletionDate; i++ {
		if f[i].state == mismatched {
			errs = append(errs, blame(DateTimeMismatch, w.name(i), f[i].text))
		}
	}
	// 6. The status.
	if f[colTrackingStatus].state == mismatched {
		word := func(s Status) string { return show(w.rules.statusWords[s]) }
		after := ", [" + word(NotAttempted) + "], [" + word(Incomplete) + "], [" + word(Completed) + "], [" +
			word(Passed) + "], [" + word(Failed) + "] or [" + word(Browsed) + "] expected."
		errs = append(errs, naming(StatusUnknown, w.name(colTrackingStatus), f[colTrackingStatus].text, "Status has invalid value ", after))
	}
	// 7. to 9. The learning object.
	lo, loErrs := w.learningObject(facts)
	errs = append(errs, loErrs...)
	// 10. The registration.
	var reg *Registration
	var learnerID int64
	if w.learner != (LearnerRef{}) && w.contextUsable() {
		learnerID = facts.Learners[w.learner]
		if reg = w.registration(facts.Registrations[learnerID]); reg == nil {
			errs = append(errs, plain(NoRegistration))
		}
	}
	// 11. Completion goes with the status.
	status := Incomplete // absent
	if f[colTrackingStatus].ok() {
		status = Status(f[colTrackingStatus].num)
	}
	statusKnown := !f[colTrackingStatus].bad()
	if f[colFirstCompletionDate].ok() && statusKnown && !status.Done() {
		errs = append(errs, blame(NotCompleted, w.name(colFirstCompletionDate), f[colFirstCompletionDate].text))
	}
	// 12. Dates among themselves.
	if w.rules.strictDates {
		errs = append(errs, w.strictDates(statusKnown && status == Completed)...)
	}
	if len(errs) > 0 {
		d.reject(errs...)
		return
	}

	row := typed.next()
	*row = TrackingRow{
		TrackingKey:        TrackingKey{reg.ID, lo.ID},
		CandidateLogin:     f[colCandidateLogin].text,
		CandidateRefNumber: f[colCandidateRefNumber].text,
		CandidateEmail:     f[colCandidateEmail].text,
		LovCode:            f[colLovCode].text,
		LovGUID:            f[colLovGUID].text,
		SessionGUID:        f[colSessionGUID].text,
		SessionTitle:       f[colSessionTitle].text,
		TrainingPathCode:   f[colTrainingPathCode].text,
		SessionID:          f[colSessionID].num,
		TrainingID:         f[colTrainingID].num,
		FirstAccess:        f[colFirstAccessDate].optTime(),
		LastAccess:         f[colLastAccessDate].optTime(),
		FirstCompletion:    f[colFirstCompletionDate].optTime(),
		Progression:        f[colProgression].optFloat(),
		Score:              f[colScore].optFloat(),
		ScoreMax:           w.rules.defaultScoreMax,
		Status:             status,
		TimeSpent:          f[colTimeSpent].num,
		Delete:             status == NotAttempted,
		LearnerID:          learnerID,
		LearningObjectGUID: lo.GUID,
		RefSessionID:       reg.Session.ID,
		RefSessionGUID:     reg.Session.GUID,
		RefTrainingID:      reg.Training.ID,
	}
	if f[colScoreMax].ok() {
		row.ScoreMax = int32(f[colScoreMax].num)
	}
	if status.Done() && !row.FirstCompletion.OK {
		row.FirstCompletion, row.FilledIn = Some(w.rules.today(w.eventTime)), true
	}
	d.Verdict, d.Tracking = Accepted, row
}

func (w *Row) name(i int) string { return w.rules.table.columns[i].name }

// learningObject looks up the learning object version, and says what is wrong with it.
func (w *Row) learningObject(facts *Facts) (lo LearningObject, errs []Error) {
	if !w.intact(colLovCode, colLovGUID) {
		return lo, nil
	}
	code, guid := &w.fields[colLovCode], &w.fields[colLovGUID]
	byCode := func() Error {
		return naming(LONotFound, w.name(colLovCode), code.text, "Learning object version with code ", " is not found.")
	}
	var found bool
	switch {
	case guid.given():
		if lo, found = facts.LearningObjectsByGUID[w.lovGUID]; !found {
			return lo, []Error{naming(LONotFound, w.name(colLovGUID), guid.text, "Learning object version with guid ", " is not found.")}
		}
		if code.given() && lo.Code != code.text {
			return lo, []Error{byCode()}
		}
	default:
		if lo, found = facts.LearningObjectsByCode[code.text]; !found {
			return lo, []Error{byCode()}
		}
	}
	switch lo.Provider {
	case CrossKnowledge:
		errs = []Error{plain(LOCrossKnowledge)}
	case EasyQuizz:
		errs = []Error{plain(LOEasyQuizz)}
	}
	return lo, errs
}

// registration finds the one in the lowest session that fits every context column given.
func (w *Row) registration(of []Registration) *Registration {
	f := &w.fields
	for i := range of {
		r := &of[i]
		if (!f[colSessionGUID].given() || r.Session.GUIDFolded == w.session.guid) &&
			(!f[colSessionID].given() || r.Session.ID == f[colSessionID].num) &&
			(!f[colSessionTitle].given() || r.Session.Title == f[colSessionTitle].text) &&
			(!f[colTrainingPathCode].given() || r.Training.PathCode == f[colTrainingPathCode].text) &&
			(!f[colTrainingID].given() || r.Training.ID == f[colTrainingID].num) {
			return r
		}
	}
	return nil
}

// strictDates holds the dates that are there against each other and against
// now, which is the event's own time.
func (w *Row) strictDates(completed bool) (errs []Error) {
	first, last, done := &w.fields[colFirstAccessDate], &w.fields[colLastAccessDate], &w.fields[colFirstCompletionDate]
	now := w.eventTime.UnixMicro()
	check := func(c Code, wrong bool) {
		if wrong {
			errs = append(errs, plain(c))
		}
	}
	check(CompletionBeforeAccess, done.ok() && first.ok() && done.num < first.num)
	check(CompletionAfterAccess, done.ok() && last.ok() && done.num > last.num)
	check(LastBeforeFirstAccess, last.ok() && first.ok() && last.num < first.num)
	if done.ok() && done.num > now {
		errs = append(errs, blame(CompletionAfterNow, w.name(colFirstCompletionDate), done.text))
	}
	if last.ok() && last.num > now {
		errs = append(errs, blame(LastAccessAfterNow, w.name(colLastAccessDate), last.text))
	}
	if first.ok() && last.ok() && completed && !done.given() {
		errs = append(errs, blame(FirstCompletionRequired, w.name(colFirstCompletionDate), ""))
	}
	return errs
}

// decideIntervention runs the checks of createOrUpdateInterventionAction in their order.
func (w *Row) decideIntervention(d *Decision, facts *Facts) {
	f := &w.fields
	// 1. What is empty. 2. The other common ones.
	errs := append(append(w.empty, w.unknown...), w.columns...)
	// 3. The training. 4. The session, once the training is found. Together
	// they are one reference: of several trainings that fit, the oldest with
	// a session that fits is meant.
	trainings, trainingErrs := w.fittingTrainings(facts)
	errs = append(errs, trainingErrs...)
	var session Session
	if len(trainings) > 0 {
		sessions := facts.Sessions[trainings[0].ID]
		for _, t := range trainings[1:] { // rarely
			sessions = append(slices.Clip(sessions), facts.Sessions[t.ID]...)
		}
		var sessionErrs []Error
		session, sessionErrs = w.findSession(sessions)
		errs = append(errs, sessionErrs...)
	}
	// 5. The date.
	if f[colInterventionDate].state == mismatched {
		errs = append(errs, naming(DateNotValid, w.name(colInterventionDate), f[colInterventionDate].text, "Date ", " not valid."))
	}
	// 6. The teacher.
	teacher, known := facts.Teachers[w.teacher]
	if w.teacher != "" && !known {
		errs = append(errs, naming(TeacherNotFound, w.name(colTeacherLogin), f[colTeacherLogin].text, "Teacher with login ", " is not found."))
	}
	// 7. The status.
	if f[colInterventionStatus].state == mismatched {
		after := ", [" + show(w.rules.activeWord) + "] or [" + show(w.rules.cancelledWord) + "] expected."
		errs = append(errs, naming(StatusInvalid, w.name(colInterventionStatus), f[colInterventionStatus].text, "Status has invalid value ", after))
	}
	if len(errs) > 0 {
		d.reject(errs...)
		return
	}

	row := &InterventionRow{
		GUID:             f[colInterventionGUID].text,
		GUIDFolded:       Fold(f[colInterventionGUID].text),
		TrainingGUID:     f[colIvTrainingGUID].text,
		TrainingPathCode: f[colIvTrainingPathCode].text,
		SessionGUID:      f[colIvSessionGUID].text,
		SessionTitle:     f[colIvSessionTitle].text,
		Date:             f[colInterventionDate].time(),
		Duration:         int32(f[colInterventionDuration].num),
		RoomGUID:         f[colRoomGUID].text,
		RoomGUIDFolded:   Fold(f[colRoomGUID].text),
		RoomLabel:        f[colRoomLabel].text,
		TeacherLogin:     f[colTeacherLogin].text,
		Cancelled:        f[colInterventionStatus].num == ivCancelled,
		TeacherID:        teacher,
		RefSessionID:     session.ID,
		RefSessionGUID:   session.GUID,
		RefTrainingID:    session.TrainingID,
	}
	if f[colRoomCapacity].ok() {
		row.RoomCapacity = Some(int32(f[colRoomCapacity].num))
	}
	d.Verdict, d.Intervention = Accepted, row
}

// fittingTrainings returns the trainings that fit both guid and path code, as
// far as they are given, the oldest first. Each of the two is judged by itself
// first.
func (w *Row) fittingTrainings(facts *Facts) (fitting []Training, errs []Error) {
	guid, code := &w.fields[colIvTrainingGUID], &w.fields[colIvTrainingPathCode]
	ofGUID, ofCode := facts.TrainingsByGUID[w.training.guid], facts.TrainingsByPathCode[w.training.code]
	pathCode := func() Error {
		return naming(TrainingPathNotFound, w.name(colIvTrainingPathCode), code.text, "Training with path code ", " is not found.")
	}
	if guid.ok() && len(ofGUID) == 0 {
		errs = append(errs, naming(TrainingGUIDNotFound, w.name(colIvTrainingGUID), guid.text, "Training with guid ", " is not found."))
	}
	if code.ok() && len(ofCode) == 0 {
		errs = append(errs, pathCode())
	}
	if len(errs) > 0 || !w.intact(colIvTrainingGUID, colIvTrainingPathCode) {
		return nil, errs
	}
	if !guid.given() {
		return ofCode, nil
	}
	for _, t := range ofGUID {
		if !code.given() || t.PathCode == code.text {
			fitting = append(fitting, t)
		}
	}
	if len(fitting) == 0 {
		errs = append(errs, pathCode()) // of two trainings
	}
	return fitting, errs
}

// findSession finds the first session, of those of the trainings that fit, that
// fits both guid and title, as far as they are given.
func (w *Row) findSession(of []Session) (s Session, errs []Error) {
	guid, title := &w.fields[colIvSessionGUID], &w.fields[colIvSessionTitle]
	fits := func(s *Session, byGUID, byTitle bool) bool {
		return (!byGUID || s.GUIDFolded == w.session.guid) && (!byTitle || s.Title == w.session.title)
	}
	first := func(byGUID, byTitle bool) *Session {
		for i := range of {
			if fits(&of[i], byGUID, byTitle) {
				return &of[i]
			}
		}
		return nil
	}
	byTitle := func() Error {
		return naming(SessionTitleNotFound, w.name(colIvSessionTitle), title.text, "Session with title ", " is not found for this training.")
	}
	if guid.ok() && first(true, false) == nil {
		errs = append(errs, naming(SessionGUIDNotFound, w.name(colIvSessionGUID), guid.text, "Session with guid ", " is not found for this training."))
	}
	if title.ok() && first(false, true) == nil {
		errs = append(errs, byTitle())
	}
	if len(errs) > 0 || !w.intact(colIvSessionGUID, colIvSessionTitle) {
		return s, errs
	}
	if both := first(guid.given(), title.given()); both != nil {
		return *both, nil
	}
	return s, []Error{byTitle()} // of two sessions
}
