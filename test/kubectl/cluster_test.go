//go:build stories

package kubectl

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cluster is a running `timonel up` with a node of its own.
type cluster struct {
	bin        string
	dir        string
	kubeconfig string
	url        string
	node       string
	args       []string
	cmd        *exec.Cmd
	output     *strings.Builder
}

// Numbers of its own, so that it does not meet a cluster that the user runs.
const (
	storyNode   = "story-node"
	storyCIDR   = "10.245.0.0/24"
	storyBridge = "tmlstory0"
)

// freePort is a port that nobody listens on now.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// up starts a cluster in a temporary directory and waits until its node is ready.
func up(bin string) (*cluster, error) {
	dir, err := os.MkdirTemp("", "tml")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	kubeletPort, err := freePort()
	if err != nil {
		return nil, err
	}
	c := &cluster{
		bin: bin, dir: dir, node: storyNode, kubeconfig: filepath.Join(dir, "admin.kubeconfig"), url: "https://127.0.0.1:" + strconv.Itoa(port),
		args: []string{
			"up", "--data-dir", dir, "--secure-port", strconv.Itoa(port), "--kubelet-port", strconv.Itoa(kubeletPort),
			"--node-name", storyNode, "--pod-cidr", storyCIDR, "--bridge", storyBridge, "--demo-image", filepath.Join(bin, "demo.tar"),
		},
	}
	if err := c.start(); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// startWait bounds the first start: containerd unpacks the images then.
const startWait = 90 * time.Second

func (c *cluster) start() error {
	c.output = &strings.Builder{}
	c.cmd = exec.Command(filepath.Join(c.bin, "timonel"), c.args...)
	pipe, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	c.cmd.Stderr = os.Stderr
	if err := c.cmd.Start(); err != nil {
		return err
	}
	ready := make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(pipe)
		for lines.Scan() {
			fmt.Fprintln(c.output, lines.Text())
			if strings.HasSuffix(lines.Text(), " Ready") {
				ready <- nil
				_, _ = io.Copy(io.Discard, pipe)
				return
			}
		}
		ready <- fmt.Errorf("timonel up ended before its node was ready:\n%s", c.output)
	}()
	select {
	case err := <-ready:
		return err
	case <-time.After(startWait):
		return fmt.Errorf("the node was not ready within %s:\n%s", startWait, c.output)
	}
}

// stop ends the cluster and removes what it left behind.
func (c *cluster) stop() {
	if c.cmd != nil && c.cmd.Process != nil {
		_, _ = c.kubectl("delete", "namespaces", "--all", "--wait=false")
		_ = c.cmd.Process.Signal(syscall.SIGTERM)
		_ = c.cmd.Wait()
	}
	_ = exec.Command(filepath.Join(c.bin, "timonel"), "down", "--data-dir", c.dir, "--bridge", storyBridge, "--pod-cidr", storyCIDR).Run()
	_ = os.RemoveAll(c.dir)
}

func (c *cluster) kubectl(args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(c.bin, *kubectlName), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.kubeconfig)
	out, err := cmd.CombinedOutput()
	return string(out), err
}
