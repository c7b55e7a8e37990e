package etcd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver"
)

// ErrDamaged says that etcd's files cannot be understood. They are left as they are; etcdutl can look
// into them, and a backup can replace them.
var ErrDamaged = errors.New("the data is damaged, or not etcd's")

// newServer makes the server. With files that it does not understand etcd panics, partly on goroutines
// of its own; here that is ErrDamaged.
func newServer(c config.ServerConfig) (s *etcdserver.EtcdServer, err error) {
	if err := checkDatabase(filepath.Join(c.DataDir, databaseFile)); err != nil {
		return nil, err
	}
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, reason)
		}
	}()
	return etcdserver.NewServer(c)
}

// lockWait bounds the wait for somebody, such as a backup, who has the database open.
const lockWait = 10 * time.Second

// checkDatabase opens the B-tree file as etcd will, without reading more than its first pages.
func checkDatabase(path string) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	db, err := bolt.Open(path, 0, &bolt.Options{ReadOnly: true, Timeout: lockWait})
	if err != nil {
		return fmt.Errorf("%w: open %s: %w", ErrDamaged, path, err)
	}
	return db.Close()
}
