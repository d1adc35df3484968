// Command learnsink takes learning records from Kafka into PostgreSQL, with an
// accepted event or a dead letter for every row. One file a verb; main.go has
// what they share: the call, its streams, and how it ends.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func main() { os.Exit(untilTold()) }

// untilTold runs this process's call until it ends, or is told to stop: once
// to finish what is in flight, twice to let it fall.
func untilTold() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	return run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
}

// The exit codes, as contract.md has them.
const (
	exitDone   = 0
	exitFailed = 1
	exitCall   = 2 // the call or the configuration is wrong
	exitFault  = 3 // check, send --wait, audit: it ran, and found fault
)

// errFault ends a verb that ran and found fault; the verb has said what.
var errFault = errors.New("found fault")

// callError is an error of the call or the configuration, not of the work.
type callError struct{ error }

func (e callError) Unwrap() error { return e.error }

// badCall makes an error of the call.
func badCall(format string, args ...any) error { return callError{fmt.Errorf(format, args...)} }

// app is one call: its streams, and the flags that every verb takes.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	configFile string
	flags      map[string]string // settings given as flags, by their names in the file
	running    bool              // the call was well-formed: the verb runs
}

// run makes one call and returns its exit code. Data goes to stdout,
// everything else to stderr.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, flags: map[string]string{}}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	verb, err := root.ExecuteContextC(ctx)
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errFault):
		return exitFault
	case errors.Is(err, syscall.EPIPE):
		return exitFailed // whoever read our output has enough
	}
	fmt.Fprintf(stderr, "%s: %v\n", verb.CommandPath(), err)
	if call := (callError{}); errors.As(err, &call) {
		return exitCall
	}
	if !a.running { // cobra's own: an unknown verb or flag, a wrong number of arguments
		fmt.Fprintf(stderr, "See %s --help.\n", verb.CommandPath())
		return exitCall
	}
	return exitFailed
}

// root builds the tree of verbs.
func (a *app) root() *cobra.Command {
	root := group(&cobra.Command{
		Use:   "learnsink",
		Short: "a Kafka sink for learning records",
		Long: `learnsink takes learning records from Kafka into PostgreSQL: every row is applied and
announced by an event, or rejected into a dead letter that says why.

Settings come from flags, then the environment, then the file of --config, then
defaults. Data goes to stdout, everything else to stderr. It exits with 0 when done,
1 when it failed, 2 when the call or the configuration is wrong, and 3 when check,
send --wait or audit ran and found fault.`,
		Version:           buildVersion(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { a.running = true; return nil },
	})
	root.SetVersionTemplate("{{.Version}}\n")
	flags := root.PersistentFlags()
	flags.VarP(&settingFlag{a, "brokers"}, "brokers", "b", "Kafka brokers, host:port,… (KAFKA_BROKERS)")
	flags.Var(&settingFlag{a, "databaseUrl"}, "database-url", "PostgreSQL, postgres://… (DATABASE_URL, else the PG* variables)")
	flags.StringVarP(&a.configFile, "config", "c", "", "configuration file, YAML (LEARNSINK_CONFIG)")
	flags.Var(&settingFlag{a, "logLevel"}, "log-level", "debug, info, warn or error (LEARNSINK_LOG_LEVEL)")
	flags.Var(&settingFlag{a, "logFormat"}, "log-format", "pretty or json (LEARNSINK_LOG_FORMAT; default: pretty on a terminal)")
	root.AddCommand(
		a.serveCommand(), a.migrateCommand(), a.topicsCommand(), a.catalogCommand(),
		a.checkCommand(), a.sendCommand(), a.tailCommand(),
		a.dlqCommand(), a.statusCommand(), a.auditCommand(), a.positionCommand(), a.partitionCommand(), a.healthcheckCommand(),
		a.configCommand(), a.schemaCommand(), a.versionCommand(),
	)
	return root
}

// group makes a command that only holds others: called by itself it says what
// there is, and a verb that it does not have is an error.
func group(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.SuggestionsMinimumDistance = 2
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			cmd.SetOut(cmd.ErrOrStderr())
			if err := cmd.Help(); err != nil {
				return err
			}
			return badCall("no verb given")
		}
		err := fmt.Errorf("unknown verb %q", args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			err = fmt.Errorf("%w: did you mean %s?", err, strings.Join(near, " or "))
		}
		return callError{err}
	}
	return cmd
}

// settingFlag is a flag that overrules a setting of the file.
type settingFlag struct {
	app *app
	key string
}

func (f *settingFlag) Set(text string) error { f.app.flags[f.key] = text; return nil }
func (f *settingFlag) String() string        { return "" }
func (f *settingFlag) Type() string          { return "string" }

// logger writes to stderr as the configuration says.
func (a *app) logger(c *config) zerolog.Logger {
	var out io.Writer = a.stderr
	if c.LogFormat == "pretty" || c.LogFormat == "" && a.terminal(a.stderr) {
		out = zerolog.ConsoleWriter{Out: a.stderr, TimeFormat: "15:04:05", NoColor: !a.terminal(a.stderr)}
	}
	return zerolog.New(out).Level(c.LogLevel).With().Timestamp().Logger()
}

// terminal reports whether a person is looking at a stream.
func (a *app) terminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// warn says something on stderr that changes nothing.
func (a *app) warn(format string, args ...any) {
	fmt.Fprintf(a.stderr, "learnsink: "+format+"\n", args...)
}

// version is set by the linker: -ldflags "-X main.version=v1.2.3".
var version string

// buildVersion names this build: what the linker was told, else what Go knows.
func buildVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
