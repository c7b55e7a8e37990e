package admission

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"testing"
	"testing/synctest"
	"time"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestCertificates(t *testing.T) {
	c := func(may ...string) *cluster { return &cluster{BuiltinOptions: BuiltinOptions{Authorizer: allow(may)}} }
	csr := func(text string) *certificatesv1.CertificateSigningRequest {
		return as[certificatesv1.CertificateSigningRequest](t, "{metadata: {name: x}, spec: {signerName: example.com/s}, "+text+"}")
	}
	plain, issued := csr(""), csr("status: {certificate: eA==}")
	const noApprove, noSign = `certificatesigningrequests.certificates.k8s.io "x" is forbidden: user not permitted to approve requests with signerName "example.com/s"`, `certificatesigningrequests.certificates.k8s.io "x" is forbidden: user not permitted to sign requests with signerName "example.com/s"`
	for _, test := range []struct {
		name string
		p    Plugin
		r    *Request
		want string
	}{
		{"approve", c().certificateApproval(), on(Update, "certificates.k8s.io:certificatesigningrequests/approval", plain, plain), noApprove},
		{"approve by name", c("approve signers example.com/s").certificateApproval(), on(Update, "certificates.k8s.io:certificatesigningrequests/approval", plain, plain), ""},
		{"approve by domain", c("approve signers example.com/*").certificateApproval(), on(Update, "certificates.k8s.io:certificatesigningrequests/approval", plain, plain), ""},
		{"approve elsewhere", c().certificateApproval(), on(Update, "certificates.k8s.io:certificatesigningrequests", plain, plain), ""},
		{"sign", c("approve signers example.com/s").certificateSigning(), on(Update, "certificates.k8s.io:certificatesigningrequests/status", issued, plain), noSign},
		{"sign by domain", c("sign signers example.com/*").certificateSigning(), on(Update, "certificates.k8s.io:certificatesigningrequests/status", issued, plain), ""},
		{"sign nothing", c().certificateSigning(), on(Update, "certificates.k8s.io:certificatesigningrequests/status", issued, issued), ""},
		{"fail", c().certificateSigning(), on(Update, "certificates.k8s.io:certificatesigningrequests/status", csr("status: {conditions: [{type: Failed, status: 'True'}]}"), plain), noSign},
		{"attest", c().clusterTrustBundleAttest(), on(Create, "certificates.k8s.io:clustertrustbundles", as[certificatesv1.ClusterTrustBundle](t, "{metadata: {name: b}, spec: {signerName: example.com/s}}"), nil),
			`clustertrustbundles.certificates.k8s.io "b" is forbidden: user not permitted to attest for signerName "example.com/s"`},
		{"attest for none", c().clusterTrustBundleAttest(), on(Create, "certificates.k8s.io:clustertrustbundles", as[certificatesv1.ClusterTrustBundle](t, "{metadata: {name: b}}"), nil), ""},
	} {
		same(t, test.name, admit(t, test.p, test.r), test.want)
	}
}

func TestCertificateSubjectRestriction(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	request := func(signer string, groups ...string) *certificatesv1.CertificateSigningRequest {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "u", Organization: groups}}, key)
		if err != nil {
			t.Fatal(err)
		}
		csr := &certificatesv1.CertificateSigningRequest{}
		csr.Name, csr.Spec.SignerName = "x", signer
		csr.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
		return csr
	}
	check := func(csr *certificatesv1.CertificateSigningRequest) string {
		return admit(t, certificateSubjectRestriction(), on(Create, "certificates.k8s.io:certificatesigningrequests", csr, nil))
	}
	same(t, "masters", check(request("kubernetes.io/kube-apiserver-client", "a", "system:masters")), `certificatesigningrequests.certificates.k8s.io "x" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed`)
	same(t, "others", check(request("kubernetes.io/kube-apiserver-client", "a")), "")
	same(t, "other signer", check(request("example.com/s", "system:masters")), "")
	broken := request("kubernetes.io/kube-apiserver-client")
	broken.Spec.Request = []byte("x")
	same(t, "broken", check(broken), `certificatesigningrequests.certificates.k8s.io "x" is forbidden: failed to parse CSR: PEM block type must be CERTIFICATE REQUEST`)
}

func TestOwnerReferences(t *testing.T) {
	catalog := kind.NewLive(kind.NewCatalog(
		&kind.Definition{Group: "apps", Version: "v1", Kind: "ReplicaSet", Plural: "replicasets", Scope: kind.Namespaced},
	))
	owned := func(references string) *corev1.Secret {
		return as[corev1.Secret](t, "{metadata: {namespace: ns, name: s, ownerReferences: ["+references+"]}}")
	}
	const plain, blocking, unknown = "{apiVersion: apps/v1, kind: ReplicaSet, name: r, uid: u}", "{apiVersion: apps/v1, kind: ReplicaSet, name: r, uid: u, blockOwnerDeletion: true}", "{apiVersion: example.com/v1, kind: Odd, name: r, uid: u, blockOwnerDeletion: true}"
	for _, test := range []struct {
		name     string
		may      allow
		now, old string
		create   bool
		want     string
	}{
		{"unchanged", nil, plain, plain, false, ""},
		{"new object", nil, plain, "", true, ""},
		{"without delete", nil, plain, "", false, `secrets "s" is forbidden: cannot set an ownerRef on a resource you can't delete: no rule, <nil>`},
		{"with delete", allow{"delete secrets s"}, plain, "", false, ""},
		{"blocking", allow{"delete secrets s"}, blocking, "", false, `secrets "s" is forbidden: cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on: no rule, <nil>`},
		{"may block", allow{"delete secrets s", "update replicasets/finalizers r"}, blocking, "", false, ""},
		{"unknown kind", nil, unknown, "", true, `secrets "s" is forbidden: cannot set blockOwnerDeletion in this case because cannot find RESTMapping for APIVersion example.com/v1 Kind Odd: no matches for kind "Odd" in version "example.com/v1"`},
	} {
		c := &cluster{BuiltinOptions: BuiltinOptions{Authorizer: test.may, Catalog: catalog}}
		r := on(Update, "secrets", owned(test.now), owned(test.old))
		if test.create {
			r = on(Create, "secrets", owned(test.now), nil)
		}
		same(t, test.name, admit(t, c.ownerReferencesPermissionEnforcement(), r), test.want)
	}
}

func TestPodRules(t *testing.T) {
	checkChanges(t, alwaysPullImages(), []change{{name: "pull", spec: "containers: [{name: c, imagePullPolicy: Never}], initContainers: [{name: i}], volumes: [{name: v, image: {reference: r}}]",
		want: "containers: [{name: c, imagePullPolicy: Always}], initContainers: [{name: i, imagePullPolicy: Always}], volumes: [{name: v, image: {reference: r, pullPolicy: Always}}]"}})
	never := pod(t, "containers: [{name: c, image: x, imagePullPolicy: Never}]")
	same(t, "no new image", admit(t, alwaysPullImages(), on(Update, "pods", never, never)), "")
	same(t, "check", alwaysPullImages().Check(t.Context(), on(Create, "pods", never, nil)).Error(), `pods "p" is forbidden: spec.containers[0].imagePullPolicy: Unsupported value: "Never": supported values: "Always"`)

	affinity := func(topology string) string {
		return "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: " + topology + "}]}}"
	}
	checkChanges(t, limitPodHardAntiAffinityTopology(), []change{
		{name: "host", spec: affinity("kubernetes.io/hostname"), want: affinity("kubernetes.io/hostname")},
		{name: "zone", spec: affinity("zone"), refused: `pods "p" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey zone but only key kubernetes.io/hostname is allowed`},
	})
	service := func(ips string) *corev1.Service {
		return as[corev1.Service](t, "{metadata: {name: s}, spec: {externalIPs: ["+ips+"]}}")
	}
	same(t, "external", admit(t, denyServiceExternalIPs(), on(Create, "services", service("1.2.3.4"), nil)), `services "s" is forbidden: Use of external IPs is denied by admission control`)
	same(t, "external kept", admit(t, denyServiceExternalIPs(), on(Update, "services", service("1.2.3.4"), service("1.2.3.4, 1.2.3.5"))), "")
	same(t, "deny", admit(t, alwaysDeny(), on(Create, "services", service(""), nil)), `services "s" is forbidden: admission control is denying all modifications`)
}

func TestPodNode(t *testing.T) {
	s := newStore(map[schema.GroupResource][]object.Object{nodes: {
		as[corev1.Node](t, "{metadata: {name: n1, labels: {topology.kubernetes.io/zone: z, topology.kubernetes.io/region: r, other: x}}, status: {allocatable: {cpu: 2, memory: 1Gi}}}"),
		as[corev1.Node](t, "{metadata: {name: w, labels: {kubernetes.io/os: windows}}}"),
	}})
	c := &cluster{Reader: s}
	binding := as[corev1.Binding](t, "{metadata: {namespace: ns, name: p}, target: {kind: Node, name: n1}}")
	same(t, "bind", admit(t, c.podTopologyLabels(), on(Create, "pods/binding", binding, nil)), "")
	same(t, "labels", binding.Labels, map[string]string{"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"})
	placed := pod(t, "nodeName: n1")
	same(t, "placed", admit(t, c.podTopologyLabels(), on(Create, "pods", placed, nil)), "")
	same(t, "labels", placed.Labels, binding.Labels)
	lost := pod(t, "nodeName: none")
	same(t, "unknown node", admit(t, c.podTopologyLabels(), on(Create, "pods", lost, nil)), "")
	same(t, "labels", lost.Labels, map[string]string(nil))

	resize := func(node, cpu string) string {
		spec := func(cpu string) *corev1.Pod {
			return pod(t, "nodeName: "+node+", containers: [{name: c, resources: {requests: {cpu: "+cpu+"}}}]")
		}
		return admit(t, c.podResizeValidator(), on(Update, "pods/resize", spec(cpu), spec("1")))
	}
	same(t, "fits", resize("n1", "2"), "")
	same(t, "too much", resize("n1", "3"), `pods "p" is forbidden: node "n1" does not have enough allocatable cpu: requested 3, allocatable 2`)
	same(t, "windows", resize("w", "2"), `pods "p" is forbidden: pod resize is not supported on nodes with operating system "windows"`)
}

func TestNodeDeclaredFeatures(t *testing.T) {
	s := newStore(map[schema.GroupResource][]object.Object{nodes: {
		as[corev1.Node](t, "{metadata: {name: n1}}"),
		as[corev1.Node](t, "{metadata: {name: n2}, status: {declaredFeatures: [InPlacePodLevelResourcesVerticalScaling]}}"),
	}})
	p := (&cluster{Reader: s}).nodeDeclaredFeatureValidator()
	resize := func(node, from, to string) string {
		whole := func(cpu string) *corev1.Pod {
			return pod(t, "nodeName: "+node+", resources: {requests: {cpu: "+cpu+"}}, containers: [{name: c}]")
		}
		return admit(t, p, on(Update, "pods/resize", whole(to), whole(from)))
	}
	same(t, "no change", resize("n1", "1", "1"), "")
	same(t, "needs a feature", resize("n1", "1", "2"), `pods "p" is forbidden: pod update requires features InPlacePodLevelResourcesVerticalScaling which are not available on node "n1"`)
	same(t, "has the feature", resize("n2", "1", "2"), "")
	same(t, "not placed", resize(`""`, "1", "2"), "")
}

func TestNamespaceRules(t *testing.T) {
	n := namespaceObject("ns", corev1.NamespaceActive)
	n.Annotations = map[string]string{
		"scheduler.alpha.kubernetes.io/node-selector":        "env=test",
		"scheduler.alpha.kubernetes.io/defaultTolerations":   `[{"key":"a","operator":"Exists"}]`,
		"scheduler.alpha.kubernetes.io/tolerationsWhitelist": `[{"key":"a","operator":"Exists"},{"key":"b","operator":"Equal","value":"1"},{"key":"node.kubernetes.io/memory-pressure","operator":"Exists"}]`,
	}
	s := newStore(map[schema.GroupResource][]object.Object{namespaces: {n}})
	c := &cluster{Reader: s, BuiltinOptions: BuiltinOptions{NodeSelectors: map[string]string{"ns": "env=test,rack=1", "clusterDefaultNodeSelector": "x=y"}}}
	checkChanges(t, c.podNodeSelector(), []change{
		{name: "none", want: "nodeSelector: {env: test}"},
		{name: "more", spec: "nodeSelector: {rack: '1'}", want: "nodeSelector: {env: test, rack: '1'}"},
		{name: "conflict", spec: "nodeSelector: {env: prod}", refused: `pods "p" is forbidden: pod node label selector conflicts with its namespace node label selector`},
		{name: "not allowed", spec: "nodeSelector: {rack: '2'}", refused: `pods "p" is forbidden: pod node label selector labels conflict with its namespace whitelist`},
	})
	checkChanges(t, c.podTolerationRestriction(), []change{
		{name: "none", want: "tolerations: [{key: a, operator: Exists}]"},
		{name: "allowed", spec: "tolerations: [{key: b, operator: Equal, value: '1'}]", want: "tolerations: [{key: a, operator: Exists}, {key: b, operator: Equal, value: '1'}]"},
		{name: "not allowed", spec: "tolerations: [{key: b, operator: Equal, value: '2'}]", refused: `pods "p" is forbidden: pod tolerations (possibly merged with namespace default tolerations) conflict with its namespace whitelist`},
		{name: "pressure", spec: "containers: [{name: c, resources: {requests: {cpu: 1}}}]", want: "containers: [{name: c, resources: {requests: {cpu: 1}}}], tolerations: [{key: a, operator: Exists}, {key: node.kubernetes.io/memory-pressure, operator: Exists, effect: NoSchedule}]"},
	})
}

func TestEventRateLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := eventRateLimit([]EventRateLimit{{Type: "Namespace", QPS: 1, Burst: 2, Cache: 2}, {Type: "User", QPS: 10, Burst: 100}})
		event := func(namespace string) string {
			return admit(t, p, on(Create, "events", &corev1.Event{ObjectMeta: secret(namespace, "e").ObjectMeta}, nil))
		}
		same(t, "first", event("a"), "")
		same(t, "second", event("a"), "")
		same(t, "third", event("a"), "Too many requests: limit reached on type Namespace for key a")
		same(t, "elsewhere", event("b"), "")
		time.Sleep(time.Second)
		same(t, "a second later", event("a"), "")
		same(t, "again", event("a"), "Too many requests: limit reached on type Namespace for key a")
		same(t, "a third namespace", event("c"), "") // forgets b, which is as good as full
		same(t, "b", event("b"), "")
		same(t, "b", event("b"), "")
		same(t, "no event", admit(t, p, on(Create, "secrets", secret("a", "x"), nil)), "")
	})
}
