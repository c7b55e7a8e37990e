package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/timonel/timonel/internal/node"
	"github.com/timonel/timonel/internal/node/containerd"
)

// Down ends the pods that `timonel up`, or `timonel node`, left running on a data directory, and the
// private containerd that holds them, with their network and mounts. What etcd holds stays: started
// again, the cluster makes the pods anew.
//
// Errors: ErrDirectoryInUse while the cluster runs; fs.ErrNotExist without the directory.
func Down(ctx context.Context, dataDir string, log *slog.Logger) error {
	if _, err := os.Stat(dataDir); err != nil {
		return fmt.Errorf("find data directory: %w", err)
	}
	lock, err := lockDirectory(dataDir)
	if err != nil {
		return err
	}
	defer lock.Close()
	var problems []error
	for _, agent := range []string{filepath.Join(dataDir, "node"), dataDir} { // of `up`, of `node`
		if _, err := os.Stat(agent); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := containerd.RemoveLeft(ctx, filepath.Join(agent, "containerd"), log); err != nil {
			problems = append(problems, fmt.Errorf("end pods: %w", err))
			continue // their volumes may be in use
		}
		problems = append(problems, node.UnmountVolumes(agent))
	}
	return errors.Join(problems...)
}
