package node

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/timonel/timonel/internal/node/cri"
)

// Container logs are bounded as a kubelet bounds them by default.
const (
	maxLogSize  = 10 << 20 // bytes; a log that grew beyond is rotated
	maxLogFiles = 5        // of a container, the current one included
	// rotatePeriod is how often sizes are looked at: no event tells them.
	rotatePeriod = 10 * time.Second
	// rotatedFormat is the time in the name of a rotated log: 0.log.20260102-150405.
	rotatedFormat = "20060102-150405"
)

// rotateLogs keeps the logs of running containers within their bound.
func (a *Agent) rotateLogs(ctx context.Context) {
	ticker := time.NewTicker(rotatePeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		for id, file := range a.runningLogs() {
			if err := a.rotateLog(ctx, id, file, maxLogSize, time.Now()); err != nil && ctx.Err() == nil {
				a.log.Warn("container log not rotated", "file", file, "err", err)
			}
		}
	}
}

// runningLogs are the log files of running containers, by container id.
func (a *Agent) runningLogs() map[string]string {
	a.mu.Lock()
	views := make([]*podView, 0, len(a.mu.workers))
	for _, w := range a.mu.workers {
		views = append(views, w.view)
	}
	a.mu.Unlock()
	logs := map[string]string{}
	for _, v := range views {
		v.mu.Lock()
		for _, c := range v.mu.seen.containers {
			if c.running() && c.logPath != "" {
				logs[c.id] = c.logPath
			}
		}
		v.mu.Unlock()
	}
	return logs
}

// rotateLog moves a log that is larger than limit aside and has the runtime
// begin a new one. Older ones are compressed, the oldest removed.
func (a *Agent) rotateLog(ctx context.Context, id, file string, limit int64, now time.Time) error {
	info, err := os.Stat(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Size() < limit {
		return nil
	}
	old, err := rotatedLogs(file)
	if err != nil {
		return err
	}
	for len(old) > maxLogFiles-2 {
		if err := os.Remove(old[0]); err != nil {
			return err
		}
		old = old[1:]
	}
	for _, name := range old {
		if !strings.HasSuffix(name, ".gz") {
			if err := compress(name); err != nil {
				return err
			}
		}
	}
	aside := file + "." + now.Format(rotatedFormat)
	if err := os.Rename(file, aside); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, cri.CallTimeout)
	defer cancel()
	if _, err := a.runtime.Runtime.ReopenContainerLog(ctx, &runtimeapi.ReopenContainerLogRequest{ContainerId: id}); err != nil {
		// The runtime still writes to the old file: give it back its name.
		return errors.Join(fmt.Errorf("reopen log: %w", err), os.Rename(aside, file))
	}
	return nil
}

// rotatedLogs are the rotated files of a log, the oldest first.
func rotatedLogs(file string) ([]string, error) {
	names, err := filepath.Glob(file + ".*")
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return slices.DeleteFunc(names, func(name string) bool {
		if strings.HasSuffix(name, ".tmp") {
			_ = os.Remove(name) // of a compression that was cut short
			return true
		}
		return false
	}), nil
}

func compress(file string) error {
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	temporary := file + ".tmp"
	out, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	w := gzip.NewWriter(out)
	_, err = io.Copy(w, in)
	err = errors.Join(err, w.Close(), out.Close())
	if err == nil {
		err = os.Rename(temporary, file+".gz")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("compress %s: %w", file, err), os.Remove(temporary))
	}
	return os.Remove(file)
}

// removeLog drops a container's log with its rotated files.
func removeLog(file string) {
	if file == "" {
		return
	}
	old, err := rotatedLogs(file)
	if err != nil {
		return
	}
	for _, name := range append(old, file) {
		_ = os.Remove(name)
	}
}
