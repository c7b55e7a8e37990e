package admission

import (
	"testing"

	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func limitRange(t *testing.T, items string) *store {
	return newStore(map[schema.GroupResource][]object.Object{limitRanges: {as[corev1.LimitRange](t, "{metadata: {namespace: ns, name: l}, spec: {limits: ["+items+"]}}")}})
}

const limitItems = `{type: Container, default: {cpu: 500m, memory: 256Mi}, defaultRequest: {cpu: 125m, memory: 256Mi}, max: {cpu: 1, memory: 1Gi}, maxLimitRequestRatio: {cpu: 4}, min: {cpu: 50m}}, {type: Pod, max: {cpu: 1500m}}, {type: PersistentVolumeClaim, max: {storage: 5Gi}, min: {storage: 1Gi}}`

// The refusals are those of corpus admission/limitrange.
func TestLimitRanger(t *testing.T) {
	c := &cluster{Reader: limitRange(t, limitItems)}
	checkChanges(t, c.limitRanger(), []change{
		{name: "all filled in", spec: "containers: [{name: c}]",
			want: "containers: [{name: c, resources: {limits: {cpu: 500m, memory: 256Mi}, requests: {cpu: 125m, memory: 256Mi}}}]"},
		{name: "some", spec: "containers: [{name: c, resources: {requests: {cpu: 200m, memory: 10Mi}}}]",
			want: "containers: [{name: c, resources: {limits: {cpu: 500m, memory: 256Mi}, requests: {cpu: 200m, memory: 10Mi}}}]"},
		{name: "above max", spec: "containers: [{name: c, resources: {requests: {cpu: 2}, limits: {cpu: 2}}}]",
			refused: `pods "p" is forbidden: [maximum cpu usage per Container is 1, but limit is 2, maximum cpu usage per Pod is 1500m, but limit is 2]`},
		{name: "below min", spec: "containers: [{name: c, resources: {requests: {cpu: 10m}}}]",
			refused: `pods "p" is forbidden: [minimum cpu usage per Container is 50m, but request is 10m, cpu max limit to request ratio per Container is 4, but provided ratio is 50.000000]`},
		{name: "ratio", spec: "containers: [{name: c, resources: {requests: {cpu: 100m}, limits: {cpu: 800m}}}]",
			refused: `pods "p" is forbidden: cpu max limit to request ratio per Container is 4, but provided ratio is 8.000000`},
		{name: "pod", spec: "containers: [{name: c, resources: {requests: {cpu: 900m}, limits: {cpu: 900m}}}, {name: d, resources: {requests: {cpu: 900m}, limits: {cpu: 900m}}}], initContainers: [{name: i}]",
			refused: `pods "p" is forbidden: maximum cpu usage per Pod is 1500m, but limit is 1800m`},
		{name: "pod as a whole", spec: "resources: {limits: {cpu: 2}}, containers: [{name: c, resources: {requests: {cpu: 100m}, limits: {cpu: 100m}}}]",
			refused: `pods "p" is forbidden: maximum cpu usage per Pod is 1500m, but limit is 2`},
	})
	bare := &cluster{Reader: limitRange(t, `{type: Container, max: {memory: 1Gi}, min: {cpu: 1}, maxLimitRequestRatio: {memory: 2}}`)}
	checkChanges(t, bare.limitRanger(), []change{{name: "nothing specified", spec: "containers: [{name: c}]",
		refused: `pods "p" is forbidden: [minimum cpu usage per Container is 1.  No request is specified, maximum memory usage per Container is 1Gi.  No limit is specified, memory max limit to request ratio per Container is 2, but no request is specified or request is 0]`}})

	noted := pod(t, "containers: [{name: c, resources: {requests: {cpu: 400m}, limits: {cpu: 400m}}}, {name: d, resources: {requests: {cpu: 200m, memory: 10Mi}}}], initContainers: [{name: i, resources: {limits: {cpu: 1, memory: 1}}}]")
	same(t, "pod", c.limitRanger().Change(t.Context(), on(Create, "pods", noted, nil)), nil)
	same(t, "annotation", noted.Annotations["kubernetes.io/limit-ranger"],
		"LimitRanger plugin set: memory request for container c; memory limit for container c; cpu, memory limit for container d; cpu, memory request for init container i")

	claim := func(size string) *corev1.PersistentVolumeClaim {
		return as[corev1.PersistentVolumeClaim](t, "{metadata: {namespace: ns, name: c}, spec: {resources: {requests: {storage: "+size+"}}}}")
	}
	for size, want := range map[string]string{
		"2Gi":   "",
		"500Mi": `persistentvolumeclaims "c" is forbidden: minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi`,
		"50Gi":  `persistentvolumeclaims "c" is forbidden: maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 50Gi`,
	} {
		same(t, size, admit(t, c.limitRanger(), on(Create, "persistentvolumeclaims", claim(size), nil)), want)
	}
	big := pod(t, "containers: [{name: c, resources: {requests: {cpu: 2}, limits: {cpu: 2}}}]")
	same(t, "update", admit(t, c.limitRanger(), on(Update, "pods", big, big)), "")
	if admit(t, c.limitRanger(), on(Update, "pods/resize", big, big)) == "" {
		t.Error("a resize beyond the limits is admitted")
	}
}

func quotaObject(t *testing.T, name, hard, used, more string) *corev1.ResourceQuota {
	return as[corev1.ResourceQuota](t, "{metadata: {namespace: ns, name: "+name+"}, spec: {hard: {"+hard+"}"+more+"}, status: {hard: {"+hard+"}, used: {"+used+"}}}")
}

// The refusals are those of corpus admission/quota-compute and quota-objects.
func TestResourceQuota(t *testing.T) {
	container := func(resources string) string { return "containers: [{name: c, resources: {" + resources + "}}]" }
	service := func(spec string) object.Object {
		s := as[corev1.Service](t, "{metadata: {namespace: ns, name: s}, spec: {"+spec+"}}")
		return s
	}
	claim := func(spec string) object.Object {
		return as[corev1.PersistentVolumeClaim](t, "{metadata: {namespace: ns, name: c}, spec: {"+spec+"}}")
	}
	podOf := func(spec string) object.Object { return pod(t, spec) }
	const compute, nothing = `limits.memory: 1Gi, pods: "2", requests.cpu: 500m`, `limits.memory: "0", pods: "0", requests.cpu: "0"`
	for _, test := range []struct {
		name       string
		quota      *corev1.ResourceQuota
		r          *Request
		used, want string // used: status.used afterwards
	}{
		{"must specify", quotaObject(t, "q", compute, nothing, ""), on(Create, "pods", podOf(container("")), nil), nothing,
			`pods "p" is forbidden: failed quota: q: must specify limits.memory for: c; requests.cpu for: c`},
		{"charged", quotaObject(t, "q", compute, nothing, ""), on(Create, "pods", podOf(container("limits: {memory: 512Mi}, requests: {cpu: 300m}")), nil),
			`limits.memory: 512Mi, pods: "1", requests.cpu: 300m`, ""},
		{"specified as a whole", quotaObject(t, "q", compute, nothing, ""), on(Create, "pods", podOf("resources: {limits: {memory: 1Mi}, requests: {cpu: 1m}}, "+container("")), nil),
			`limits.memory: 1Mi, pods: "1", requests.cpu: 1m`, ""},
		{"exceeded", quotaObject(t, "q", compute, `limits.memory: 512Mi, pods: "1", requests.cpu: 300m`, ""), on(Create, "pods", podOf(container("limits: {memory: 800Mi}, requests: {cpu: 300m}")), nil),
			`limits.memory: 512Mi, pods: "1", requests.cpu: 300m`,
			`pods "p" is forbidden: exceeded quota: q, requested: limits.memory=800Mi,requests.cpu=300m, used: limits.memory=512Mi,requests.cpu=300m, limited: limits.memory=1Gi,requests.cpu=500m`},
		{"status unknown", quotaObject(t, "q", compute, "pods: 0", ""), on(Create, "pods", podOf(container("limits: {memory: 1Mi}, requests: {cpu: 1m}")), nil), "pods: 0",
			`pods "p" is forbidden: status unknown for quota: q, resources: limits.memory,requests.cpu`},
		{"finished", quotaObject(t, "q", "pods: 0, count/pods: 1", "pods: 0, count/pods: 0", ""), on(Create, "pods", as[corev1.Pod](t, "{metadata: {namespace: ns, name: p}, status: {phase: Failed}}"), nil), "pods: 0, count/pods: 1", ""},
		{"update of a pod", quotaObject(t, "q", compute, nothing, ""), on(Update, "pods", podOf(""), podOf("")), nothing, ""},
		{"resize", quotaObject(t, "q", "requests.cpu: 1", "requests.cpu: 900m", ""), on(Update, "pods/resize", podOf(container("requests: {cpu: 300m}")), podOf(container("requests: {cpu: 100m}"))), "requests.cpu: 900m",
			`pods "p" is forbidden: exceeded quota: q, requested: requests.cpu=200m, used: requests.cpu=900m, limited: requests.cpu=1`},
		{"extended", quotaObject(t, "q", "requests.a.com/gpu: 2", "requests.a.com/gpu: 0", ""), on(Create, "pods", podOf(container("requests: {a.com/gpu: 2}")), nil), "requests.a.com/gpu: 2", ""},
		{"best effort only", quotaObject(t, "q", "pods: 0", "pods: 0", ", scopes: [BestEffort]"), on(Create, "pods", podOf(container("requests: {cpu: 1}")), nil), "pods: 0", ""},
		{"best effort", quotaObject(t, "q", "pods: 0", "pods: 0", ", scopes: [BestEffort]"), on(Create, "pods", podOf(container("")), nil), "pods: 0",
			`pods "p" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0`},
		{"terminating only", quotaObject(t, "q", "pods: 0", "pods: 0", ", scopes: [Terminating]"), on(Create, "pods", podOf(""), nil), "pods: 0", ""},
		{"priority", quotaObject(t, "q", "pods: 0", "pods: 0", ", scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In, values: [high]}]}"), on(Create, "pods", podOf("priorityClassName: high"), nil), "pods: 0",
			`pods "p" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0`},
		{"other priority", quotaObject(t, "q", "pods: 0", "pods: 0", ", scopeSelector: {matchExpressions: [{scopeName: PriorityClass, operator: In, values: [high]}]}"), on(Create, "pods", podOf("priorityClassName: low"), nil), "pods: 0", ""},
		{"node port", quotaObject(t, "q", "services.nodeports: 0", "services.nodeports: 0", ""), on(Create, "services", service("type: NodePort, ports: [{port: 1}]"), nil), "services.nodeports: 0",
			`services "s" is forbidden: exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=0, limited: services.nodeports=0`},
		{"became a node port", quotaObject(t, "q", "services.nodeports: 1, services: 1", "services.nodeports: 0, services: 1", ""), on(Update, "services", service("type: NodePort, ports: [{port: 1}]"), service("ports: [{port: 1}]")), "services.nodeports: 1, services: 1", ""},
		{"load balancer", quotaObject(t, "q", "services.nodeports: 9, services.loadbalancers: 2", "services.nodeports: 0, services.loadbalancers: 0", ""), on(Create, "services", service("type: LoadBalancer, ports: [{port: 1}, {port: 2}]"), nil), "services.nodeports: 2, services.loadbalancers: 1", ""},
		{"claim", quotaObject(t, "q", "requests.storage: 5Gi, gold.storageclass.storage.k8s.io/requests.storage: 2Gi, gold.storageclass.storage.k8s.io/persistentvolumeclaims: 1, persistentvolumeclaims: 5", "requests.storage: 0, gold.storageclass.storage.k8s.io/requests.storage: 0, gold.storageclass.storage.k8s.io/persistentvolumeclaims: 0, persistentvolumeclaims: 0", ""),
			on(Create, "persistentvolumeclaims", claim("storageClassName: gold, resources: {requests: {storage: 1Gi}}"), nil),
			"requests.storage: 1Gi, gold.storageclass.storage.k8s.io/requests.storage: 1Gi, gold.storageclass.storage.k8s.io/persistentvolumeclaims: 1, persistentvolumeclaims: 1", ""},
		{"claim grows", quotaObject(t, "q", "requests.storage: 5Gi", "requests.storage: 4Gi", ""), on(Update, "persistentvolumeclaims", claim("resources: {requests: {storage: 3Gi}}"), claim("resources: {requests: {storage: 1Gi}}")), "requests.storage: 4Gi",
			`persistentvolumeclaims "c" is forbidden: exceeded quota: q, requested: requests.storage=2Gi, used: requests.storage=4Gi, limited: requests.storage=5Gi`},
		{"devices", quotaObject(t, "q", "gpu.deviceclass.resource.k8s.io/devices: 40, nic.deviceclass.resource.k8s.io/devices: 40", "gpu.deviceclass.resource.k8s.io/devices: 0, nic.deviceclass.resource.k8s.io/devices: 0", ""),
			on(Create, "resource.k8s.io:resourceclaims", as[resourcev1.ResourceClaim](t, "{metadata: {namespace: ns, name: c}, spec: {devices: {requests: [{name: a, exactly: {deviceClassName: gpu, allocationMode: All}}, {name: b, firstAvailable: [{name: x, deviceClassName: nic, allocationMode: ExactCount, count: 3}, {name: y, deviceClassName: nic, allocationMode: ExactCount, count: 1}]}]}}}"), nil),
			"gpu.deviceclass.resource.k8s.io/devices: 32, nic.deviceclass.resource.k8s.io/devices: 3", ""},
		{"secrets", quotaObject(t, "q", "secrets: 2, count/secrets: 9", "secrets: 2, count/secrets: 2", ""), on(Create, "secrets", secret("ns", "c"), nil), "secrets: 2, count/secrets: 2",
			`secrets "c" is forbidden: exceeded quota: q, requested: secrets=1, used: secrets=2, limited: secrets=2`},
		{"roles", quotaObject(t, "q", "count/roles.rbac.authorization.k8s.io: 1", "count/roles.rbac.authorization.k8s.io: 1", ""), on(Create, "rbac.authorization.k8s.io:roles", secret("ns", "b"), nil), "count/roles.rbac.authorization.k8s.io: 1",
			`roles.rbac.authorization.k8s.io "b" is forbidden: exceeded quota: q, requested: count/roles.rbac.authorization.k8s.io=1, used: count/roles.rbac.authorization.k8s.io=1, limited: count/roles.rbac.authorization.k8s.io=1`},
		{"accounts", quotaObject(t, "q", "count/serviceaccounts: 3", "count/serviceaccounts: 1", ""), on(Create, "serviceaccounts", secret("ns", "b"), nil), "count/serviceaccounts: 2", ""},
		{"not counted", quotaObject(t, "q", "secrets: 0", "secrets: 0", ""), on(Create, "configmaps", secret("ns", "b"), nil), "secrets: 0", ""},
		{"events", quotaObject(t, "q", "count/events: 0", "count/events: 0", ""), on(Create, "events", secret("ns", "b"), nil), "count/events: 0", ""},
	} {
		s := newStore(map[schema.GroupResource][]object.Object{resourceQuotas: {test.quota}})
		p := (&cluster{Reader: s, BuiltinOptions: BuiltinOptions{Objects: s}}).resourceQuota()
		same(t, test.name, admit(t, p, test.r), test.want)
		want := quotaObject(t, "q", "", test.used, "").Status.Used
		got := s.objects[key(resourceQuotas, "ns", "q")].(*corev1.ResourceQuota).Status.Used
		if len(got) != len(want) {
			t.Errorf("%s: used %v", test.name, got)
		}
		for name, amount := range want {
			if have := got[name]; have.Cmp(amount) != 0 {
				t.Errorf("%s: used %s: got %s, want %s", test.name, name, have.String(), amount.String())
			}
		}
	}
}

// TestQuotasTogether is that nothing is charged to one quota when another one refuses.
func TestQuotasTogether(t *testing.T) {
	s := newStore(map[schema.GroupResource][]object.Object{resourceQuotas: {quotaObject(t, "a", "secrets: 5", "secrets: 1", ""), quotaObject(t, "b", "secrets: 1", "secrets: 1", "")}})
	p := (&cluster{Reader: s, BuiltinOptions: BuiltinOptions{Objects: s}}).resourceQuota()
	r := on(Create, "secrets", secret("ns", "x"), nil)
	same(t, "refusal", admit(t, p, r), `secrets "x" is forbidden: exceeded quota: b, requested: secrets=1, used: secrets=1, limited: secrets=1`)
	used := func(name string) string {
		q := s.objects[key(resourceQuotas, "ns", name)].(*corev1.ResourceQuota).Status.Used["secrets"]
		return q.String()
	}
	same(t, "a", used("a"), "1")
	delete(s.objects, key(resourceQuotas, "ns", "b"))
	r.DryRun = true
	same(t, "dry run", admit(t, p, r), "")
	same(t, "a", used("a"), "1")
	r.DryRun = false
	same(t, "run", admit(t, p, r), "")
	same(t, "a", used("a"), "2")
}

// TestQuotaGone is that a quota which is deleted while it is charged does not stand in the way.
func TestQuotaGone(t *testing.T) {
	s := newStore(map[schema.GroupResource][]object.Object{resourceQuotas: {quotaObject(t, "a", "secrets: 5", "secrets: 1", "")}})
	gone := newStore(nil)
	p := (&cluster{Reader: s, BuiltinOptions: BuiltinOptions{Objects: gone}}).resourceQuota()
	err := p.Check(t.Context(), on(Create, "secrets", secret("ns", "x"), nil))
	if apierrors.IsNotFound(err) {
		t.Error("the missing quota is told to the client")
	}
	same(t, "error", err, nil)
}
