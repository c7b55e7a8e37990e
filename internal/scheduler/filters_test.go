package scheduler

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

func TestNodeUnschedulable(t *testing.T) {
	cordoned, open := newNode(t, "cordoned", "spec: {unschedulable: true}"), newNode(t, "open", "")
	nodes := []*v1.Node{cordoned, open}
	plain := newPod(t, "p", "")
	tolerant := newPod(t, "p", "spec: {tolerations: [{key: node.kubernetes.io/unschedulable, operator: Exists}]}")
	checkFilter(t, nodeUnschedulable{}, []filterCase{
		{name: "plain", pod: plain, nodes: nodes, want: map[string]string{"cordoned": "!node(s) were unschedulable"}},
		{name: "tolerant", pod: tolerant, nodes: nodes},
	})
	checkWakes(t, nodeUnschedulable{}, []wakeCase{
		{"uncordoned", plain, Event{Kind: NodeUpdated, OldNode: cordoned, Node: open}, true},
		{"cordoned", plain, Event{Kind: NodeUpdated, OldNode: open, Node: cordoned}, false},
		{"new node", plain, Event{Kind: NodeAdded, Node: open}, true},
		{"new cordoned node", plain, Event{Kind: NodeAdded, Node: cordoned}, false},
		{"pod went", plain, Event{Kind: PodRemoved, OldPod: plain}, false},
		{"tolerates now", plain, Event{Kind: PendingPodUpdated, OldPod: plain, Pod: tolerant}, true},
	})
}

func TestNodeName(t *testing.T) {
	checkFilter(t, nodeName{}, []filterCase{
		{name: "other node", pod: newPod(t, "p", "spec: {nodeName: b}"), nodes: []*v1.Node{newNode(t, "a", ""), newNode(t, "b", "")},
			want: map[string]string{"a": "!node(s) didn't match the requested node name"}},
	})
}

func TestTaintTolerationFilter(t *testing.T) {
	bare := newNode(t, "bare", "")
	gpu := newNode(t, "gpu", "spec: {taints: [{key: dedicated, value: gpu, effect: NoSchedule}]}")
	soft := newNode(t, "soft", "spec: {taints: [{key: old, effect: PreferNoSchedule}]}")
	down := newNode(t, "down", "spec: {taints: [{key: node.kubernetes.io/not-ready, effect: NoExecute}]}")
	nodes := []*v1.Node{bare, gpu, soft, down}
	untoleratedReason := "!node(s) had untolerated taint(s)"
	checkFilter(t, taintToleration{}, []filterCase{
		{name: "no toleration", pod: newPod(t, "p", ""), nodes: nodes,
			want: map[string]string{"gpu": untoleratedReason, "down": untoleratedReason}},
		{name: "equal", pod: newPod(t, "p", "spec: {tolerations: [{key: dedicated, operator: Equal, value: gpu, effect: NoSchedule}]}"), nodes: nodes,
			want: map[string]string{"down": untoleratedReason}},
		{name: "other value", pod: newPod(t, "p", "spec: {tolerations: [{key: dedicated, value: cpu}]}"), nodes: nodes,
			want: map[string]string{"gpu": untoleratedReason, "down": untoleratedReason}},
		{name: "other effect", pod: newPod(t, "p", "spec: {tolerations: [{key: dedicated, operator: Exists, effect: NoExecute}]}"), nodes: nodes,
			want: map[string]string{"gpu": untoleratedReason, "down": untoleratedReason}},
		{name: "everything", pod: newPod(t, "p", "spec: {tolerations: [{operator: Exists}]}"), nodes: nodes},
	})
	plain := newPod(t, "p", "")
	checkWakes(t, taintToleration{}, []wakeCase{
		{"taint removed", plain, Event{Kind: NodeUpdated, OldNode: gpu, Node: bare}, true},
		{"still tainted", plain, Event{Kind: NodeUpdated, OldNode: gpu, Node: down}, false},
		{"was open before", plain, Event{Kind: NodeUpdated, OldNode: bare, Node: soft}, false},
	})
}

func TestTaintTolerationScore(t *testing.T) {
	nodes := []*v1.Node{
		newNode(t, "none", ""),
		newNode(t, "one", "spec: {taints: [{key: a, effect: PreferNoSchedule}]}"),
		newNode(t, "two", "spec: {taints: [{key: a, effect: PreferNoSchedule}, {key: b, effect: PreferNoSchedule}]}"),
	}
	checkScore(t, taintToleration{}, []scoreCase{
		{name: "fewer is better", pod: newPod(t, "p", ""), nodes: nodes, want: []int64{100, 50, 0}},
		{name: "tolerated do not count", pod: newPod(t, "p", "spec: {tolerations: [{key: b, operator: Exists}]}"), nodes: nodes, want: []int64{100, 0, 0}},
		{name: "all tolerated", pod: newPod(t, "p", "spec: {tolerations: [{operator: Exists}]}"), nodes: nodes},
	})
}

func TestNodeAffinityFilter(t *testing.T) {
	nodes := []*v1.Node{
		newNode(t, "a", "metadata: {labels: {disk: ssd, zone: z1, cores: '8'}}"),
		newNode(t, "b", "metadata: {labels: {disk: hdd, zone: z2, cores: '16'}}"),
		newNode(t, "c", ""),
	}
	no := "!node(s) didn't match Pod's node affinity/selector"
	required := func(terms string) *v1.Pod {
		return newPod(t, "p", "spec: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: "+terms+"}}}}")
	}
	checkFilter(t, nodeAffinity{}, []filterCase{
		{name: "nothing asked", pod: newPod(t, "p", ""), nodes: nodes},
		{name: "nodeSelector", pod: newPod(t, "p", "spec: {nodeSelector: {disk: ssd}}"), nodes: nodes, want: map[string]string{"b": no, "c": no}},
		{name: "In", pod: required("[{matchExpressions: [{key: zone, operator: In, values: [z1, z2]}]}]"), nodes: nodes, want: map[string]string{"c": no}},
		{name: "NotIn passes without the label", pod: required("[{matchExpressions: [{key: zone, operator: NotIn, values: [z1]}]}]"), nodes: nodes, want: map[string]string{"a": no}},
		{name: "Exists", pod: required("[{matchExpressions: [{key: zone, operator: Exists}]}]"), nodes: nodes, want: map[string]string{"c": no}},
		{name: "DoesNotExist", pod: required("[{matchExpressions: [{key: zone, operator: DoesNotExist}]}]"), nodes: nodes, want: map[string]string{"a": no, "b": no}},
		{name: "Gt", pod: required("[{matchExpressions: [{key: cores, operator: Gt, values: ['8']}]}]"), nodes: nodes, want: map[string]string{"a": no, "c": no}},
		{name: "Lt", pod: required("[{matchExpressions: [{key: cores, operator: Lt, values: ['9']}]}]"), nodes: nodes, want: map[string]string{"b": no, "c": no}},
		{name: "terms are alternatives", pod: required("[{matchExpressions: [{key: zone, operator: In, values: [z1]}]}, {matchExpressions: [{key: disk, operator: In, values: [hdd]}]}]"), nodes: nodes, want: map[string]string{"c": no}},
		{name: "requirements add up", pod: required("[{matchExpressions: [{key: zone, operator: In, values: [z1, z2]}, {key: disk, operator: In, values: [hdd]}]}]"), nodes: nodes, want: map[string]string{"a": no, "c": no}},
		{name: "matchFields", pod: required("[{matchFields: [{key: metadata.name, operator: In, values: [c]}]}]"), nodes: nodes, want: map[string]string{"a": no, "b": no}},
		{name: "empty term", pod: required("[{}]"), nodes: nodes, want: map[string]string{"a": no, "b": no, "c": no}},
		{name: "empty term beside another", pod: required("[{}, {matchFields: [{key: metadata.name, operator: In, values: [c]}]}]"), nodes: nodes, want: map[string]string{"a": no, "b": no}},
		{name: "unknown operator", pod: required("[{matchExpressions: [{key: zone, operator: Near, values: [z1]}]}]"), nodes: nodes, want: map[string]string{"a": no, "b": no, "c": no}},
	})
	byName := "!node(s) didn't satisfy plugin(s) [NodeAffinity]"
	checkFilter(t, nodeAffinityByName{}, []filterCase{
		{name: "by name", pod: required("[{matchFields: [{key: metadata.name, operator: In, values: [c]}]}]"), nodes: nodes, want: map[string]string{"a": byName, "b": byName}},
		{name: "or by label", pod: required("[{matchFields: [{key: metadata.name, operator: In, values: [c]}]}, {matchExpressions: [{key: disk, operator: Exists}]}]"), nodes: nodes},
		{name: "not by name", pod: required("[{matchFields: [{key: metadata.name, operator: NotIn, values: [c]}]}]"), nodes: nodes},
	})
	ssd := newPod(t, "p", "spec: {nodeSelector: {disk: ssd}}")
	checkWakes(t, nodeAffinity{}, []wakeCase{
		{"label came", ssd, Event{Kind: NodeUpdated, OldNode: nodes[2], Node: nodes[0]}, true},
		{"another label", ssd, Event{Kind: NodeUpdated, OldNode: nodes[2], Node: nodes[1]}, false},
		{"fitting node", ssd, Event{Kind: NodeAdded, Node: nodes[0]}, true},
		{"other node", ssd, Event{Kind: NodeAdded, Node: nodes[1]}, false},
	})
}

func TestNodeAffinityScore(t *testing.T) {
	nodes := []*v1.Node{
		newNode(t, "a", "metadata: {labels: {disk: ssd}}"),
		newNode(t, "b", "metadata: {labels: {disk: ssd, zone: z1}}"),
		newNode(t, "c", ""),
	}
	checkScore(t, nodeAffinity{}, []scoreCase{
		{name: "none", pod: newPod(t, "p", ""), nodes: nodes},
		{name: "weights add up", nodes: nodes, want: []int64{20, 100, 0}, pod: newPod(t, "p", `
spec: {affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [
  {weight: 2, preference: {matchExpressions: [{key: disk, operator: In, values: [ssd]}]}},
  {weight: 8, preference: {matchExpressions: [{key: zone, operator: Exists}]}}]}}}`)},
	})
}

func TestNodePorts(t *testing.T) {
	withPorts := func(name, ports string) *v1.Pod {
		return newPod(t, name, "spec: {containers: [{name: c, image: i, ports: "+ports+"}]}")
	}
	nodes := []*v1.Node{newNode(t, "a", "")}
	taken := []*v1.Pod{on("a", withPorts("x", "[{containerPort: 80, hostPort: 80, protocol: TCP}, {containerPort: 81, hostPort: 81, hostIP: 10.0.0.1, protocol: UDP}]"))}
	no := map[string]string{"a": "node(s) didn't have free ports for the requested pod ports"}
	checkFilter(t, nodePorts{}, []filterCase{
		{name: "none wanted", pod: withPorts("p", "[{containerPort: 80}]"), nodes: nodes, pods: taken},
		{name: "same", pod: withPorts("p", "[{containerPort: 80, hostPort: 80}]"), nodes: nodes, pods: taken, want: no},
		{name: "another address, other one has all", pod: withPorts("p", "[{containerPort: 80, hostPort: 80, hostIP: 10.0.0.2}]"), nodes: nodes, pods: taken, want: no},
		{name: "another protocol", pod: withPorts("p", "[{containerPort: 80, hostPort: 80, protocol: UDP}]"), nodes: nodes, pods: taken},
		{name: "another address", pod: withPorts("p", "[{containerPort: 81, hostPort: 81, hostIP: 10.0.0.2, protocol: UDP}]"), nodes: nodes, pods: taken},
		{name: "all addresses", pod: withPorts("p", "[{containerPort: 81, hostPort: 81, protocol: UDP}]"), nodes: nodes, pods: taken, want: no},
		{name: "of a sidecar", pod: newPod(t, "p", "spec: {initContainers: [{name: s, restartPolicy: Always, ports: [{containerPort: 80, hostPort: 80}]}]}"), nodes: nodes, pods: taken, want: no},
		{name: "of an init container", pod: newPod(t, "p", "spec: {initContainers: [{name: s, ports: [{containerPort: 80, hostPort: 80}]}]}"), nodes: nodes, pods: taken},
	})
	p := withPorts("p", "[{containerPort: 80, hostPort: 80}]")
	checkWakes(t, nodePorts{}, []wakeCase{
		{"the port is free", p, Event{Kind: PodRemoved, OldPod: taken[0]}, true},
		{"another pod went", p, Event{Kind: PodRemoved, OldPod: newPod(t, "y", "")}, false},
	})
}

func TestNodeResourcesFit(t *testing.T) {
	node := newNode(t, "a", `status: {allocatable: {cpu: "4", memory: 8Gi, pods: "3", ephemeral-storage: 10Gi, nvidia.com/gpu: "2", hugepages-2Mi: 4Mi}}`)
	nodes := []*v1.Node{node}
	pod := func(req string) *v1.Pod {
		return newPod(t, "p", "spec: {containers: [{name: c, image: i, resources: {requests: "+req+"}}]}")
	}
	why := func(s string) map[string]string { return map[string]string{"a": s} }
	used := []*v1.Pod{on("a", newPod(t, "x", `spec: {containers: [{name: c, resources: {requests: {cpu: "3", memory: 6Gi, nvidia.com/gpu: "1", ephemeral-storage: 9Gi}}}]}`))}
	checkFilter(t, nodeResourcesFit{}, []filterCase{
		{name: "fits exactly", pod: pod(`{cpu: "1", memory: 2Gi, nvidia.com/gpu: "1", ephemeral-storage: 1Gi, hugepages-2Mi: 4Mi}`), nodes: nodes, pods: used},
		{name: "each is named", pod: pod(`{cpu: 1001m, memory: 3Gi, nvidia.com/gpu: "2", ephemeral-storage: 2Gi}`), nodes: nodes, pods: used,
			want: why("Insufficient cpu, Insufficient memory, Insufficient ephemeral-storage, Insufficient nvidia.com/gpu")},
		{name: "more than the node has", pod: pod(`{cpu: "5"}`), nodes: nodes, pods: used, want: why("!Insufficient cpu")},
		{name: "unknown resource", pod: pod(`{example.com/fpga: "1"}`), nodes: nodes, want: why("!Insufficient example.com/fpga")},
		{name: "zero of an unknown resource", pod: pod(`{example.com/fpga: "0"}`), nodes: nodes},
		{name: "too many pods", pod: pod("{}"), nodes: nodes, want: why("Too many pods"),
			pods: []*v1.Pod{on("a", newPod(t, "1", "")), on("a", newPod(t, "2", "")), on("a", newPod(t, "3", ""))}},
		{name: "overcommitted, nothing asked", pod: pod("{}"), nodes: nodes, pods: []*v1.Pod{on("a", requests(t, "x", "100", "100Gi"))}},
		{name: "overcommitted elsewhere", pod: pod("{memory: 1Gi}"), nodes: nodes, pods: []*v1.Pod{on("a", requests(t, "x", "100", "1Gi"))}},
	})
	small, big := newNode(t, "a", `status: {allocatable: {cpu: "1", memory: 8Gi, pods: "3"}}`), newNode(t, "a", `status: {allocatable: {cpu: "2", memory: 8Gi, pods: "3"}}`)
	two := pod(`{cpu: "2"}`)
	checkWakes(t, nodeResourcesFit{}, []wakeCase{
		{"pod went", two, Event{Kind: PodRemoved, OldPod: two}, true},
		{"node is big enough", two, Event{Kind: NodeAdded, Node: big}, true},
		{"node is too small", two, Event{Kind: NodeAdded, Node: small}, false},
		{"node grew", two, Event{Kind: NodeUpdated, OldNode: small, Node: big}, true},
		{"node shrank", two, Event{Kind: NodeUpdated, OldNode: big, Node: small}, false},
		{"node has the same", two, Event{Kind: NodeUpdated, OldNode: big, Node: big}, false},
		{"pod was resized down", two, Event{Kind: PodUpdated, OldPod: requests(t, "x", "2", "0"), Pod: requests(t, "x", "1", "0")}, true},
		{"pod was relabelled", two, Event{Kind: PodUpdated, OldPod: requests(t, "x", "2", "0"), Pod: requests(t, "x", "2", "0")}, false},
	})
}

func TestResourceScores(t *testing.T) {
	nodes := []*v1.Node{newNode(t, "a", ""), newNode(t, "b", "")} // 4 CPUs, 8Gi
	used := []*v1.Pod{on("b", requests(t, "x", "2", "2Gi"))}
	checkScore(t, nodeResourcesFit{}, []scoreCase{
		// a: (75 + 75) / 2; b: (25 + 50) / 2
		{name: "more room is better", pod: requests(t, "p", "1", "2Gi"), nodes: nodes, pods: used, want: []int64{75, 37}},
		// a: cpu (4000-100)/4000 = 97, memory (8192-200)/8192 = 97
		{name: "nothing asked counts a little", pod: newPod(t, "p", ""), nodes: nodes[:1], want: []int64{97}},
	})
	checkScore(t, nodeResourcesBalanced{}, []scoreCase{
		// a: 25 % and 75 %: off by 25 points; b: 75 % and 100 %: off by 12.5
		{name: "even use is better", pod: requests(t, "p", "1", "6Gi"), nodes: nodes, pods: used, want: []int64{75, 87}},
		{name: "nothing asked", pod: newPod(t, "p", ""), nodes: nodes, pods: used},
	})
}

func TestImageLocality(t *testing.T) {
	nodes := []*v1.Node{
		newNode(t, "has", "status: {allocatable: {}, images: [{names: ['reg.io:5000/app:latest', 'reg.io:5000/app@sha256:1'], sizeBytes: 1048576000}]}"),
		newNode(t, "small", "status: {allocatable: {}, images: [{names: ['tiny:latest'], sizeBytes: 1000}]}"),
	}
	image := func(i string) *v1.Pod { return newPod(t, "p", "spec: {containers: [{name: c, image: '"+i+"'}]}") }
	checkScore(t, imageLocality{}, []scoreCase{
		// half of the nodes have it, so half its 1000 MB count: (500-23)/(1000-23)
		{name: "by size and spread", pod: image("reg.io:5000/app"), nodes: nodes, want: []int64{48, 0}},
		{name: "by digest", pod: image("reg.io:5000/app@sha256:1"), nodes: nodes, want: []int64{48, 0}},
		{name: "too small to matter", pod: image("tiny"), nodes: nodes, want: []int64{0, 0}},
		{name: "nowhere", pod: image("other"), nodes: nodes},
	})
}

func TestUnsupported(t *testing.T) {
	nodes := []*v1.Node{newNode(t, "a", "")}
	checkFilter(t, unsupported{}, []filterCase{
		{name: "plain", pod: newPod(t, "p", ""), nodes: nodes},
		{name: "claims", pod: newPod(t, "p", "spec: {resourceClaims: [{name: gpu, resourceClaimName: g}]}"), nodes: nodes,
			want: map[string]string{"a": "!this scheduler does not support spec.resourceClaims (dynamic resource allocation)"}},
		{name: "gang", pod: newPod(t, "p", "spec: {schedulingGroup: {podGroupName: g}}"), nodes: nodes,
			want: map[string]string{"a": "!this scheduler does not support spec.schedulingGroup (gang scheduling)"}},
	})
}

func zoned(t *testing.T) []*v1.Node {
	return []*v1.Node{
		newNode(t, "a1", "metadata: {labels: {zone: a}}"),
		newNode(t, "a2", "metadata: {labels: {zone: a}}"),
		newNode(t, "b1", "metadata: {labels: {zone: b}}"),
		newNode(t, "x", ""),
	}
}

const webPod = "metadata: {labels: {app: web}}\n"

func TestPodTopologySpreadFilter(t *testing.T) {
	nodes := zoned(t)
	web := func(name, node string) *v1.Pod { return on(node, newPod(t, name, webPod)) }
	spread := func(more string) *v1.Pod {
		return newPod(t, "p", webPod+"spec: {topologySpreadConstraints: [{topologyKey: zone, maxSkew: 1, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}"+more+"}]}")
	}
	missing := "!node(s) didn't match pod topology spread constraints (missing required label)"
	skewed := "node(s) didn't match pod topology spread constraints"
	selected := spread("")
	selected.Spec.NodeSelector = map[string]string{"zone": "a"}
	ignoring := spread(", nodeAffinityPolicy: Ignore")
	ignoring.Spec.NodeSelector = map[string]string{"zone": "a"}
	tainted := zoned(t)
	tainted[2].Spec.Taints = []v1.Taint{{Key: "k", Effect: v1.TaintEffectNoSchedule}}
	going := web("1", "a1")
	going.DeletionTimestamp = &going.CreationTimestamp

	checkFilter(t, podTopologySpread{}, []filterCase{
		{name: "empty", pod: spread(""), nodes: nodes, want: map[string]string{"x": missing}},
		{name: "a is ahead", pod: spread(""), nodes: nodes, pods: []*v1.Pod{web("1", "a1")},
			want: map[string]string{"a1": skewed, "a2": skewed, "x": missing}},
		{name: "even", pod: spread(""), nodes: nodes, pods: []*v1.Pod{web("1", "a1"), web("2", "b1")}, want: map[string]string{"x": missing}},
		{name: "others do not count", pod: spread(""), nodes: nodes, pods: []*v1.Pod{on("a1", newPod(t, "1", ""))}, want: map[string]string{"x": missing}},
		{name: "other namespaces do not count", pod: spread(""), nodes: nodes,
			pods: []*v1.Pod{on("a1", newPod(t, "1", "metadata: {namespace: other, labels: {app: web}}"))}, want: map[string]string{"x": missing}},
		{name: "pods that are going do not count", pod: spread(""), nodes: nodes, pods: []*v1.Pod{going}, want: map[string]string{"x": missing}},
		{name: "nodes out of reach do not count", pod: selected, nodes: nodes, pods: []*v1.Pod{web("1", "a1")}, want: map[string]string{"x": missing}},
		{name: "unless told to", pod: ignoring, nodes: nodes, pods: []*v1.Pod{web("1", "a1")}, want: map[string]string{"a1": skewed, "a2": skewed, "x": missing}},
		{name: "too few domains", pod: spread(", minDomains: 3"), nodes: nodes, pods: []*v1.Pod{web("1", "a1"), web("2", "b1")},
			want: map[string]string{"a1": skewed, "a2": skewed, "b1": skewed, "x": missing}},
		{name: "tainted nodes count", pod: spread(""), nodes: tainted, pods: []*v1.Pod{web("1", "a1")}, want: map[string]string{"a1": skewed, "a2": skewed, "x": missing}},
		{name: "unless told not to", pod: spread(", nodeTaintsPolicy: Honor"), nodes: tainted, pods: []*v1.Pod{web("1", "a1")}, want: map[string]string{"x": missing}},
		{name: "matchLabelKeys", nodes: nodes, pods: []*v1.Pod{on("a1", newPod(t, "1", "metadata: {labels: {app: web, rev: '1'}}"))}, want: map[string]string{"x": missing},
			pod: func() *v1.Pod { p := spread(", matchLabelKeys: [rev]"); p.Labels["rev"] = "2"; return p }()},
	})
	checkWakes(t, podTopologySpread{}, []wakeCase{
		{"such a pod went", spread(""), Event{Kind: PodRemoved, OldPod: web("1", "a1")}, true},
		{"such a pod came", spread(""), Event{Kind: PodAssigned, Pod: web("1", "b1")}, true},
		{"another pod went", spread(""), Event{Kind: PodRemoved, OldPod: newPod(t, "1", "")}, false},
		{"a node with the label", spread(""), Event{Kind: NodeAdded, Node: nodes[0]}, true},
		{"a node without", spread(""), Event{Kind: NodeAdded, Node: nodes[3]}, false},
		{"a domain may be gone", spread(""), Event{Kind: NodeDeleted, OldNode: nodes[2]}, true},
	})
}

func TestPodTopologySpreadScore(t *testing.T) {
	nodes := zoned(t)
	web := func(name, node string) *v1.Pod { return on(node, newPod(t, name, webPod)) }
	owned := "metadata: {ownerReferences: [{uid: rs, controller: true, kind: ReplicaSet, name: r, apiVersion: apps/v1}]}"
	checkScore(t, podTopologySpread{}, []scoreCase{
		{name: "no constraint, no owner", pod: newPod(t, "p", ""), nodes: nodes},
		// two domains: weight ln 4; a has 2 → 3, b has 0 → 0
		{name: "emptier domains are better", nodes: nodes, pods: []*v1.Pod{web("1", "a1"), web("2", "a2")}, want: []int64{0, 0, 100, 0},
			pod: newPod(t, "p", webPod+"spec: {topologySpreadConstraints: [{topologyKey: zone, maxSkew: 1, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}]}")},
		{name: "siblings by default", nodes: nodes[:2], pods: []*v1.Pod{on("a1", newPod(t, "1", owned))}, want: []int64{66, 100}, pod: newPod(t, "p", owned)},
	})
}

func TestInterPodAffinityFilter(t *testing.T) {
	nodes := zoned(t)
	spaces := func(ns string) labels.Set {
		if ns == "team" {
			return labels.Set{"kind": "team"}
		}
		return nil
	}
	plugin := interPodAffinity{namespaceLabels: spaces}
	term := func(kind, more string) string {
		return "spec: {affinity: {" + kind + ": {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, labelSelector: {matchLabels: {app: web}}" + more + "}]}}}"
	}
	web := on("a1", newPod(t, "web", webPod))
	teamWeb := on("a1", newPod(t, "web", "metadata: {namespace: team, labels: {app: web}}"))
	no, anti, existing := "!"+reasonAffinity, reasonAntiAffinity, reasonExistingAntiAffi
	everywhere := map[string]string{"a1": no, "a2": no, "b1": no, "x": no}
	checkFilter(t, plugin, []filterCase{
		{name: "near", pod: newPod(t, "p", term("podAffinity", "")), nodes: nodes, pods: []*v1.Pod{web}, want: map[string]string{"b1": no, "x": no}},
		{name: "near nobody", pod: newPod(t, "p", term("podAffinity", "")), nodes: nodes, want: everywhere},
		{name: "near itself, the first", pod: newPod(t, "p", webPod+term("podAffinity", "")), nodes: nodes, want: map[string]string{"x": no}},
		{name: "near itself, not the first", pod: newPod(t, "p", webPod+term("podAffinity", "")), nodes: nodes, pods: []*v1.Pod{web}, want: map[string]string{"b1": no, "x": no}},
		{name: "another namespace", pod: newPod(t, "p", term("podAffinity", "")), nodes: nodes, pods: []*v1.Pod{teamWeb}, want: everywhere},
		{name: "that namespace", pod: newPod(t, "p", term("podAffinity", ", namespaces: [team]")), nodes: nodes, pods: []*v1.Pod{teamWeb}, want: map[string]string{"b1": no, "x": no}},
		{name: "namespaces by label", pod: newPod(t, "p", term("podAffinity", ", namespaceSelector: {matchLabels: {kind: team}}")), nodes: nodes, pods: []*v1.Pod{teamWeb}, want: map[string]string{"b1": no, "x": no}},
		{name: "all namespaces", pod: newPod(t, "p", term("podAffinity", ", namespaceSelector: {}")), nodes: nodes, pods: []*v1.Pod{web}, want: map[string]string{"b1": no, "x": no}},
		{name: "away", pod: newPod(t, "p", term("podAntiAffinity", "")), nodes: nodes, pods: []*v1.Pod{web}, want: map[string]string{"a1": anti, "a2": anti}},
		{name: "away from nobody", pod: newPod(t, "p", term("podAntiAffinity", "")), nodes: nodes},
		{name: "unwelcome", pod: newPod(t, "p", webPod), nodes: nodes, pods: []*v1.Pod{on("b1", newPod(t, "loner", term("podAntiAffinity", "")))}, want: map[string]string{"b1": existing}},
		{name: "not meant", pod: newPod(t, "p", ""), nodes: nodes, pods: []*v1.Pod{on("b1", newPod(t, "loner", term("podAntiAffinity", "")))}},
	})
	near, away := newPod(t, "p", term("podAffinity", "")), newPod(t, "p", term("podAntiAffinity", ""))
	checkWakes(t, plugin, []wakeCase{
		{"what it wants came", near, Event{Kind: PodAssigned, Pod: web}, true},
		{"something else came", near, Event{Kind: PodAssigned, Pod: newPod(t, "y", "")}, false},
		{"what it avoids went", away, Event{Kind: PodRemoved, OldPod: web}, true},
		{"what avoids it went", newPod(t, "p", webPod), Event{Kind: PodRemoved, OldPod: away}, true},
		{"something else went", away, Event{Kind: PodRemoved, OldPod: newPod(t, "y", "")}, false},
	})
}

func TestInterPodAffinityScore(t *testing.T) {
	nodes := zoned(t)[:3]
	plugin := interPodAffinity{namespaceLabels: noNamespaceLabels}
	web := on("a1", newPod(t, "web", webPod))
	preferred := func(kind string) string {
		return "spec: {affinity: {" + kind + ": {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 5, podAffinityTerm: {topologyKey: zone, labelSelector: {matchLabels: {app: web}}}}]}}}"
	}
	required := "spec: {affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, labelSelector: {matchLabels: {app: web}}}]}}}"
	checkScore(t, plugin, []scoreCase{
		{name: "nothing wanted", pod: newPod(t, "p", ""), nodes: nodes, pods: []*v1.Pod{web}},
		{name: "toward", pod: newPod(t, "p", preferred("podAffinity")), nodes: nodes, pods: []*v1.Pod{web}, want: []int64{100, 100, 0}},
		{name: "away", pod: newPod(t, "p", preferred("podAntiAffinity")), nodes: nodes, pods: []*v1.Pod{web}, want: []int64{0, 0, 100}},
		{name: "wanted by one there", pod: newPod(t, "p", webPod), nodes: nodes, pods: []*v1.Pod{on("b1", newPod(t, "q", preferred("podAffinity")))}, want: []int64{0, 0, 100}},
		{name: "needed by one there", pod: newPod(t, "p", webPod), nodes: nodes, pods: []*v1.Pod{on("b1", newPod(t, "q", required))}, want: []int64{0, 0, 100}},
		{name: "shunned by one there", pod: newPod(t, "p", webPod), nodes: nodes, pods: []*v1.Pod{on("b1", newPod(t, "q", preferred("podAntiAffinity")))}, want: []int64{100, 100, 0}},
	})
}
