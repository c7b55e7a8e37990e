//go:build stories

package kubectl

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// cluster is a `timonel up` with a data directory, ports and a pod network of its own. It can be
// ended and started again.
type cluster struct {
	dir        string // data directory
	kubeconfig string
	url        string
	port       string // of the API server
	node       string
	nodePort   string // of the node's own endpoint
	bridge     string
	podCIDR    string
	args       []string // of `timonel`, "up" first
	cmd        *exec.Cmd
	exited     chan struct{} // closed when cmd has ended
	output     output
}

// output collects what a process prints; a reader may look at it meanwhile.
type output struct {
	mu   sync.Mutex
	text strings.Builder
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// Pod networks of stories: 10.245.N.0/24 on bridge tmlsN, so that they meet neither each other nor a
// cluster that the user runs.
var networks atomic.Int32

// ports is the last port that a cluster was given. Those of clusters are below 30000, where node ports begin, and below those
// that outgoing connections get: a client that dials while a cluster is down could take its port.
var ports atomic.Int32

func init() { ports.Store(10000 + rand.Int32N(10000)) }

// freePort is a port that nobody listens on now, another one each time.
func freePort() (string, error) {
	for {
		port := ports.Add(1)
		if port >= 30000 {
			return "", errors.New("no port is free")
		}
		l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
		if err == nil {
			return strconv.Itoa(int(port)), l.Close()
		}
	}
}

// freeNetwork is the number of a pod network whose bridge is not there: an earlier run may have been killed, and have left its pods.
func freeNetwork() int32 {
	for {
		n := networks.Add(1)
		if _, err := net.InterfaceByName(fmt.Sprint("tmls", n)); err != nil {
			return n
		}
	}
}

// newCluster chooses where a cluster will live. Arguments go to `timonel up` besides its own.
func newCluster(args ...string) (*cluster, error) {
	dir, err := os.MkdirTemp("", "tml")
	if err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	nodePort, err := freePort()
	if err != nil {
		return nil, err
	}
	n := freeNetwork()
	c := &cluster{
		dir: dir, kubeconfig: filepath.Join(dir, "admin.kubeconfig"), url: "https://127.0.0.1:" + port, port: port,
		node: fmt.Sprintf("node-%d", n), nodePort: nodePort, bridge: fmt.Sprintf("tmls%d", n), podCIDR: fmt.Sprintf("10.245.%d.0/24", n),
	}
	c.args = append([]string{
		"up", "--data-dir", dir, "--secure-port", port, "--kubelet-port", nodePort, "--node-name", c.node,
		"--pod-cidr", c.podCIDR, "--bridge", c.bridge, "--demo-image", filepath.Join(bin, "demo.tar"),
	}, args...)
	return c, nil
}

// Bounds of waiting for a process.
const (
	startWait = 60 * time.Second // containerd unpacks the images at the first start
	stopWait  = 30 * time.Second
	downWait  = 60 * time.Second
)

// start runs the cluster and returns when its first screen is complete.
func (c *cluster) start() error {
	c.output = output{}
	c.cmd = exec.Command(filepath.Join(bin, "timonel"), c.args...)
	pipe, err := c.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	c.cmd.Stderr = &c.output
	if err := c.cmd.Start(); err != nil {
		return err
	}
	c.exited = make(chan struct{})
	up := make(chan struct{})
	go func() {
		lines := bufio.NewScanner(pipe)
		for lines.Scan() {
			fmt.Fprintln(&c.output, lines.Text())
			if strings.HasPrefix(lines.Text(), "The cluster is up") {
				close(up)
				break
			}
		}
		_, _ = io.Copy(&c.output, pipe)
		_ = c.cmd.Wait() // its status is in cmd.ProcessState
		close(c.exited)
	}()
	select {
	case <-up:
		if strings.Contains(c.output.String(), "not started: ") {
			return errors.Join(fmt.Errorf("timonel up has no node:\n%s", &c.output), c.end(syscall.SIGTERM))
		}
		return nil
	case <-c.exited:
		return fmt.Errorf("timonel up ended:\n%s", &c.output)
	case <-time.After(startWait):
		return fmt.Errorf("timonel up was not ready within %s:\n%s", startWait, &c.output)
	}
}

func (c *cluster) running() bool {
	if c.cmd == nil {
		return false
	}
	select {
	case <-c.exited:
		return false
	default:
		return true
	}
}

// end signals the cluster's process and waits for its end.
func (c *cluster) end(signal syscall.Signal) error {
	if !c.running() {
		return nil
	}
	if err := c.cmd.Process.Signal(signal); err != nil {
		return err
	}
	select {
	case <-c.exited:
		return nil
	case <-time.After(stopWait):
		_ = c.cmd.Process.Kill()
		return fmt.Errorf("timonel up did not end within %s of %s:\n%s", stopWait, signal, &c.output)
	}
}

// panicked matches what the program prints when a bug of ours was met.
var panicked = regexp.MustCompile(`(?m)^(panic: |fatal error: |goroutine \d+ \[running\])|level=ERROR.*panic`)

// remove ends the cluster and takes away everything that it left. It fails when the program has
// panicked, which nobody may have noticed.
func (c *cluster) remove() error {
	err := c.end(syscall.SIGTERM)
	if where := panicked.FindString(c.output.String()); where != "" {
		err = errors.Join(err, fmt.Errorf("timonel panicked (%q):\n%s", where, &c.output))
	}
	down := exec.Command(filepath.Join(bin, "timonel"), "down", "--data-dir", c.dir)
	down.WaitDelay = downWait
	if out, problem := down.CombinedOutput(); problem != nil {
		return errors.Join(err, fmt.Errorf("timonel down: %w: %s", problem, out))
	}
	return errors.Join(err, os.RemoveAll(c.dir))
}

// client is a client with all rights.
func (c *cluster) client() (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.kubeconfig)
	if err != nil {
		return nil, err
	}
	return kubernetes.NewForConfig(config)
}

// kubeconfigFor writes a kubeconfig whose default namespace is the story's.
func (c *cluster) kubeconfigFor(namespace, path string) error {
	config, err := clientcmd.LoadFromFile(c.kubeconfig)
	if err != nil {
		return err
	}
	config.Contexts[config.CurrentContext].Namespace = namespace
	return clientcmd.WriteToFile(*config, path)
}
