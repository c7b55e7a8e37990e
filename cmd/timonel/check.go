package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"github.com/timonel/timonel/internal/api"
	"github.com/timonel/timonel/internal/handover"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/server"
	"github.com/timonel/timonel/internal/storage"
	"github.com/timonel/timonel/internal/storage/encrypt"
	"github.com/timonel/timonel/internal/storage/etcd"
)

func checkCommand() *cobra.Command {
	c := &cobra.Command{Use: "check", Short: "Check what a server would work with"}
	c.AddCommand(checkEtcdCommand())
	return c
}

// etcdSource is where `timonel check etcd` reads.
type etcdSource struct {
	dataDir    string
	prefix     string
	encryption string // configuration file; "" for none
	servers    etcd.Config
}

// errFindings makes the exit status of a check that found something 1.
var errFindings = errors.New("keys would not be written back byte for byte")

func checkEtcdCommand() *cobra.Command {
	var from etcdSource
	c := &cobra.Command{
		Use:   "etcd",
		Short: "Find keys in etcd that Timonel would not write back byte for byte",
		Long: `Read every key below --etcd-prefix and report those that Timonel could not read,
would not serve, or would write back in other bytes. Nothing is written: of a data
directory a copy is opened.

It answers whether Timonel can take over the etcd of a live cluster, and hand it
back: run it before. The exit status is 1 if anything is reported. See docs/hand-over.md.`,
		Example: `  timonel check etcd --etcd-servers https://10.0.0.1:2379 --etcd-cafile ca.crt \
    --etcd-certfile apiserver-etcd-client.crt --etcd-keyfile apiserver-etcd-client.key
  timonel check etcd --data-dir /var/lib/timonel`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			store, done, err := from.open(c.Context())
			if err != nil {
				return err
			}
			defer done()
			definitions := api.Groups(api.Options{})
			if from.encryption != "" {
				t, err := encrypt.Open(c.Context(), encrypt.Options{
					File: from.encryption, Locate: server.LocateStored(from.prefix, definitions), Log: slog.New(slog.DiscardHandler),
				})
				if err != nil {
					return err
				}
				store = storage.Transform(store, t)
			}
			return checkEtcd(c.Context(), store, from.prefix, definitions, c.OutOrStdout())
		},
	}
	f := c.Flags()
	f.StringVar(&from.dataDir, "data-dir", "", "Data directory of a Timonel, or of an etcd with one member, that is not running.")
	f.StringSliceVar(&from.servers.Endpoints, "etcd-servers", nil, "etcd servers (scheme://host:port, comma separated).")
	f.StringVar(&from.prefix, "etcd-prefix", "/registry", "Prefix of the keys.")
	f.StringVar(&from.servers.CAFile, "etcd-cafile", "", "CA file to verify etcd with.")
	f.StringVar(&from.servers.CertFile, "etcd-certfile", "", "Client certificate for etcd.")
	f.StringVar(&from.servers.KeyFile, "etcd-keyfile", "", "Key of the client certificate for etcd.")
	f.StringVar(&from.encryption, "encryption-provider-config", "", "File with the configuration of encryption at rest; without it encrypted values are reported.")
	c.MarkFlagsOneRequired("data-dir", "etcd-servers")
	c.MarkFlagsMutuallyExclusive("data-dir", "etcd-servers")
	return c
}

// openWait bounds the wait for the copy of a data directory to open; a member of a larger cluster never does.
const openWait = 2 * time.Minute

func (s *etcdSource) open(ctx context.Context) (storage.Store, func(), error) {
	quiet := slog.New(slog.DiscardHandler)
	if len(s.servers.Endpoints) > 0 {
		s.servers.Compaction, s.servers.Log = -1, quiet
		store, err := etcd.Dial(ctx, s.servers)
		if err != nil {
			return nil, nil, err
		}
		return store, func() { _ = store.Close() }, nil // it was only read from
	}
	dir := s.dataDir
	if _, err := os.Stat(filepath.Join(dir, "member")); err != nil {
		dir = filepath.Join(dir, "etcd")
	}
	scratch, err := os.MkdirTemp("", "timonel-check-")
	if err != nil {
		return nil, nil, err
	}
	remove := func() { _ = os.RemoveAll(scratch) } // a leftover copy harms nobody
	if err := handover.Copy(dir, scratch); err != nil {
		remove()
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, openWait)
	defer cancel()
	store, err := etcd.Embedded(ctx, etcd.EmbeddedConfig{Dir: scratch, Compaction: -1, NoFsync: true, Log: quiet})
	if err != nil {
		remove()
		return nil, nil, fmt.Errorf("open a copy of %s (the data of one member of several can be checked through --etcd-servers only): %w", dir, err)
	}
	return store, func() { _ = store.Close(); remove() }, nil
}

func checkEtcd(ctx context.Context, store storage.Store, prefix string, definitions []*kind.Definition, out io.Writer) error {
	sum, err := handover.Check(ctx, store, prefix, definitions, func(f handover.Finding) {
		fmt.Fprintf(out, "%s: %v\n", f.Key, f.Err)
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d keys of %d resources at revision %d: %d would be written back byte for byte, %d would not\n",
		sum.Keys, sum.Resources, sum.Revision, sum.Same, sum.Findings)
	if sum.Findings > 0 {
		return fmt.Errorf("%d %w", sum.Findings, errFindings)
	}
	return nil
}
