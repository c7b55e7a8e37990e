package handover_test

import (
	"encoding/hex"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/api"
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write testdata/unrecorded.txt anew")

// unrecorded are objects of the kinds that the stock server's recording lacks.
var unrecorded = []string{`
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: m, uid: u-1, generation: 1, creationTimestamp: "2026-01-02T03:04:05Z"}
webhooks:
- name: a.example.com
  clientConfig: {service: {namespace: n, name: s, port: 443, path: /p}, caBundle: AQI=}
  rules: [{apiGroups: [apps], apiVersions: ["*"], operations: [CREATE], resources: [deployments], scope: "*"}]
  failurePolicy: Fail
  matchPolicy: Equivalent
  namespaceSelector: {matchLabels: {a: b}}
  objectSelector: {}
  sideEffects: None
  timeoutSeconds: 10
  admissionReviewVersions: [v1]
  reinvocationPolicy: Never
`, `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: v, uid: u-2, generation: 1, creationTimestamp: "2026-01-02T03:04:05Z"}
webhooks:
- name: a.example.com
  clientConfig: {url: "https://example.com/p"}
  failurePolicy: Ignore
  matchPolicy: Exact
  namespaceSelector: {}
  objectSelector: {}
  sideEffects: None
  timeoutSeconds: 1
  admissionReviewVersions: [v1]
  matchConditions: [{name: c, expression: "true"}]
`, `
apiVersion: storagemigration.k8s.io/v1
kind: StorageVersionMigration
metadata: {name: s, uid: u-3, generation: 1, creationTimestamp: "2026-01-02T03:04:05Z"}
spec: {resource: {group: apps, resource: deployments}}
status: {resourceVersion: "7", conditions: [{type: Running, status: "True", reason: R, lastTransitionTime: "2026-01-02T03:04:05Z"}]}
`, `
apiVersion: scheduling.k8s.io/v1beta1
kind: Workload
metadata: {name: w, namespace: n, uid: u-4}
spec: {controllerRef: {apiGroup: batch, kind: Job, name: j}, podGroupTemplates: [{name: p, schedulingPolicy: {gang: {minCount: 2}}}]}
`, `
apiVersion: scheduling.k8s.io/v1beta1
kind: PodGroup
metadata: {name: p, namespace: n, uid: u-5}
spec: {schedulingPolicy: {basic: {}}, priorityClassName: c, priority: 3}
`, `
apiVersion: scheduling.k8s.io/v1alpha3
kind: CompositePodGroup
metadata: {name: p, namespace: n, uid: u-6}
spec: {schedulingPolicy: {basic: {}}, priority: 3}
`, `
apiVersion: lifecycle.k8s.io/v1alpha1
kind: Eviction
metadata: {name: e, namespace: n, uid: u-7}
spec: {target: {pod: {name: p, uid: u}}}
`, `
apiVersion: lifecycle.k8s.io/v1alpha1
kind: EvictionRequest
metadata: {name: e, namespace: n, uid: u-8}
spec: {target: {pod: {name: p, uid: u}}, requester: r.example.com}
`, `
apiVersion: coordination.k8s.io/v1beta1
kind: LeaseCandidate
metadata: {name: l, namespace: n, uid: u-9}
spec: {leaseName: l, binaryVersion: 1.37.0, emulationVersion: 1.37.0, strategy: OldestEmulationVersion, renewTime: "2026-01-02T03:04:05.000006Z"}
`, `
apiVersion: resource.k8s.io/v1alpha3
kind: ResourcePoolStatusRequest
metadata: {name: r, uid: u-10}
spec: {driver: d.example.com, poolName: p, limit: 7}
`, `
apiVersion: internal.apiserver.k8s.io/v1alpha1
kind: StorageVersion
metadata: {name: apps.deployments, uid: u-11}
spec: {}
status: {commonEncodingVersion: apps/v1, storageVersions: [{apiServerID: a, encodingVersion: apps/v1, decodableVersions: [apps/v1], servedVersions: [apps/v1]}]}
`}

// TestEveryKind: the bytes of each kind that is stored are held: by the recording, or by testdata/unrecorded.txt. The law in
// internal/api (TestStoredBytes) says that they are apimachinery's.
func TestEveryKind(t *testing.T) {
	catalog := kind.NewCatalog(api.Groups(api.Options{})...)
	held := map[string]bool{}
	for _, r := range registry(t) {
		for _, d := range catalog.Stored() {
			if strings.HasPrefix(r.Key, "/registry/"+d.Stored.Prefix+"/") {
				held[d.Stored.Prefix] = true
			}
		}
	}
	want := known(t, "unrecorded.txt")
	var golden strings.Builder
	golden.WriteString("# What is stored for the objects of kinds_test.go, in hexadecimal digits.\n")
	for _, text := range unrecorded {
		var meta struct{ APIVersion, Kind string }
		if err := yaml.Unmarshal([]byte(text), &meta); err != nil {
			t.Fatal(err)
		}
		d := catalog.Kind(schema.FromAPIVersionAndKind(meta.APIVersion, meta.Kind))
		if d == nil {
			t.Errorf("no kind %s of %s", meta.Kind, meta.APIVersion)
			continue
		}
		obj := d.New()
		if err := yaml.UnmarshalStrict([]byte(text), obj); err != nil {
			t.Fatalf("%s: %v", meta.Kind, err)
		}
		stored, err := codec.EncodeStored(d.Hub(), obj)
		if err != nil {
			t.Fatal(err)
		}
		held[d.Hub().Stored.Prefix] = true
		got := hex.EncodeToString(stored)
		fmt.Fprintf(&golden, "%s %s\n", meta.Kind, got)
		if want[meta.Kind] != got && !*update {
			t.Errorf("%s is stored as\n%q", meta.Kind, stored)
		}
	}
	for _, d := range catalog.Stored() {
		if !held[d.Stored.Prefix] {
			t.Errorf("nothing holds how %s are stored", d.GroupResource())
		}
	}
	if *update {
		if err := os.WriteFile("testdata/unrecorded.txt", []byte(golden.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
