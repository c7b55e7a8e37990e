package main

import (
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/timonel/timonel/internal/server"
)

// defaultDataDir is where a cluster keeps its data when nothing else is said: below /var/lib for root,
// in the home directory for others.
func defaultDataDir() string {
	if os.Getuid() == 0 {
		return "/var/lib/timonel"
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ".timonel"
	}
	return filepath.Join(home, ".timonel")
}

func upCommand() *cobra.Command {
	config := server.UpConfig{Config: server.DefaultConfig(), Out: os.Stdout}
	config.DataDir, config.BindAddress = defaultDataDir(), "127.0.0.1"
	config.EnableAdmissionPlugins = []string{"NodeRestriction"}
	config.AllowPrivileged = true
	config.KubeletPreferredAddressTypes = []string{"InternalIP", "ExternalIP", "Hostname"}
	var v int
	c := &cobra.Command{
		Use:   "up",
		Short: "Start a whole cluster on this machine",
		Long: `Start a whole cluster on this machine: API server with etcd, controllers,
scheduler, and a node that runs containers through containerd.

Ctrl-C ends it; started again on the same data directory it goes on where it
was, with the containers that still run.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			config.Log = verbosity(v)
			return server.Up(c.Context(), config)
		},
	}
	f := c.Flags()
	config.Flags(f)
	f.BoolVar(&config.NoNode, "no-node", false, "Run the control plane only.")
	config.Node.SharedFlags(f)
	f.IntVarP(&v, "v", "v", 0, "Log level: 0 warnings, 1 information, 2 everything.")
	return c
}
