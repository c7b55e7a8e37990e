package proxy

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/timonel/timonel/internal/proxy/query"
	"github.com/timonel/timonel/internal/proxy/stream"
)

const (
	// logBuffer is how much of a log is in our hands at a time.
	logBuffer = 32 << 10
	// maxRefusal bounds what a kubelet says instead of a log.
	maxRefusal = 64 << 10
)

// webSocketFeature is declared by nodes whose kubelets translate v5 WebSockets
// themselves.
const webSocketFeature = "ExtendWebSocketsToKubelet"

// Log answers pods/log. A pod without a node has no log: 204.
func (s *Server) Log(w http.ResponseWriter, r *http.Request, pod *corev1.Pod) error {
	options, err := query.Log(r.URL.Query())
	if err != nil {
		return err
	}
	ask, err := LogRequest(pod, options, s.config.SplitLogStreams)
	if err != nil {
		return err
	}
	if ask.Node == "" {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	_, to, err := s.locate(r, ask)
	if err != nil {
		return err
	}
	by := s.kubelet
	if options.InsecureSkipTLSVerifyBackend {
		by = s.insecureKubelet
	}
	request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, to.String(), nil)
	if err != nil {
		return fmt.Errorf("ask for the log of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	answer, err := by.requests.RoundTrip(request)
	if err != nil {
		return plain(&url.Error{Op: "Get", URL: to.String(), Err: err})
	}
	defer answer.Body.Close()
	if answer.StatusCode < 200 || answer.StatusCode > 206 {
		return refusal(answer, pod.Name)
	}
	if wsstream.IsWebSocketRequest(r) {
		return stream.Output(w, r, answer.Body)
	}
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusOK)
	copyLog(w, answer.Body, options.Follow)
	return nil
}

// copyLog passes a log on; live, every piece of it at once.
func copyLog(w http.ResponseWriter, from io.Reader, live bool) {
	buffer := make([]byte, logBuffer)
	controller := http.NewResponseController(w)
	if live {
		controller.Flush() // the client learns that the log is open before the first line
	}
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			if _, err := w.Write(buffer[:n]); err != nil {
				return
			}
			if live {
				controller.Flush()
			}
		}
		if err != nil {
			return
		}
	}
}

// refusal turns what a kubelet answers instead of a log into a Status.
func refusal(answer *http.Response, pod string) error {
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxRefusal))
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("read the kubelet's answer: %w", err))
	}
	switch text := string(body); answer.StatusCode {
	case http.StatusInternalServerError:
		return apierrors.NewInternalError(fmt.Errorf("%s", text))
	case http.StatusBadRequest:
		return apierrors.NewBadRequest(text)
	default:
		return apierrors.NewGenericServerResponse(answer.StatusCode, "", corev1.Resource("pods/log"), pod, text, 0, false)
	}
}

// plain is an error without a reason: the client sees code 500 and the text alone.
func plain(err error) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Message: err.Error(),
	}}
}

// Exec answers pods/exec.
func (s *Server) Exec(w http.ResponseWriter, r *http.Request, pod *corev1.Pod) error {
	options, err := query.Exec(r.URL.Query())
	if err != nil {
		return err
	}
	ask, err := ExecRequest(pod, options)
	if err != nil {
		return err
	}
	return s.stream(w, r, stream.Command, ask)
}

// Attach answers pods/attach.
func (s *Server) Attach(w http.ResponseWriter, r *http.Request, pod *corev1.Pod) error {
	options, err := query.Attach(r.URL.Query())
	if err != nil {
		return err
	}
	ask, err := AttachRequest(pod, options)
	if err != nil {
		return err
	}
	return s.stream(w, r, stream.Command, ask)
}

// PortForward answers pods/portforward.
func (s *Server) PortForward(w http.ResponseWriter, r *http.Request, pod *corev1.Pod) error {
	options, err := query.PortForward(r.URL.Query())
	if err != nil {
		return err
	}
	ask, err := PortForwardRequest(pod, options)
	if err != nil {
		return err
	}
	return s.stream(w, r, stream.Ports, ask)
}

func (s *Server) stream(w http.ResponseWriter, r *http.Request, kind stream.Kind, ask KubeletRequest) error {
	node, to, err := s.locate(r, ask)
	if err != nil {
		return err
	}
	if slices.Contains(node.Status.DeclaredFeatures, webSocketFeature) {
		kind = stream.Any // the kubelet translates
	}
	return asStatus(stream.Serve(w, r, kind, stream.Backend{URL: to, Transport: s.kubelet.upgrades}))
}

// locate finds the kubelet that a request is for.
func (s *Server) locate(r *http.Request, ask KubeletRequest) (*corev1.Node, *url.URL, error) {
	node, err := s.config.Lookup.Node(r.Context(), ask.Node)
	if err != nil {
		return nil, nil, err
	}
	host, err := KubeletAddress(node, s.config.AddressTypes)
	if err != nil {
		return nil, nil, plain(err)
	}
	return node, &url.URL{Scheme: "https", Host: host, Path: ask.Path, RawQuery: ask.Query.Encode()}, nil
}

// asStatus leaves API errors as they are and gives others code 500 without a reason.
func asStatus(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := err.(apierrors.APIStatus); ok {
		return err
	}
	return plain(err)
}
