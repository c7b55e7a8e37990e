// Command timonel is a Kubernetes API server and, with `timonel up`, a whole
// cluster on one machine. Started under the name kube-apiserver it is the API
// server.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"
)

// profiledBytes is how much is allocated between two that a heap profile knows of: with Go's 512 KB, to follow the stack of every fourth
// write that allocates is 2 % of what they cost.
const profiledBytes = 4 << 20

func main() {
	runtime.MemProfileRate = profiledBytes // before anything else
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(os.Stderr, "timonel:", err)
		os.Exit(1)
	}
}

// command is what the program is under the name that it was started with.
func command() *cobra.Command {
	if filepath.Base(os.Args[0]) == "kube-apiserver" {
		c := apiserverCommand()
		c.Use = "kube-apiserver"
		return silent(c)
	}
	root := &cobra.Command{
		Use:   "timonel",
		Short: "A Kubernetes API server, and a whole cluster on one machine",
	}
	root.AddCommand(upCommand(), downCommand(), apiserverCommand(), controllersCommand(), schedulerCommand(), nodeCommand(), traceCommand(), checkCommand(), versionCommand())
	return silent(root)
}

// silent leaves printing errors to main.
func silent(c *cobra.Command) *cobra.Command {
	c.SilenceErrors, c.SilenceUsage = true, true
	return c
}
