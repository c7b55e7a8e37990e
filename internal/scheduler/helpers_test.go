package scheduler

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"
)

// parse reads a YAML object, which may leave out what the test does not mind.
func parse[T any](t testing.TB, text string) *T {
	t.Helper()
	obj := new(T)
	if err := yaml.UnmarshalStrict([]byte(strings.ReplaceAll(text, "\t", "  ")), obj); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return obj
}

// newPod is a pod of the default scheduler; more is YAML of further fields.
func newPod(t testing.TB, name, more string) *v1.Pod {
	t.Helper()
	pod := parse[v1.Pod](t, more)
	pod.Name = name
	if pod.Namespace == "" {
		pod.Namespace = "ns"
	}
	if pod.UID == "" {
		pod.UID = types.UID("uid-" + name)
	}
	if pod.Spec.SchedulerName == "" {
		pod.Spec.SchedulerName = v1.DefaultSchedulerName
	}
	pod.Status.Phase = v1.PodPending
	if len(pod.Spec.Containers) == 0 {
		pod.Spec.Containers = []v1.Container{{Name: "c", Image: "i"}}
	}
	return pod
}

// requests is a pod that requests so much.
func requests(t testing.TB, name, cpu, memory string) *v1.Pod {
	t.Helper()
	return newPod(t, name, fmt.Sprintf(`spec: {containers: [{name: c, image: i, resources: {requests: {cpu: %q, memory: %q}}}]}`, cpu, memory))
}

// newNode is a node with room for 4 CPUs, 8Gi and 110 pods, unless more says
// otherwise.
func newNode(t testing.TB, name, more string) *v1.Node {
	t.Helper()
	node := parse[v1.Node](t, more)
	node.Name = name
	node.UID = types.UID("uid-" + name)
	if node.Labels == nil {
		node.Labels = map[string]string{}
	}
	node.Labels[v1.LabelHostname] = name
	if node.Status.Allocatable == nil {
		node.Status.Allocatable = parse[v1.NodeStatus](t, `allocatable: {cpu: "4", memory: 8Gi, pods: "110"}`).Allocatable
	}
	return node
}

// newCluster places pods by their spec.nodeName.
func newCluster(nodes []*v1.Node, pods ...*v1.Pod) *Cluster {
	c := newCache()
	for _, n := range nodes {
		c.setNode(n)
	}
	for _, p := range pods {
		c.setPod(newPodInfo(p))
	}
	return c.snapshot()
}

func on(node string, pod *v1.Pod) *v1.Pod {
	pod = pod.DeepCopy()
	pod.Spec.NodeName = node
	return pod
}

// A filterCase asks one plugin about one pod on each node.
type filterCase struct {
	name  string
	pod   *v1.Pod
	nodes []*v1.Node
	pods  []*v1.Pod
	want  map[string]string // node → reasons, "!" in front if final; absent: passes
}

func checkFilter(t *testing.T, plugin Filterer, cases []filterCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Helper()
			cluster := newCluster(c.nodes, c.pods...)
			got := map[string]string{}
			ask, everywhere := plugin.Filter(newPodInfo(c.pod), cluster)
			for _, node := range cluster.Nodes {
				status := everywhere
				if status == nil && ask != nil {
					status = ask(node)
				}
				if status == nil {
					continue
				}
				text := strings.Join(status.Reasons, ", ")
				if status.Err != nil {
					text = status.Err.Error()
				}
				if status.Final {
					text = "!" + text
				}
				got[node.Name] = text
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("rejected\n\tgot  %v\n\twant %v", got, c.want)
			}
		})
	}
}

// A scoreCase asks one plugin to score one pod on all nodes.
type scoreCase struct {
	name  string
	pod   *v1.Pod
	nodes []*v1.Node
	pods  []*v1.Pod
	want  []int64 // nil: no preference
}

func checkScore(t *testing.T, plugin Scorer, cases []scoreCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Helper()
			cluster := newCluster(c.nodes, c.pods...)
			got := plugin.Score(newPodInfo(c.pod), cluster, cluster.Nodes)
			if !slices.Equal(got, c.want) {
				t.Errorf("scores\n\tgot  %v\n\twant %v", got, c.want)
			}
		})
	}
}

// A wakeCase asks one plugin whether an event matters.
type wakeCase struct {
	name  string
	pod   *v1.Pod
	event Event
	want  bool
}

func checkWakes(t *testing.T, plugin Plugin, cases []wakeCase) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Helper()
			if got := plugin.Wakes(newPodInfo(c.pod), c.event); got != c.want {
				t.Errorf("Wakes = %v, want %v", got, c.want)
			}
		})
	}
}

func noNamespaceLabels(string) labels.Set { return nil }
