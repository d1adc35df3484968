package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"
)

// The usual Go consumer, as tutorials have it: kafka-go's Reader in a group,
// encoding/json, one INSERT … ON CONFLICT and one CommitMessages a row. And the
// same by somebody who has measured it: pgx.Batch of a thousand, committed
// together, two readers. Neither judges a row, resolves a reference, announces
// an outcome, or keeps its promises when it is killed.

// usualVerb is how the bench calls itself, to be one in a process of its own:
// usual-consumer BATCH BROKERS TOPIC GROUP DATABASE. It runs until it is killed.
const usualVerb = "usual-consumer"

func (b *bench) usual(batch int) plainContender {
	return func(_ context.Context, topic, database string, _ set) (*child, error) {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		b.runs++
		c := &child{log: filepath.Join(b.dir, fmt.Sprintf("usual-%d.log", b.runs))}
		c.cmd = exec.Command(self, usualVerb, strconv.Itoa(batch), b.brokers, topic, fmt.Sprintf("bench-usual-%d-%d", os.Getpid(), b.runs), database)
		return c, b.spawn(c)
	}
}

// usualRow is a row as encoding/json reads it.
type usualRow struct {
	CandidateLogin      string     `json:"candidatelogin"`
	LovGUID             string     `json:"lovguid"`
	SessionGUID         string     `json:"sessionguid"`
	TrainingPathCode    *string    `json:"trainingpathcode"`
	TrackingStatus      *string    `json:"trackingstatus"`
	Progression         *float64   `json:"progression"`
	Score               *float64   `json:"score"`
	ScoreMax            *int       `json:"scoremax"`
	TimeSpent           *int64     `json:"timespent"`
	FirstAccessDate     *time.Time `json:"firstaccessdate"`
	LastAccessDate      *time.Time `json:"lastaccessdate"`
	FirstCompletionDate *time.Time `json:"firstcompletiondate"`
}

const usualInsert = `
INSERT INTO tracking (candidatelogin, lovguid, sessionguid, trainingpathcode, trackingstatus, progression, score, scoremax, timespent,
  firstaccessdate, lastaccessdate, firstcompletiondate)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
ON CONFLICT (candidatelogin, lovguid, sessionguid) DO UPDATE SET trainingpathcode = excluded.trainingpathcode, trackingstatus = excluded.trackingstatus,
  progression = excluded.progression, score = excluded.score, scoremax = excluded.scoremax, timespent = excluded.timespent,
  firstaccessdate = excluded.firstaccessdate, lastaccessdate = excluded.lastaccessdate, firstcompletiondate = excluded.firstcompletiondate`

func (r *usualRow) args() []any {
	return []any{r.CandidateLogin, r.LovGUID, r.SessionGUID, r.TrainingPathCode, r.TrackingStatus, r.Progression, r.Score, r.ScoreMax, r.TimeSpent,
		r.FirstAccessDate, r.LastAccessDate, r.FirstCompletionDate}
}

// consumeAsUsual is the process.
func consumeAsUsual(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	batch, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	readers := 1
	if batch > 1 {
		readers = 2
	}
	var group errgroup.Group
	for range readers {
		group.Go(func() error {
			// Its own MaxWait of 10 s would show where a partition ends.
			reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{args[1]}, Topic: args[2], GroupID: args[3], MaxWait: 250 * time.Millisecond, StartOffset: kafka.FirstOffset})
			defer reader.Close()
			db, err := pgx.Connect(ctx, args[4])
			if err != nil {
				return err
			}
			defer db.Close(context.WithoutCancel(ctx))
			if batch > 1 {
				return consumeBatches(ctx, reader, db, batch)
			}
			return consumeRows(ctx, reader, db)
		})
	}
	return group.Wait()
}

func consumeRows(ctx context.Context, reader *kafka.Reader, db *pgx.Conn) error {
	for {
		m, err := reader.FetchMessage(ctx)
		if err != nil {
			return err
		}
		var row usualRow
		if err := json.Unmarshal(m.Value, &row); err != nil {
			return err
		}
		if _, err := db.Exec(ctx, usualInsert, row.args()...); err != nil {
			return err
		}
		if err := reader.CommitMessages(ctx, m); err != nil {
			return err
		}
	}
}

// consumeBatches takes what is there, at most a batch, once something is there.
func consumeBatches(ctx context.Context, reader *kafka.Reader, db *pgx.Conn, size int) error {
	for {
		m, err := reader.FetchMessage(ctx)
		if err != nil {
			return err
		}
		var batch pgx.Batch
		messages := []kafka.Message{m}
		for {
			var row usualRow
			if err := json.Unmarshal(m.Value, &row); err != nil {
				return err
			}
			batch.Queue(usualInsert, row.args()...)
			if len(messages) == size {
				break
			}
			more, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
			m, err = reader.FetchMessage(more)
			cancel()
			if err != nil {
				break // what is left of a topic is a small batch
			}
			messages = append(messages, m)
		}
		if err := db.SendBatch(ctx, &batch).Close(); err != nil {
			return err
		}
		if err := reader.CommitMessages(ctx, messages...); err != nil {
			return err
		}
	}
}
