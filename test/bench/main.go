// Bench measures learnsink on the real thing, beside others that write the same
// rows: the bare database (rows ready-made in memory, nothing judged, nothing
// announced), the usual Go consumer, and Debezium's JDBC sink. README.md says
// what each is and how it is measured.
//
//	go run ./test/bench                                             # everything but Debezium: an hour or two
//	go run ./test/bench --only learnsink,bare --rows 300000 --catalogue 100000
//	go run ./test/bench --quick                                     # that it still works; no time is asserted
//
// It starts what it needs (Java 17, Maven at the first use, PostgreSQL's
// binaries), or takes the servers at KAFKA_BROKERS and DATABASE_URL.
//
// After each run the tables are held against what the rows must leave: a run
// that lost one, or stored one twice, is a failure, however fast it was.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are what the command line says.
type options struct {
	only      []string
	rows      int
	catalogue int
	tableRows int
	bad       float64
	parts     int
	processes int
	repeat    int
	phases    []string
	seed      uint64
	bareBatch []int
	binaries  []string
	yaml      string
	profile   string
	json      string
	svg       string
	soakFor   time.Duration
	quick     bool
	debezium  bool
	hold      bool
	verbose   bool
}

func parse(args []string) (o options, err error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	only := flags.String("only", "", "contenders and scenarios, with commas in between: "+strings.Join(slices.Concat(contenders, scenarios), ", ")+"; contenders alone: the scenario rate")
	flags.IntVar(&o.rows, "rows", 1_000_000, "rows in the topic")
	flags.IntVar(&o.catalogue, "catalogue", 1_000_000, "learners in the catalogue; three registrations for each, and 5,000 learning objects")
	flags.IntVar(&o.tableRows, "table-rows", 2_000_000, "other rows that are in the table already")
	flags.Float64Var(&o.bad, "bad", 0.02, "share of the rows that are to be rejected")
	flags.IntVar(&o.parts, "partitions", 4, "partitions of the topic")
	flags.IntVar(&o.processes, "processes", 1, "processes of learnsink")
	flags.IntVar(&o.repeat, "repeat", 3, "how often everything is measured; the contenders take turns")
	phases := flags.String("phases", "new,existing,replay", "which of them: rows that are new, the same keys with other values, and a topic read again, which changes nothing")
	flags.Uint64Var(&o.seed, "seed", 1, "where the rows come from")
	bareBatch := flags.String("bare-batch", "5000,2000", "rows in a batch of the bare database; the better one counts")
	binaries := flags.String("binaries", "", "name=path of other builds of learnsink, with commas in between, that are measured in turns with this one")
	flags.StringVar(&o.yaml, "yaml", "", "more lines for learnsink's configuration, such as 'batch: {rows: 5000}'")
	flags.StringVar(&o.profile, "profile", "", "write CPU and allocation profiles of learnsink to this folder")
	flags.StringVar(&o.json, "json", "", "write what was measured to this file")
	flags.StringVar(&o.svg, "svg", "", "draw what was measured into this folder")
	flags.DurationVar(&o.soakFor, "soak", time.Hour, "how long the scenario soak takes; it runs only where --only names it")
	flags.BoolVar(&o.quick, "quick", false, "a small run of everything that says whether the bench works")
	flags.BoolVar(&o.debezium, "debezium", false, "measure Debezium's JDBC sink, too: minutes more")
	flags.BoolVar(&o.hold, "hold", false, "start the servers, say where they are, and keep them until interrupted: the next runs find topics and catalogues made")
	flags.BoolVar(&o.verbose, "verbose", false, "tell more of how it goes")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if flags.NArg() > 0 {
		return o, fmt.Errorf("there are no arguments: %q", flags.Args())
	}
	o.only, o.phases, o.binaries = list(*only), list(*phases), list(*binaries)
	for _, name := range o.only {
		if !slices.Contains(contenders, name) && !slices.Contains(scenarios, name) {
			return o, fmt.Errorf("--only: nothing is named %q", name)
		}
	}
	for _, text := range list(*bareBatch) {
		var n int
		if _, err := fmt.Sscan(text, &n); err != nil || n < 1 {
			return o, fmt.Errorf("--bare-batch: %q", text)
		}
		o.bareBatch = append(o.bareBatch, n)
	}
	for _, phase := range o.phases {
		if !slices.Contains([]string{fresh, existing, replay}, phase) {
			return o, fmt.Errorf("--phases: nothing is named %q", phase)
		}
	}
	if o.rows < 1 || o.catalogue < 100 || o.tableRows < 0 || o.bad < 0 || o.bad > 1 || o.parts < 1 || o.processes < 1 || o.repeat < 1 {
		return o, fmt.Errorf("--rows, --partitions, --processes and --repeat are above 0, --catalogue is 100 or more, --bad is between 0 and 1")
	}
	if o.quick {
		o.rows, o.catalogue, o.tableRows, o.repeat, o.bareBatch = 20_000, 1_000, 10_000, 1, o.bareBatch[:1]
	}
	return o, nil
}

func list(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' })
}

func main() {
	if len(os.Args) == 7 && os.Args[1] == usualVerb {
		if err := consumeAsUsual(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	o, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	}
	err = run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	b, err := open(ctx, o)
	if err != nil {
		return err
	}
	defer b.close()
	if o.hold {
		fmt.Printf("export KAFKA_BROKERS=%s DATABASE_URL='%s'\n", b.brokers, b.database)
		<-ctx.Done()
		return nil
	}
	report := &report{options: o, Began: time.Now().UTC()}
	err = b.measure(ctx, report)
	if len(report.Results) > 0 {
		report.print(os.Stdout)
		if o.json != "" {
			if err := report.write(o.json); err != nil {
				return err
			}
		}
		if o.svg != "" {
			if err := report.draw(o.svg); err != nil {
				return err
			}
		}
	}
	return err
}

var began = time.Now()

// say tells how it goes, to those who wait.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6.1f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
}
