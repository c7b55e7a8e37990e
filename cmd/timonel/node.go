package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/timonel/timonel/internal/server"
)

func nodeCommand() *cobra.Command {
	config := server.NodeConfig{Out: os.Stdout}
	var kubeconfig string
	var v int
	c := &cobra.Command{
		Use:   "node",
		Short: "Run the node agent alone",
		Long: `Run the node agent alone: it registers this machine as a node and runs the
pods that are bound to it through a container runtime.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			client, rest, err := clientFrom(kubeconfig, "kubelet")
			if err != nil {
				return err
			}
			config.Log = verbosity(v)
			if config.DataDir == "" {
				config.DataDir = filepath.Join(defaultDataDir(), "node")
			}
			return server.RunNode(c.Context(), client, rest, config)
		},
	}
	f := c.Flags()
	f.StringVar(&kubeconfig, "kubeconfig", "", "Credentials and address of the API server.")
	config.Flags(f)
	f.IntVarP(&v, "v", "v", 0, "Log level: 0 warnings, 1 information, 2 everything.")
	return c
}
