package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"github.com/timonel/timonel/internal/server"
)

// verbosity turns -v into a log level: 0 warnings, 1 information, 2 and more everything.
func verbosity(v int) *slog.Logger {
	level := slog.LevelWarn
	switch {
	case v == 1:
		level = slog.LevelInfo
	case v > 1:
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	slog.SetDefault(log)
	return log
}

func apiserverCommand() *cobra.Command {
	config := server.DefaultConfig()
	var v int
	c := &cobra.Command{
		Use:   "apiserver",
		Short: "Run the API server alone",
		Long: `Run the API server alone, with kube-apiserver's flags.

Without --etcd-servers, etcd runs inside the process and keeps its data in
--data-dir. Certificates that no flag names are made there at first boot.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			config.Log = verbosity(v)
			s, err := server.Open(c.Context(), config, server.NodeIdentity{})
			if err != nil {
				return err
			}
			defer s.Close()
			listener, err := s.Listen()
			if err != nil {
				return err
			}
			if err := s.WriteKubeconfigs(); err != nil {
				return err
			}
			return s.Run(c.Context(), listener, func() { config.Log.Info("ready", "url", s.URL()) })
		},
	}
	config.Flags(c.Flags())
	c.Flags().IntVarP(&v, "v", "v", 0, "Log level: 0 warnings, 1 information, 2 everything.")
	return c
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := json.MarshalIndent(server.Version(), "", "  ")
			if err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), string(b))
			return nil
		},
	}
}
