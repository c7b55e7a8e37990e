package serve

import (
	"bufio"
	"errors"
	"io/fs"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/timonel/timonel/internal/node/serve/logs"
	"github.com/timonel/timonel/internal/proxy/query"
)

// logBuffer is how much of a log waits to be sent at most.
const logBuffer = 32 << 10

// logs answers with the log of a container, and with what is added to it while
// the client follows.
func (s *Server) logs(w http.ResponseWriter, r *http.Request) error {
	options, err := query.Log(r.URL.Query())
	if err != nil {
		return refuse(http.StatusBadRequest, "%w", err)
	}
	if wrong := query.CheckLog(options, true); len(wrong) > 0 {
		return refuse(http.StatusUnprocessableEntity, "%w", wrong.ToAggregate())
	}
	name := r.PathValue("container")
	c, err := s.config.Containers.Find(podOf(r), name, options.Previous)
	switch {
	case errors.Is(err, ErrNotFound):
		return err
	case err != nil: // it waits to start, or never ran before
		return refuse(http.StatusBadRequest, "%w", err)
	}

	read := logs.Options{
		Tail: options.TailLines, Limit: options.LimitBytes, Timestamps: options.Timestamps,
		Follow: options.Follow, Ended: c.Ended,
	}
	switch {
	case options.SinceTime != nil:
		read.Since = options.SinceTime.Time
	case options.SinceSeconds != nil:
		read.Since = time.Now().Add(-time.Duration(*options.SinceSeconds) * time.Second)
	}
	if options.Stream != nil {
		read.Stream = logs.Stream(*options.Stream)
	}
	out := &answering{w: w, buffer: bufio.NewWriterSize(w, logBuffer)}
	err = logs.Copy(r.Context(), out, out.flush, c.LogPath, read)
	if err != nil && !out.begun {
		if errors.Is(err, fs.ErrNotExist) {
			return refuse(http.StatusNotFound, "the log of container %q of pod %q is gone", name, r.PathValue("pod"))
		}
		return err
	}
	out.flush() // and if the copying broke, the client has gone or its answer ends here
	return nil
}

// answering sends a header only once something is there to send: until then a
// log that cannot be read is answered with an error.
type answering struct {
	w      http.ResponseWriter
	buffer *bufio.Writer
	begun  bool
}

func (a *answering) begin() {
	if !a.begun {
		a.begun = true
		a.w.Header().Set("Content-Type", "text/plain")
	}
}

func (a *answering) Write(p []byte) (int, error) {
	a.begin()
	return a.buffer.Write(p)
}

func (a *answering) flush() {
	a.begin()
	a.buffer.Flush()
	http.NewResponseController(a.w).Flush()
}

// pods answers with the pods of this node as the agent knows them.
func (s *Server) pods(w http.ResponseWriter, _ *http.Request) error {
	list := *s.config.Containers.Pods()
	list.Kind, list.APIVersion = "PodList", corev1.SchemeGroupVersion.String()
	return writeJSON(w, &list)
}
