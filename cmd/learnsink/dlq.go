package main

import "github.com/spf13/cobra"

// dlqCommand is the group of verbs about dead letters: a file a verb, dlq_*.go.
func (a *app) dlqCommand() *cobra.Command {
	cmd := group(&cobra.Command{
		Use:   "dlq",
		Short: "work with dead letters",
		Long: `dlq is for those who are called when rows fail: what is wrong, mending it, and sending the
rows again. The table rejection is what it works with; rows are sent again by jobs, which
learnsink serve runs.`,
	})
	cmd.AddCommand(
		a.dlqGroupsCommand(), a.dlqListCommand(), a.dlqShowCommand(), a.dlqReleaseCommand(),
		a.dlqReplayCommand(), a.dlqEditCommand(), a.dlqWhatIfCommand(),
		a.dlqWaitingCommand(),
		a.dlqEraseCommand(), a.dlqArchiveCommand(), a.dlqRestoreCommand(), a.dlqPurgeCommand(), a.dlqRevertCommand(),
		a.dlqJobsCommand(), a.dlqJobCommand(),
		a.dlqEraseCommand(),
	)
	return cmd
}
