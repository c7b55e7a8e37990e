package logs

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// watch hears of changes to a log: the file grew, was closed by its writer, or
// another file came under its name.
type watch struct {
	inotify *os.File
	events  chan struct{} // something changed; one is enough
	closed  chan struct{} // the runtime closed a file after writing
	err     error         // why events was closed
}

// watchFile watches the directory of a log, which also tells of its files.
func watchFile(path string) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch a container's log: %w", err)
	}
	mask := uint32(unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_CREATE | unix.IN_MOVED_TO)
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), mask); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watch a container's log: %w", &os.PathError{Op: "inotify", Path: filepath.Dir(path), Err: err})
	}
	w := &watch{
		inotify: os.NewFile(uintptr(fd), "inotify"), // waits in the runtime's poller, not in a thread
		events:  make(chan struct{}, 1),
		closed:  make(chan struct{}, 1),
	}
	go w.read(filepath.Base(path))
	return w, nil
}

func (w *watch) read(name string) {
	buffer := make([]byte, 16*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))
	for {
		n, err := w.inotify.Read(buffer)
		if err != nil {
			w.err = err
			close(w.events)
			return
		}
		ours, shut := false, false
		for data := buffer[:n]; len(data) >= unix.SizeofInotifyEvent; {
			mask := binary.NativeEndian.Uint32(data[4:])
			length := binary.NativeEndian.Uint32(data[12:])
			file := string(trimZeros(data[unix.SizeofInotifyEvent : unix.SizeofInotifyEvent+length]))
			data = data[unix.SizeofInotifyEvent+length:]
			// The file of a rotation may still be written to, under its new name.
			if len(file) < len(name) || file[:len(name)] != name {
				if mask&unix.IN_Q_OVERFLOW == 0 {
					continue
				}
			}
			ours = true
			shut = shut || mask&unix.IN_CLOSE_WRITE != 0 && file == name
		}
		if shut {
			notify(w.closed)
		}
		if ours {
			notify(w.events)
		}
	}
}

func trimZeros(b []byte) []byte {
	for i, c := range b {
		if c == 0 {
			return b[:i]
		}
	}
	return b
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// wait returns when something changed or the container ended.
func (w *watch) wait(ctx context.Context, ended <-chan struct{}) error {
	select {
	case _, ok := <-w.events:
		if !ok {
			return w.failed()
		}
		return nil
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// drained reports, once, that the runtime closed the log: nothing more comes.
func (w *watch) drained() bool {
	select {
	case <-w.closed:
		return true
	default:
		return false
	}
}

// waitDrained waits until the log is closed, something was written, or time is
// up: a log that was closed before the watch began never tells.
func (w *watch) waitDrained(ctx context.Context) error {
	timer := time.NewTimer(drainTimeout)
	defer timer.Stop()
	select {
	case _, ok := <-w.events: // look again
		if !ok {
			return w.failed()
		}
		return nil
	case <-timer.C:
		notify(w.closed)
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *watch) failed() error {
	return fmt.Errorf("watch a container's log: %w", w.err)
}

func (w *watch) close() { w.inotify.Close() }
