package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	grpcmetadata "google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// probeKind is one of the three questions asked of a container.
type probeKind string

const (
	startupProbe   probeKind = "startup"
	livenessProbe  probeKind = "liveness"
	readinessProbe probeKind = "readiness"
)

func (k probeKind) title() string { return strings.ToUpper(string(k[:1])) + string(k[1:]) }

func probeOf(c *v1.Container, kind probeKind) *v1.Probe {
	switch kind {
	case startupProbe:
		return c.StartupProbe
	case livenessProbe:
		return c.LivenessProbe
	}
	return c.ReadinessProbe
}

// prober asks one question of one running container, again and again.
type prober struct {
	kind  probeKind
	probe *v1.Probe
	// began is when the container started.
	began time.Time
	// open is closed when the startup probe has passed: until then liveness
	// and readiness are not asked.
	open <-chan struct{}
	// ask performs the probe once. An error means that it could not be asked;
	// it counts neither way.
	ask func(ctx context.Context) (ok bool, output string, err error)
	// report is told when the answer turned, after the thresholds. It returns
	// false when nobody wants further answers.
	report func(ok bool) (more bool)
	// complain is told of every failure or error, for the event.
	complain func(reason, message string)
	initial  bool // the answer that holds before the first
}

// run asks until ctx ends.
func (p *prober) run(ctx context.Context) {
	if p.open != nil {
		select {
		case <-p.open:
		case <-ctx.Done():
			return
		}
	}
	if !pauseUntil(ctx, p.began.Add(time.Duration(p.probe.InitialDelaySeconds)*time.Second)) {
		return
	}
	period := time.Duration(max(p.probe.PeriodSeconds, 1)) * time.Second
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	current, told := p.initial, false
	last, run := false, int32(0) // latest answer and how often it came in a row
	for {
		ok, output, err := p.askOnce(ctx)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err != nil:
			p.complain("Unhealthy", fmt.Sprintf("%s probe errored: %v", p.kind.title(), err))
		default:
			if !ok {
				p.complain("Unhealthy", fmt.Sprintf("%s probe failed: %s", p.kind.title(), output))
			}
			if run > 0 && ok == last {
				run++
			} else {
				last, run = ok, 1
			}
			needed := max(p.probe.SuccessThreshold, 1)
			if !ok {
				needed = max(p.probe.FailureThreshold, 1)
			}
			if run >= needed && (!told || ok != current) {
				current, told = ok, true
				if !p.report(ok) {
					return
				}
			}
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (p *prober) askOnce(ctx context.Context) (bool, string, error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout(p.probe)+probeSlack)
	defer cancel()
	ok, output, err := p.ask(ctx)
	return ok, clip(output, maxProbeOutput), err
}

const (
	// maxProbeOutput bounds what an event quotes of a probe's answer.
	maxProbeOutput = 10 << 10
	// probeSlack is what a probe may take beyond its own timeout to say that
	// it timed out.
	probeSlack = 5 * time.Second
)

func probeTimeout(p *v1.Probe) time.Duration {
	return time.Duration(max(p.TimeoutSeconds, 1)) * time.Second
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

func pauseUntil(ctx context.Context, at time.Time) bool {
	d := time.Until(at)
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// probeTarget is what a probe or hook is aimed at.
type probeTarget struct {
	runtime     runtimeapi.RuntimeServiceClient
	containerID string
	container   *v1.Container
	podIP       string
	version     string // for the User-Agent
}

// ask performs a probe once.
func (t *probeTarget) ask(ctx context.Context, p *v1.Probe) (ok bool, output string, err error) {
	timeout := probeTimeout(p)
	switch {
	case p.Exec != nil:
		return t.askExec(ctx, p.Exec.Command, timeout)
	case p.HTTPGet != nil:
		return t.askHTTP(ctx, p.HTTPGet, timeout)
	case p.TCPSocket != nil:
		return t.askTCP(ctx, p.TCPSocket, timeout)
	case p.GRPC != nil:
		return t.askGRPC(ctx, p.GRPC, timeout)
	}
	return false, "", errors.New("missing probe handler")
}

// runCommand executes a command in the container and returns what it printed.
func (t *probeTarget) runCommand(ctx context.Context, command []string, timeout time.Duration) (exitCode int32, output string, err error) {
	expanded := make([]string, len(command))
	for i, word := range command {
		expanded[i] = expand(word, t.variable)
	}
	answer, err := t.runtime.ExecSync(ctx, &runtimeapi.ExecSyncRequest{ContainerId: t.containerID, Cmd: expanded, Timeout: int64((timeout + time.Second - 1) / time.Second)})
	if err != nil {
		return -1, "", err
	}
	return answer.ExitCode, string(answer.Stdout) + string(answer.Stderr), nil
}

// variable looks up what the container's own literal env says; a probe's
// command may refer to it.
func (t *probeTarget) variable(name string) (string, bool) {
	for _, e := range t.container.Env {
		if e.Name == name && e.ValueFrom == nil {
			return e.Value, true
		}
	}
	return "", false
}

func (t *probeTarget) askExec(ctx context.Context, command []string, timeout time.Duration) (bool, string, error) {
	code, output, err := t.runCommand(ctx, command, timeout)
	if status.Code(err) == codes.DeadlineExceeded {
		return false, fmt.Sprintf("command timed out: %q timed out after %s", strings.Join(command, " "), timeout), nil
	}
	if err != nil {
		return false, "", err
	}
	return code == 0, output, nil
}

// port resolves a probe's port, which may be a name of the container's.
func (t *probeTarget) port(port intstr.IntOrString) (int, error) {
	n := port.IntValue()
	if port.Type == intstr.String {
		n = 0
		for _, p := range t.container.Ports {
			if p.Name == port.StrVal {
				n = int(p.ContainerPort)
			}
		}
		if n == 0 {
			var err error
			if n, err = strconv.Atoi(port.StrVal); err != nil {
				return 0, fmt.Errorf("couldn't find port: %q", port.StrVal)
			}
		}
	}
	if n < 1 || n > 65535 {
		return 0, fmt.Errorf("invalid port number: %v", port.String())
	}
	return n, nil
}

// request builds the HTTP request of a probe or hook.
func (t *probeTarget) request(ctx context.Context, action *v1.HTTPGetAction, agent string) (*http.Request, error) {
	port, err := t.port(action.Port)
	if err != nil {
		return nil, err
	}
	host := action.Host
	if host == "" {
		host = t.podIP
	}
	target, err := url.Parse(action.Path)
	if err != nil {
		target = &url.URL{Path: action.Path}
	}
	target.Scheme = strings.ToLower(string(action.Scheme))
	if target.Scheme == "" {
		target.Scheme = "http"
	}
	target.Host = net.JoinHostPort(host, strconv.Itoa(port))
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	if err != nil {
		return nil, err
	}
	for _, header := range action.HTTPHeaders {
		if strings.EqualFold(header.Name, "Host") {
			request.Host = header.Value
			continue
		}
		request.Header.Add(header.Name, header.Value)
	}
	if _, set := request.Header["User-Agent"]; !set {
		request.Header.Set("User-Agent", agent)
	}
	if _, set := request.Header["Accept"]; !set {
		request.Header.Set("Accept", "*/*")
	}
	return request, nil
}

// httpClient makes one request and keeps no connection: a probe must not find
// the container alive through an old one.
func httpClient(action *v1.HTTPGetAction, timeout time.Duration) *http.Client {
	transport := &http.Transport{
		TLSClientConfig:    &tls.Config{InsecureSkipVerify: true}, // Parity: probes ask whether a server answers, not who it is.
		DisableKeepAlives:  true,
		DisableCompression: true,
		Proxy:              nil,
	}
	if action.Protocol != nil && *action.Protocol == v1.HTTPProtocolHTTP2 {
		transport.Protocols = &http.Protocols{}
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	return &http.Client{
		Transport: transport,
		Timeout:   timeout,
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			if next.URL.Hostname() != via[0].URL.Hostname() {
				return http.ErrUseLastResponse
			}
			if len(via) >= 10 {
				return errors.New("stopped after 10 redirects")
			}
			return nil
		},
	}
}

func (t *probeTarget) askHTTP(ctx context.Context, action *v1.HTTPGetAction, timeout time.Duration) (bool, string, error) {
	request, err := t.request(ctx, action, "kube-probe/"+t.version)
	if err != nil {
		return false, "", err
	}
	client := httpClient(action, timeout)
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		return false, err.Error(), nil
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxProbeOutput))
	if err != nil && len(body) == 0 {
		return false, err.Error(), nil
	}
	if response.StatusCode >= 200 && response.StatusCode < 400 {
		return true, string(bytes.TrimSpace(body)), nil
	}
	return false, fmt.Sprintf("HTTP probe failed with statuscode: %d", response.StatusCode), nil
}

func (t *probeTarget) askTCP(ctx context.Context, action *v1.TCPSocketAction, timeout time.Duration) (bool, string, error) {
	port, err := t.port(action.Port)
	if err != nil {
		return false, "", err
	}
	host := action.Host
	if host == "" {
		host = t.podIP
	}
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return false, err.Error(), nil
	}
	_ = conn.Close()
	return true, "", nil
}

func (t *probeTarget) askGRPC(ctx context.Context, action *v1.GRPCAction, timeout time.Duration) (bool, string, error) {
	service := ""
	if action.Service != nil {
		service = *action.Service
	}
	transport := insecure.NewCredentials()
	if action.Mode != nil && *action.Mode == v1.GRPCProbeModeTLS {
		transport = credentials.NewTLS(&tls.Config{InsecureSkipVerify: true}) // Parity: as for HTTPS probes.
	}
	address := net.JoinHostPort(t.podIP, strconv.Itoa(int(action.Port)))
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(transport), grpc.WithUserAgent("kube-probe/"+t.version), grpc.WithNoProxy())
	if err != nil {
		return false, "", err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	ctx = grpcmetadata.NewOutgoingContext(ctx, grpcmetadata.MD{})
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	switch status.Code(err) {
	case codes.OK:
	case codes.Unimplemented:
		return false, fmt.Sprintf("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): %s", status.Convert(err).Message()), nil
	case codes.DeadlineExceeded, codes.Unavailable:
		return false, fmt.Sprintf("timeout: failed to connect service %q within %s: %v", address, timeout, err), nil
	default:
		return false, fmt.Sprintf("error: health rpc probe failed: %v", err), nil
	}
	if answer.Status != healthpb.HealthCheckResponse_SERVING {
		return false, fmt.Sprintf("service unhealthy (responded with %q)", answer.Status.String()), nil
	}
	return true, "service healthy", nil
}

// runHook performs a lifecycle hook.
func (t *probeTarget) runHook(ctx context.Context, hook *v1.LifecycleHandler) error {
	switch {
	case hook.Exec != nil:
		code, output, err := t.runCommand(ctx, hook.Exec.Command, 0)
		if err != nil {
			return err
		}
		if code != 0 {
			return fmt.Errorf("command '%s' exited with %d: %s", strings.Join(hook.Exec.Command, " "), code, clip(output, maxProbeOutput))
		}
	case hook.HTTPGet != nil:
		request, err := t.request(ctx, hook.HTTPGet, "kube-lifecycle/"+t.version)
		if err != nil {
			return err
		}
		client := httpClient(hook.HTTPGet, 0)
		defer client.CloseIdleConnections()
		response, err := client.Do(request)
		if err != nil {
			return err
		}
		_ = response.Body.Close()
		if response.StatusCode < 200 || response.StatusCode >= 400 {
			return fmt.Errorf("HTTP hook failed with statuscode: %d", response.StatusCode)
		}
	case hook.Sleep != nil:
		if !pauseUntil(ctx, time.Now().Add(time.Duration(hook.Sleep.Seconds)*time.Second)) {
			return fmt.Errorf("sleep cut short: %w", ctx.Err())
		}
	default:
		// tcpSocket is deprecated and does nothing for hooks.
		return fmt.Errorf("invalid handler: %v", hook)
	}
	return nil
}
