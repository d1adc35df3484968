// Chaos runs learnsink on the real thing (Apache Kafka and PostgreSQL as
// processes, several processes of learnsink, a seeded sender that knows the
// truth) and does everything to it that can be done: see the table of faults
// in faults.go, while an operator works with the dead letters. At the end
// another Kafka client and the model say whether a promise was broken.
//
//	go run ./test/chaos --minutes 4 --seed 1
//
// It needs Go, Java 17, Maven (at the first use) and PostgreSQL's binaries;
// it starts everything itself, on free ports, in a folder of its own. KAFKA_LIB
// may name a folder with Kafka's jars.
//
// Exit: 0 every promise was kept · 1 one was broken, or in a run of 20 minutes
// and more a goal missed: the report says which · 2 unverified: the chaos itself failed, and nothing may be concluded.
//
// Every choice comes from the seed. What the machine makes of it (which process
// owns what when it is killed) does not: a seed tells the same story and the
// same faults, not the same run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"learnsink/test/reaper"
)

// options are what the command line says.
type options struct {
	minutes   float64
	seed      uint64
	rate      int
	processes int
	publish   string
	overlay   string
	mutant    string
	race      bool
	keep      bool
	verbose   bool
	only      string
}

// Exit codes.
const (
	kept       = 0
	broken     = 1
	unverified = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, out io.Writer) int {
	var o options
	var reportFile string
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.Float64Var(&o.minutes, "minutes", 4, "how long, all in all")
	flags.Uint64Var(&o.seed, "seed", 1, "where every choice comes from")
	flags.IntVar(&o.rate, "rate", 400, "rows a second that are sent, floods apart")
	flags.IntVar(&o.processes, "processes", 4, "processes of learnsink, 3 or more")
	flags.StringVar(&o.publish, "publish", "transactional", "how learnsink publishes: transactional, or at-least-once (then repeats are counted, and no fault)")
	flags.StringVar(&reportFile, "report", "", "write the report to this file too")
	flags.StringVar(&o.overlay, "overlay", "", "build learnsink with `go build -overlay` of this file")
	flags.StringVar(&o.mutant, "mutant", "", "what --overlay breaks, for the report")
	flags.StringVar(&o.only, "only", "", "only the faults of these names, with ; in between: to look at one")
	flags.BoolVar(&o.race, "race", false, "build learnsink with the race detector")
	flags.BoolVar(&o.keep, "keep", false, "keep the work folder")
	flags.BoolVar(&o.verbose, "verbose", false, "tell more of how it goes")
	if err := flags.Parse(args); err != nil {
		return unverified
	}
	if o.processes < 3 || flags.NArg() > 0 || o.minutes <= 0 || o.rate <= 0 {
		fmt.Fprintln(os.Stderr, "chaos: --processes is 3 or more, --minutes and --rate are above 0, and there are no arguments")
		return unverified
	}
	if len(o.kinds()) == 0 {
		fmt.Fprintf(os.Stderr, "chaos: no fault is named %q\n", o.only)
		return unverified
	}
	r := newReport(o)
	if err := chaos(ctx, o, r); err != nil {
		r.unverified(err)
	}
	text := r.markdown()
	_, _ = io.WriteString(out, text)
	if reportFile != "" {
		if err := os.WriteFile(reportFile, []byte(text), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "chaos:", err)
			return unverified
		}
	}
	return r.code()
}

// chaos is one run: the calm, the chaos, the rest, and the look at what is left.
func chaos(ctx context.Context, o options, r *report) (err error) {
	reaper, err := reaper.New()
	if err != nil {
		return err
	}
	a := &arena{options: o, reaper: reaper, report: r}
	if a.dir, err = os.MkdirTemp("", "learnsink-chaos-"); err != nil {
		return err
	}
	defer a.close()
	if err := os.Chmod(a.dir, 0o755); err != nil { // PostgreSQL may run as another user
		return err
	}
	say("seed %d, %g minutes, %s, in %s", o.seed, o.minutes, o.publish, a.dir)
	if err := a.open(ctx); err != nil {
		return err
	}
	began := time.Now()
	if err := a.raise(ctx); err != nil {
		return err
	}
	watching, stopWatching := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() { defer close(watched); a.watch.run(watching) }()
	defer func() { stopWatching(); <-watched }()
	measuring := make(chan struct{})
	go func() { defer close(measuring); a.vitals.run(watching) }()
	defer func() { stopWatching(); <-measuring }()
	sending, stopSending := context.WithCancel(ctx)
	sent := make(chan struct{})
	go func() { defer close(sent); a.sender.run(sending) }()
	defer func() { stopSending(); <-sent }()
	sentApart := make(chan struct{})
	go func() { defer close(sentApart); a.desk.send(sending) }()
	defer func() { stopSending(); <-sentApart }()

	// 1. The calm: a flood, and nothing else.
	say("the calm")
	if err := a.calm(ctx); err != nil {
		return err
	}
	// 2. The chaos.
	end := began.Add(time.Duration(o.minutes * float64(time.Minute)))
	n := &nemesis{arena: a, r: rand.New(rand.NewPCG(o.seed, 2))}
	floods, stopFloods := context.WithCancel(ctx)
	flooded := make(chan struct{})
	go func() { defer close(flooded); a.floods(floods, rand.New(rand.NewPCG(o.seed, 3)), end) }()
	worked := make(chan struct{})
	go func() { defer close(worked); a.desk.work(floods, end) }()
	err = n.run(ctx, end)
	stopFloods()
	<-worked
	<-flooded
	if err != nil {
		return err
	}
	// 3. The rest: no fault any more, and nothing is sent.
	quiet := time.Now()
	say("the last fault is over; all is to be applied and published within a minute")
	stopSending()
	<-sent
	<-sentApart
	r.sent = a.sender.counted()
	if err := a.watch.rest(ctx, time.Minute-time.Since(quiet)); err != nil {
		if ctx.Err() != nil {
			return err
		}
		a.faultf("lag is not zero within 60 s of the last fault: %v", err)
		if err := a.watch.rest(ctx, time.Minute); err != nil {
			return errors.Join(errors.New("it does not come to rest"), err)
		}
	}
	r.rest = time.Since(quiet)
	// What was put into jobs, or waits, has its own time: the deadline of the waiting room.
	if err := a.desk.rest(ctx); err != nil {
		return err
	}
	stopWatching()
	<-watched
	<-measuring
	say("stopping")
	for _, m := range a.members {
		if err := m.stop(); err != nil {
			return err
		}
	}
	// 4. The look at what is left.
	return a.verdict(ctx, n)
}
