package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
)

// networkFile is the CNI network list below the network directory.
const networkFile = "10-timonel.conflist"

// RemoveLeft ends what earlier runs left in root: the pods, a containerd that still runs, mounts and
// the bridge; afterwards root can be deleted. It starts containerd if none runs, since only that knows
// the pods. Nothing happens when no runtime has lived in root.
func RemoveLeft(ctx context.Context, root string, log *slog.Logger) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return fmt.Errorf("locate %s: %w", root, err)
	}
	if _, err := os.Stat(layoutOf(root).config); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	config := Config{Root: root, Log: log}
	if err := config.readNetwork(); err != nil {
		return err
	}
	r, err := Start(ctx, config)
	if err != nil {
		return err
	}
	return r.RemoveAll(ctx)
}

// readNetwork takes the bridge and the pod networks from what was configured last.
func (c *Config) readNetwork() error {
	path := filepath.Join(layoutOf(c.Root).network, networkFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // pods had no network of their own
	}
	if err != nil {
		return fmt.Errorf("read the pod network: %w", err)
	}
	var list struct {
		Plugins []struct {
			Bridge string `json:"bridge"`
			IPAM   struct {
				Ranges [][]struct {
					Subnet netip.Prefix `json:"subnet"`
				} `json:"ranges"`
			} `json:"ipam"`
		} `json:"plugins"`
	}
	if err := json.Unmarshal(data, &list); err != nil {
		return fmt.Errorf("read the pod network in %s: %w", path, err)
	}
	for _, plugin := range list.Plugins {
		if plugin.Bridge == "" {
			continue
		}
		c.Bridge = plugin.Bridge
		for _, alternatives := range plugin.IPAM.Ranges {
			for _, r := range alternatives {
				c.PodCIDRs = append(c.PodCIDRs, r.Subnet)
			}
		}
	}
	return nil
}
