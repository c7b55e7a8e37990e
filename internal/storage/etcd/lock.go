//go:build unix

package etcd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// lockDir takes the data directory for this process, or fails with ErrLocked.
// etcd itself would wait for the other to go away. Ours is a lock on the directory, so that
// it works before there are files; a stock etcd shows by its lock on the database.
func lockDir(dir string) (*os.File, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := tryLock(d); err != nil {
		d.Close()
		return nil, err
	}
	db, err := os.Open(filepath.Join(dir, databaseFile))
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err == nil {
		err = tryLock(db)
		db.Close() // gives the lock back
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func tryLock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return ErrLocked
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}
