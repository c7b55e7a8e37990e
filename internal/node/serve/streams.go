package serve

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/streaming/pkg/httpstream"

	"github.com/timonel/timonel/internal/proxy/stream"
)

// runTimeout bounds a command of /run, whose output is kept until its end.
const runTimeout = 2 * time.Minute

func podOf(r *http.Request) PodRef {
	return PodRef{Namespace: r.PathValue("namespace"), Name: r.PathValue("pod"), UID: types.UID(r.PathValue("uid"))}
}

// running finds the container that a request names, which must be running.
func (s *Server) running(r *http.Request) (Container, error) {
	name := r.PathValue("container")
	c, err := s.config.Containers.Find(podOf(r), name, false)
	if err != nil {
		return Container{}, err
	}
	if c.ID == "" || !c.Running {
		return Container{}, NotFound("container not found (%q)", name)
	}
	return c, nil
}

// wishes are the streams that a client wants, from the query: the names that
// API servers use towards kubelets, and those of the API itself.
type wishes struct{ stdin, stdout, stderr, tty bool }

func wishesOf(query url.Values) (wishes, error) {
	is := func(names ...string) bool {
		for _, name := range names {
			if v := query.Get(name); v == "1" || strings.EqualFold(v, "true") {
				return true
			}
		}
		return false
	}
	w := wishes{
		stdin: is(corev1.ExecStdinParam, "stdin"), stdout: is(corev1.ExecStdoutParam, "stdout"),
		stderr: is(corev1.ExecStderrParam, "stderr"), tty: is(corev1.ExecTTYParam),
	}
	if !w.stdin && !w.stdout && !w.stderr {
		return w, refuse(http.StatusBadRequest, "you must specify at least 1 of stdin, stdout, stderr")
	}
	if w.tty {
		w.stderr = false // a terminal has one output
	}
	return w, nil
}

func (s *Server) exec(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	want, err := wishesOf(query)
	if err != nil {
		return err
	}
	c, err := s.running(r)
	if err != nil {
		return err
	}
	answer, err := s.config.Runtime.Exec(r.Context(), &runtimeapi.ExecRequest{
		ContainerId: c.ID, Cmd: query[corev1.ExecCommandParam],
		Stdin: want.stdin, Stdout: want.stdout, Stderr: want.stderr, Tty: want.tty,
	})
	if err != nil {
		return runtimeError(err)
	}
	return s.pass(w, r, stream.Command, answer.Url)
}

func (s *Server) attach(w http.ResponseWriter, r *http.Request) error {
	want, err := wishesOf(r.URL.Query())
	if err != nil {
		return err
	}
	c, err := s.running(r)
	if err != nil {
		return err
	}
	// Whether there is a terminal was decided when the container was made.
	answer, err := s.config.Runtime.Attach(r.Context(), &runtimeapi.AttachRequest{
		ContainerId: c.ID, Stdin: want.stdin, Stdout: want.stdout, Stderr: want.stderr && !c.TTY, Tty: c.TTY,
	})
	if err != nil {
		return runtimeError(err)
	}
	return s.pass(w, r, stream.Command, answer.Url)
}

func (s *Server) portForward(w http.ResponseWriter, r *http.Request) error {
	var ports []int32 // clients of older WebSocket protocols name them beforehand
	for _, list := range r.URL.Query()[corev1.PortHeader] {
		for text := range strings.SplitSeq(list, ",") {
			port, err := strconv.ParseUint(text, 10, 16)
			if err != nil || port == 0 {
				return refuse(http.StatusBadRequest, "port %q is not a number from 1 to 65535", text)
			}
			ports = append(ports, int32(port))
		}
	}
	sandbox, err := s.config.Containers.Sandbox(podOf(r))
	if err != nil {
		return err
	}
	// The runtime connects in the pod's network namespace, or in the node's for a
	// pod with hostNetwork.
	answer, err := s.config.Runtime.PortForward(r.Context(), &runtimeapi.PortForwardRequest{PodSandboxId: sandbox, Port: ports})
	if err != nil {
		return runtimeError(err)
	}
	return s.pass(w, r, stream.Ports, answer.Url)
}

// pass connects the client with the runtime's streaming server.
func (s *Server) pass(w http.ResponseWriter, r *http.Request, kind stream.Kind, address string) error {
	if !httpstream.IsUpgradeRequest(r) {
		return refuse(http.StatusBadRequest, "Upgrade request required")
	}
	to, err := url.Parse(address)
	if err != nil || to.Host == "" {
		return fmt.Errorf("the runtime's streaming address %q makes no sense: %w", address, errors.Join(err, errors.New("no host")))
	}
	if kind == stream.Command {
		to.RawQuery = r.URL.RawQuery // for a translation, which opens these streams; the runtime goes by its own records
	}
	return stream.Serve(w, r, kind, stream.Backend{URL: to, Transport: s.transport})
}

// run executes a command without streams and answers with its output.
func (s *Server) run(w http.ResponseWriter, r *http.Request) error {
	c, err := s.running(r)
	if err != nil {
		return err
	}
	command := strings.Fields(r.URL.Query().Get("cmd"))
	if len(command) == 0 {
		return refuse(http.StatusBadRequest, "no command: use ?cmd=")
	}
	answer, err := s.config.Runtime.ExecSync(r.Context(), &runtimeapi.ExecSyncRequest{
		ContainerId: c.ID, Cmd: command, Timeout: int64(runTimeout / time.Second),
	})
	if err != nil {
		return runtimeError(err)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if answer.ExitCode != 0 {
		w.WriteHeader(http.StatusInternalServerError)
	}
	w.Write(answer.Stdout)
	w.Write(answer.Stderr)
	if answer.ExitCode != 0 {
		fmt.Fprintf(w, "command %q exited with %d", strings.Join(command, " "), answer.ExitCode)
	}
	return nil
}

// runtimeError gives errors of CRI calls the status that kubelets give them.
func runtimeError(err error) error {
	switch s := status.Convert(err); s.Code() {
	case codes.NotFound:
		return refuse(http.StatusNotFound, "%s", s.Message())
	case codes.ResourceExhausted: // too many streams
		return refuse(http.StatusTooManyRequests, "%s", s.Message())
	default:
		return errors.New(s.Message())
	}
}
