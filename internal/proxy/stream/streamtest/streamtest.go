// Package streamtest is the far end of exec, attach and port-forward for tests:
// what a container runtime's streaming server does, with Go functions for
// commands and ports.
//
// It speaks SPDY/3.1 with v4.channel.k8s.io and portforward.k8s.io, the two that
// kubelets and container runtimes have spoken for ten years.
package streamtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/portforward"
	"k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// streamTimeout bounds waiting for a client to open its streams.
const streamTimeout = 10 * time.Second

// Command is what a container runs. Streams that the request did not ask for
// are nil. It returns an exit status.
type Command func(io Streams) int

// Streams are the ends of a command.
type Streams struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Resize         io.Reader // JSON objects with Width and Height, one after the other
	Gone           <-chan bool
}

// Exec serves a command. The streams are the ones that the query names.
func Exec(command Command) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := httpstream.Handshake(r, w, []string{remotecommand.StreamProtocolV4Name}); err != nil {
			return // it has answered
		}
		type opened struct {
			httpstream.Stream
			replied <-chan struct{}
		}
		streams := make(chan opened, 5) // a command has five at most
		conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, replied <-chan struct{}) error {
			streams <- opened{stream, replied}
			return nil
		})
		if conn == nil {
			return
		}
		defer conn.Close()

		query := r.URL.Query()
		tty := query.Get("tty") == "1" || query.Get("tty") == "true"
		expected := 1
		for _, name := range []string{"stdin", "input", "stdout", "output", "stderr", "error"} {
			if v := query.Get(name); v == "1" || v == "true" {
				expected++
			}
		}
		if tty {
			expected++
		}
		var io Streams
		io.Gone = conn.CloseChan()
		var outcome httpstream.Stream
		timeout := time.After(streamTimeout)
		for range expected {
			select {
			case s := <-streams:
				<-s.replied
				switch s.Headers().Get(corev1.StreamType) {
				case corev1.StreamTypeError:
					outcome = s
				case corev1.StreamTypeStdin:
					io.Stdin = s
				case corev1.StreamTypeStdout:
					io.Stdout = s
				case corev1.StreamTypeStderr:
					io.Stderr = s
				case corev1.StreamTypeResize:
					io.Resize = s
				}
			case <-timeout:
				return
			case <-conn.CloseChan():
				return
			}
		}
		code := command(io)
		status := metav1.Status{Status: metav1.StatusSuccess}
		if code != 0 {
			status = metav1.Status{
				Status: metav1.StatusFailure, Reason: remotecommand.NonZeroExitCodeReason,
				Message: fmt.Sprintf("command terminated with non-zero exit code: %d", code),
				Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: remotecommand.ExitCodeCauseType, Message: strconv.Itoa(code)}}},
			}
		}
		data, _ := json.Marshal(status)
		outcome.Write(data)
	})
}

// Forward serves ports: each connection to a port is handed to serve.
func Forward(serve func(port string, conn io.ReadWriteCloser) error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := httpstream.Handshake(r, w, []string{portforward.PortForwardV1Name}); err != nil {
			return
		}
		var mu sync.Mutex
		failures := map[string]httpstream.Stream{} // by request
		conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, replied <-chan struct{}) error {
			id := stream.Headers().Get(corev1.PortForwardRequestIDHeader)
			mu.Lock()
			defer mu.Unlock()
			if stream.Headers().Get(corev1.StreamType) == corev1.StreamTypeError {
				failures[id] = stream
				return nil
			}
			failure := failures[id]
			go func() {
				<-replied
				defer stream.Close()
				defer failure.Close()
				if err := serve(stream.Headers().Get(corev1.PortHeader), stream); err != nil {
					fmt.Fprint(failure, err)
				}
			}()
			return nil
		})
		if conn == nil {
			return
		}
		defer conn.Close()
		<-conn.CloseChan()
	})
}

// Buffer collects output that several goroutines write.
type Buffer struct {
	mu   sync.Mutex
	data bytes.Buffer
}

func (b *Buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.Write(p)
}

func (b *Buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.data.String()
}
