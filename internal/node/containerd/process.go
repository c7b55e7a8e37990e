package containerd

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// process is a containerd that runs: our child, or one that an earlier run left.
type process interface {
	signal(sig syscall.Signal) error
	ended() <-chan struct{} // closed when it is gone
}

// startProcess runs containerd with a configuration file, in a session of its
// own, so that Ctrl-C at our terminal does not reach it, and with a file as its
// output, so that it can go on writing when we are gone.
func startProcess(program, config string, log *os.File) (process, error) {
	cmd := exec.Command(program, "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// It looks for its shim and for runc in PATH; a supervisor's notify socket is
	// meant for us.
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); name != "PATH" && name != "NOTIFY_SOCKET" {
			cmd.Env = append(cmd.Env, variable)
		}
	}
	cmd.Env = append(cmd.Env, "PATH="+strings.Trim(os.Getenv("PATH")+":"+systemDirectories, ":"))
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	c := &child{cmd: cmd, gone: make(chan struct{})}
	go func() {
		cmd.Wait() // its status says nothing that its log does not
		close(c.gone)
	}()
	return c, nil
}

type child struct {
	cmd  *exec.Cmd
	gone chan struct{}
}

func (c *child) ended() <-chan struct{} { return c.gone }

func (c *child) signal(sig syscall.Signal) error { return c.cmd.Process.Signal(sig) }

// findProcess looks for a containerd that runs with this configuration file, or
// returns nil. The command line decides, not a file with a number in it: such a
// file is missing when we were killed before writing it, and names a stranger
// when the number was used again.
func findProcess(program, config string) process {
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil
	}
	wanted := []byte(program + "\x00--config\x00" + config + "\x00")
	for _, entry := range entries {
		line, err := os.ReadFile(entry)
		if err != nil || !bytes.Equal(line, wanted) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(entry)))
		if err != nil {
			continue
		}
		if p, err := adoptProcess(pid, wanted); err == nil {
			return p
		}
	}
	return nil
}

// stranger is a process that we did not start, held by a descriptor that cannot
// come to mean another one.
type stranger struct {
	fd   int // from pidfd_open
	gone chan struct{}
}

func adoptProcess(pid int, commandLine []byte) (*stranger, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("hold process %d: %w", pid, err)
	}
	// Between reading the command line and opening it, the number may have
	// passed to another process. Now it cannot: look again.
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Equal(line, commandLine) {
		unix.Close(fd)
		return nil, fmt.Errorf("process %d is another one by now", pid)
	}
	s := &stranger{fd: fd, gone: make(chan struct{})}
	go func() {
		for {
			_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		close(s.gone)
	}()
	return s, nil
}

func (s *stranger) ended() <-chan struct{} { return s.gone }

func (s *stranger) signal(sig syscall.Signal) error {
	return unix.PidfdSendSignal(s.fd, sig, nil, 0)
}

// endProcess asks p to end, insists after stopTimeout, and returns when it is gone.
func endProcess(p process) error {
	if err := p.signal(syscall.SIGTERM); err != nil && !isGone(err) {
		return fmt.Errorf("end containerd: %w", err)
	}
	select {
	case <-p.ended():
		return nil
	case <-time.After(stopTimeout):
	}
	if err := p.signal(syscall.SIGKILL); err != nil && !isGone(err) {
		return fmt.Errorf("kill containerd: %w", err)
	}
	<-p.ended()
	return nil
}

func isGone(err error) bool { return errors.Is(err, os.ErrProcessDone) || errors.Is(err, unix.ESRCH) }
