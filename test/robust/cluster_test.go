package robust_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

const (
	namespace = "robust"
	token     = "robust-token"
	startWait = 60 * time.Second // of a process, on a crowded machine
)

// process is a program that can be killed and started again with the same arguments.
type process struct {
	name    string
	command []string
	output  string // file
	check   func() error

	mu  sync.Mutex
	cmd *exec.Cmd
}

func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	out, err := os.OpenFile(p.output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	p.cmd = exec.Command(p.command[0], p.command[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return p.cmd.Start()
}

func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = p.cmd.Process.Signal(s)
	}
}

// kill ends the process as a power cut would, as far as the process can see.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil {
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

// ready waits until the process answers.
func (p *process) ready() error {
	end := time.Now().Add(startWait)
	for {
		err := p.check()
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			tail, _ := os.ReadFile(p.output)
			return fmt.Errorf("%s is not ready: %w\n%s", p.name, err, tail[max(0, len(tail)-2000):])
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// cluster is an etcd and the API servers on it.
type cluster struct {
	etcd     *process
	etcdURL  string
	servers  []*process
	links    []*link // of each server to etcd
	urls     []string
	client   *clientv3.Client
	requests *http.Client // of the test itself
}

func startCluster(t *testing.T, n int) *cluster {
	t.Helper()
	dir := t.TempDir()
	program := os.Getenv("TIMONEL")
	if program == "" {
		program, _ = filepath.Abs("../../bin/timonel")
	}
	if _, err := os.Stat(program); err != nil {
		t.Fatalf("%v (make build makes it; TIMONEL names another)", err)
	}
	etcdProgram := filepath.Join(dir, "etcdserver")
	if out, err := exec.Command("go", "build", "-o", etcdProgram, "./etcdserver").CombinedOutput(); err != nil {
		t.Fatalf("build etcdserver: %v\n%s", err, out)
	}
	tokens := filepath.Join(dir, "tokens.csv")
	if err := os.WriteFile(tokens, []byte(token+",robust,robust,\"system:masters\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, n+2)
	c := &cluster{etcdURL: "http://127.0.0.1:" + ports[0], requests: newHTTPClient()}
	c.etcd = &process{
		name: "etcd", output: filepath.Join(dir, "etcd.log"),
		command: []string{etcdProgram, filepath.Join(dir, "etcd"), ports[0], ports[1]},
		check: func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err := c.client.Get(ctx, "/ready")
			return err
		},
	}
	t.Cleanup(c.etcd.kill)
	if err := c.etcd.start(); err != nil {
		t.Fatal(err)
	}
	var err error
	c.client, err = clientv3.New(clientv3.Config{
		Endpoints: []string{c.etcdURL}, DialKeepAliveTime: 2 * time.Second, DialKeepAliveTimeout: 2 * time.Second, PermitWithoutStream: true,
		Logger: zap.NewNop(), // it tells of every retry
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.client.Close() })
	if err := c.etcd.ready(); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		url := "https://127.0.0.1:" + ports[2+i]
		link := newLink(t, "127.0.0.1:"+ports[0])
		s := &process{
			name: fmt.Sprintf("server %d", i), output: filepath.Join(dir, fmt.Sprintf("server%d.log", i)),
			command: []string{
				program, "apiserver", "--data-dir", filepath.Join(dir, fmt.Sprintf("server%d", i)), "--etcd-servers", "http://" + link.address(),
				"--bind-address", "127.0.0.1", "--secure-port", ports[2+i], "--token-auth-file", tokens, "--endpoint-reconciler-type", "none",
			},
			check: func() error { return c.get(url+"/readyz", nil) },
		}
		t.Cleanup(s.kill)
		if err := s.start(); err != nil {
			t.Fatal(err)
		}
		if err := s.ready(); err != nil {
			t.Fatal(err)
		}
		c.servers, c.links, c.urls = append(c.servers, s), append(c.links, link), append(c.urls, url)
	}
	body := []byte(`{"metadata":{"name":"` + namespace + `"}}`)
	r, err := c.request(t.Context(), "POST", c.urls[0]+"/api/v1/namespaces", body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.requests.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusCreated {
		t.Fatalf("create namespace: %s", resp.Status)
	}
	return c
}

// freePorts are ports that nobody listens on now. They are below those that outgoing connections get (32768 and above), or a client that
// dials while a server is down could take the server's port.
func freePorts(t *testing.T, n int) (ports []string) {
	t.Helper()
	for port := 10000 + rand.IntN(10000); len(ports) < n; port++ {
		if port == 30000 {
			t.Fatal("no port is free")
		}
		l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			continue
		}
		l.Close()
		ports = append(ports, strconv.Itoa(port))
	}
	return ports
}

func newHTTPClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // each server made its own authority
		ForceAttemptHTTP2: true,
		DialContext:       (&net.Dialer{Timeout: time.Second}).DialContext,
	}}
}

func (c *cluster) request(ctx context.Context, method, url string, body []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.GetBody = nil // never sent twice behind our back
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	return r, nil
}

func (c *cluster) get(url string, into any) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r, err := c.request(ctx, "GET", url, nil)
	if err != nil {
		return err
	}
	resp, err := c.requests.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("%s: %s", resp.Status, b)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(bufio.NewReader(resp.Body)).Decode(into)
}

// settle ends the run with a last write through each server, of an object of its own, and returns its revision.
func (c *cluster) settle(t *testing.T, log *operations) int64 {
	t.Helper()
	var last int64
	for i := range c.urls {
		end := time.Now().Add(startWait)
		for n := 0; ; n++ {
			w := newClient(c, log, 1000+i, dice(uint64(1000+i)))
			w.server, w.next = i, n
			if rev := w.put(t.Context(), fmt.Sprintf("end%d-%d", i, n)); rev > 0 {
				last = max(last, rev)
				break
			}
			if time.Now().After(end) {
				t.Fatalf("server %d takes no writes after the faults", i)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	return last
}
