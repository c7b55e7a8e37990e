package handover

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// ErrInUse says that a server works on a data directory, so that it cannot be copied.
var ErrInUse = errors.New("a server is running on the data directory; check it through its client port instead (--etcd-servers)")

// Copy copies etcd's data directory (what is below member/) to an empty directory, so that it can be opened without writing to
// the original. It fails with ErrInUse if a server has it open.
func Copy(from, to string) error {
	locks := []string{from, filepath.Join(from, "member", "snap", "db")} // Timonel's, and that of a stock etcd
	for _, path := range locks {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("open etcd's data: %w", err)
		}
		defer f.Close() // gives the lock back
		if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
			if errors.Is(err, unix.EWOULDBLOCK) {
				return ErrInUse
			}
			return fmt.Errorf("lock %s: %w", path, err)
		}
	}
	root := filepath.Join(from, "member")
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		if d.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		return copyFile(path, target)
	})
	if err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
