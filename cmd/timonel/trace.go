package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

func traceCommand() *cobra.Command {
	var kubeconfig, namespace string
	c := &cobra.Command{
		Use:   "trace pod NAME",
		Short: "Show who did what in a pod's life, when, and at which revision",
		Long: `Show a pod's life as a table: who did each step, when (milliseconds since the
pod was created) and at which revision of etcd.

It is made from the API server's recent requests (/debug/requests), the pod's
events, and the pod's own past states, as far as the server still knows them.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if args[0] != "pod" && args[0] != "pods" && args[0] != "po" {
				return fmt.Errorf("only pods can be traced, not %q", args[0])
			}
			client, _, err := clientFrom(kubeconfig, "timonel-trace")
			if err != nil {
				return err
			}
			return tracePod(c.Context(), client, namespace, args[1], c.OutOrStdout())
		},
	}
	c.Flags().StringVar(&kubeconfig, "kubeconfig", "", "Credentials and address of the API server.")
	c.Flags().StringVarP(&namespace, "namespace", "n", "default", "Namespace of the pod.")
	return c
}

// request is what /debug/requests tells of one request, as far as it is of use here.
type request struct {
	Start       time.Time `json:"start"`
	Verb        string    `json:"verb"`
	Resource    string    `json:"resource"`
	Subresource string    `json:"subresource"`
	Namespace   string    `json:"namespace"`
	Name        string    `json:"name"`
	User        string    `json:"user"`
	Status      int       `json:"status"`
	Revision    int64     `json:"revision"`
	Micros      int64     `json:"durationMicroseconds"`
}

// step is a row of the table.
type step struct {
	at       time.Time
	who      string
	what     string
	revision int64
	took     time.Duration
}

func tracePod(ctx context.Context, client kubernetes.Interface, namespace, name string, out io.Writer) error {
	requests, err := recentRequests(ctx, client, namespace)
	if err != nil {
		return err
	}
	events, err := client.CoreV1().Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.kind=Pod,involvedObject.name=" + name})
	if err != nil {
		return fmt.Errorf("list events: %w", err)
	}
	t := tracer{ctx: ctx, client: client, namespace: namespace, name: name, events: map[string]*corev1.Event{}}
	for i := range events.Items {
		t.events[events.Items[i].Name] = &events.Items[i]
	}
	// In the order of their effects: a request is remembered when its answer has been sent, and by then
	// others may have acted on what it made.
	slices.SortStableFunc(requests, func(a, b request) int { return cmp.Compare(a.Revision, b.Revision) })
	for _, r := range requests {
		t.add(r)
	}
	if len(t.steps) == 0 {
		return fmt.Errorf("the server remembers no request about pod %s/%s", namespace, name)
	}
	return t.print(out)
}

func recentRequests(ctx context.Context, client kubernetes.Interface, namespace string) ([]request, error) {
	b, err := client.Discovery().RESTClient().Get().AbsPath("/debug/requests").Param("namespace", namespace).Do(ctx).Raw()
	if err != nil {
		return nil, fmt.Errorf("read /debug/requests: %w", err)
	}
	var body struct {
		Requests []request `json:"requests"`
	}
	if err := json.Unmarshal(b, &body); err != nil {
		return nil, fmt.Errorf("read /debug/requests: %w", err)
	}
	return body.Requests, nil
}

// tracer turns requests about a pod into steps of its life.
type tracer struct {
	ctx       context.Context
	client    kubernetes.Interface
	namespace string
	name      string
	events    map[string]*corev1.Event // by the event's name
	before    *corev1.Pod              // as the last step left it
	seen      bool                     // the node has reported on it
	steps     []step
}

func (t *tracer) add(r request) {
	if r.Status >= 300 || r.Revision == 0 {
		return
	}
	s := step{at: r.Start.Add(time.Duration(r.Micros) * time.Microsecond), who: short(r.User), revision: r.Revision, took: time.Duration(r.Micros) * time.Microsecond}
	switch {
	case r.Resource == "events" && t.events[r.Name] != nil:
		e := t.events[r.Name]
		s.what = e.Reason + ": " + e.Message
	case r.Resource != "pods" || r.Name != t.name:
		return
	case r.Verb == "create" && r.Subresource == "":
		t.steps, t.seen = nil, false // an earlier pod of this name is another story
		s.what = "created and stored"
		t.before = t.at(r.Revision)
	case r.Subresource == "binding":
		t.before = t.at(r.Revision)
		s.what = "bound"
		if t.before != nil {
			s.what = "bound to node " + t.before.Spec.NodeName
		}
	case r.Verb == "delete":
		s.what = "deletion asked for"
	case r.Verb == "patch" || r.Verb == "update":
		s.what = t.changes(r)
		if !t.seen && strings.HasPrefix(s.who, "node:") {
			t.seen = true
			s.what = "seen by the node: " + s.what
		}
	default:
		return
	}
	t.steps = append(t.steps, s)
}

// at is the pod as it was at a revision, or nil when that is no longer known.
func (t *tracer) at(revision int64) *corev1.Pod {
	list, err := t.client.CoreV1().Pods(t.namespace).List(t.ctx, metav1.ListOptions{
		FieldSelector: "metadata.name=" + t.name, ResourceVersion: strconv.FormatInt(revision, 10),
		ResourceVersionMatch: metav1.ResourceVersionMatchExact,
	})
	if err != nil || len(list.Items) != 1 {
		return nil
	}
	return &list.Items[0]
}

// changes says what a write changed: the phase and the conditions.
func (t *tracer) changes(r request) string {
	verb := "status"
	if r.Subresource != "status" {
		verb = r.Verb
	}
	now := t.at(r.Revision)
	if now == nil {
		return verb + " written"
	}
	var what []string
	if t.before == nil || t.before.Status.Phase != now.Status.Phase {
		what = append(what, string(now.Status.Phase)+" reported")
	}
	for _, c := range now.Status.Conditions {
		before := conditionOf(t.before, c.Type)
		switch {
		case before == c.Status, before == "" && c.Status == corev1.ConditionFalse:
		case c.Status == corev1.ConditionTrue:
			what = append(what, string(c.Type))
		default:
			what = append(what, string(c.Type)+"="+string(c.Status))
		}
	}
	for i := range now.Status.ContainerStatuses {
		s := &now.Status.ContainerStatuses[i]
		if w := s.State.Waiting; w != nil && (t.before == nil || waitingReason(t.before, s.Name) != w.Reason) {
			what = append(what, s.Name+" "+w.Reason)
		}
	}
	t.before = now
	if len(what) == 0 {
		return verb + " written"
	}
	return strings.Join(what, ", ")
}

func conditionOf(pod *corev1.Pod, t corev1.PodConditionType) corev1.ConditionStatus {
	if pod != nil {
		for _, c := range pod.Status.Conditions {
			if c.Type == t {
				return c.Status
			}
		}
	}
	return ""
}

func waitingReason(pod *corev1.Pod, container string) string {
	for i := range pod.Status.ContainerStatuses {
		if s := &pod.Status.ContainerStatuses[i]; s.Name == container && s.State.Waiting != nil {
			return s.State.Waiting.Reason
		}
	}
	return ""
}

// short leaves out what all users of the system have in common.
func short(user string) string {
	user = strings.TrimPrefix(user, "system:")
	return strings.TrimPrefix(user, "serviceaccount:")
}

func (t *tracer) print(out io.Writer) error {
	slices.SortStableFunc(t.steps, func(a, b step) int { return cmp.Compare(a.revision, b.revision) })
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "MS\tREVISION\tWHO\tTOOK\tWHAT")
	start := t.steps[0].at
	for _, s := range t.steps {
		fmt.Fprintf(w, "%.1f\t%d\t%s\t%s\t%s\n", float64(s.at.Sub(start).Microseconds())/1000, s.revision, s.who, s.took.Round(10*time.Microsecond), s.what)
	}
	return w.Flush()
}
