package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// healthcheckCommand is `healthcheck`: whether a serve on this machine is
// alive, for containers that have no shell.
func (a *app) healthcheckCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "healthcheck",
		Short: "ask a running serve whether it is alive",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			address := c.HTTP
			if address == "off" {
				address = c.Metrics
			}
			if address == "off" {
				return badCall("there is no address to ask: say --http")
			}
			host, port, err := net.SplitHostPort(address)
			if err != nil {
				return badCall("%v", err)
			}
			if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
				host = "127.0.0.1" // it listens on every address
			}
			return askHealth(cmd.Context(), "http://"+net.JoinHostPort(host, port)+"/healthz")
		},
	}
	cmd.Flags().Var(&settingFlag{a, "http"}, "http", "the address that serve listens on (LEARNSINK_HTTP; default 127.0.0.1:8080)")
	return cmd
}

func askHealth(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return callError{err}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy: it is this machine
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s says %s", url, response.Status)
	}
	return nil
}
