package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/timonel/timonel/internal/server"
)

func downCommand() *cobra.Command {
	dataDir := defaultDataDir()
	var v int
	c := &cobra.Command{
		Use:   "down",
		Short: "End the containers that a cluster left running",
		Long: `End the containers that "timonel up" left running on this machine, with the
private containerd that holds them and its network.

The cluster's objects stay in the data directory: "timonel up" makes the pods
anew from them. To forget the cluster, delete the directory afterwards.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := server.Down(c.Context(), dataDir, verbosity(v)); err != nil {
				return err
			}
			fmt.Fprintf(c.OutOrStdout(), "no containers run; the objects are kept in %s\n", dataDir)
			return nil
		},
	}
	c.Flags().StringVar(&dataDir, "data-dir", dataDir, "Data directory of the cluster.")
	c.Flags().IntVarP(&v, "v", "v", 0, "Log level: 0 warnings, 1 information, 2 everything.")
	return c
}
