//go:build stories

// Package kinds tells the same story of every kind that is stored, in every version that can be served: kubectl
// creates an object, lists it, describes it, explains its fields and deletes it. The objects are those of the golden archives of
// internal/api. It needs no containers: a control plane runs in the test's process.
package kinds

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/timonel/timonel"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/yaml"
)

var kubectlPath = flag.String("kubectl", "../../../bin/kubectl", "the kubectl to use")

// namespace is where the objects of the archives live.
const namespace = "d"

// manifest is an object to create.
type manifest struct {
	from string
	text []byte
}

// manifests reads the golden archives: for each kind and version the first case that is a valid new object.
func manifests(t *testing.T) map[schema.GroupVersionKind]manifest {
	t.Helper()
	files, err := filepath.Glob("../../../internal/api/*/testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden archives (%v)", err)
	}
	found := map[schema.GroupVersionKind]manifest{}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		parts := map[string][]byte{}
		for _, f := range a.Files {
			parts[f.Name] = f.Data
		}
		for _, f := range a.Files {
			name, isCase := strings.CutSuffix(f.Name, ".yaml")
			outcome := parts[name+".out"]
			if !isCase || parts[name+".old.yaml"] != nil || !bytes.Contains(outcome, []byte("row: ")) {
				continue
			}
			var meta metav1.TypeMeta
			if err := yaml.Unmarshal(f.Data, &meta); err != nil {
				t.Fatal(err)
			}
			if gvk := meta.GroupVersionKind(); found[gvk].text == nil {
				found[gvk] = manifest{file + " " + name, f.Data}
			}
		}
	}
	return found
}

// own are manifests of kinds whose golden cases need something that is not there, or are there already.
var own = map[string]string{
	"Namespace":             "{apiVersion: v1, kind: Namespace, metadata: {name: another}}",
	"PersistentVolume":      "{apiVersion: v1, kind: PersistentVolume, metadata: {name: pv}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /tmp}}}",
	"ServiceCIDR":           "{apiVersion: networking.k8s.io/v1, kind: ServiceCIDR, metadata: {name: more}, spec: {cidrs: [10.200.0.0/24]}}",
	"ReplicationController": "{apiVersion: v1, kind: ReplicationController, metadata: {name: r}, spec: {replicas: 0, selector: {a: b}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}",
	"ControllerRevision":    "{apiVersion: apps/v1, kind: ControllerRevision, metadata: {name: r}, revision: 2, data: {a: 1}}", // that of the archive has an owner
	"NetworkPolicy":         "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: closed}, spec: {podSelector: {}, policyTypes: [Ingress]}}",
	"LeaseCandidate":        "{apiVersion: coordination.k8s.io/v1beta1, kind: LeaseCandidate, metadata: {name: c}, spec: {leaseName: l, binaryVersion: 1.37.2, emulationVersion: 1.37.0, strategy: OldestEmulationVersion}}", // that of the archive is old, and removed
	"Role":                  "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: reader}, rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]}",
	"ClusterRoleBinding":    "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: b}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}, subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: jane}]}",
}

// kept are objects that the server makes, of kinds of which it lets no others be.
var kept = map[string]string{"StorageVersion": "apps.deployments"}

func TestEveryKind(t *testing.T) {
	if _, err := os.Stat(*kubectlPath); err != nil {
		t.Fatalf("build it with make bin/kubectl: %v", err)
	}
	cluster, err := timonel.Start(context.WithoutCancel(t.Context()), timonel.Config{ // it ends with the last subtest
		Controllers: true, RuntimeConfig: map[string]string{"api/all": "true"}, FeatureGates: "AllAlpha=true,AllBeta=true", AllowPrivileged: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	k := &kubectl{cluster.Kubeconfig()}
	k.must(t, nil, "create", "namespace", namespace)
	k.eventually(t, "get", "serviceaccount", "default")

	client, err := discovery.NewDiscoveryClientForConfig(cluster.RESTConfig())
	if err != nil {
		t.Fatal(err)
	}
	_, lists, err := client.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	objects := manifests(t)
	byPlural := map[string][]func(t *testing.T){}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list.APIResources {
			if strings.Contains(r.Name, "/") || !slices.Contains(r.Verbs, "create") || !slices.Contains(r.Verbs, "list") {
				continue
			}
			m := objects[gv.WithKind(r.Kind)]
			if text := own[r.Kind]; text != "" {
				m = manifest{"kinds_test.go", []byte(text)}
			}
			name := r.Name
			if gv.Group != "" {
				name += "." + gv.Version + "." + gv.Group
			}
			byPlural[r.Name] = append(byPlural[r.Name], func(t *testing.T) { k.tell(t, name, list.GroupVersion, m, kept[r.Kind]) })
		}
	}
	if len(byPlural) < 70 {
		t.Errorf("only %d resources are served", len(byPlural))
	}
	for plural, versions := range byPlural {
		t.Run(plural, func(t *testing.T) {
			if plural != "namespaces" { // it goes when everything in it can be seen, which others get in the way of
				t.Parallel()
			}
			for _, tell := range versions { // one after the other: they share a store
				tell(t)
			}
		})
	}
}

type kubectl struct{ kubeconfig string }

func (k *kubectl) run(stdin []byte, args ...string) (string, error) {
	cmd := exec.Command(*kubectlPath, append([]string{"--kubeconfig", k.kubeconfig, "-n", namespace}, args...)...)
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

func (k *kubectl) must(t *testing.T, stdin []byte, args ...string) string {
	t.Helper()
	out, err := k.run(stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (k *kubectl) eventually(t *testing.T, args ...string) {
	t.Helper()
	for range 100 {
		if _, err := k.run(nil, args...); err == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	k.must(t, nil, args...)
}

var created = regexp.MustCompile(`(\S+)/(\S+) created`)

// tell is the story of a resource in a version: with an object made from the manifest, or that of the name, if there is one.
func (k *kubectl) tell(t *testing.T, resource, groupVersion string, m manifest, name string) {
	made := name == ""
	if made {
		if m.text == nil {
			t.Errorf("%s: no golden archive of internal/api has a valid object", resource)
			return
		}
		out := k.must(t, m.text, "create", "-f", "-")
		names := created.FindStringSubmatch(out)
		if names == nil {
			t.Fatalf("%s: create (%s) says %q", resource, m.from, out)
		}
		name = names[2]
	}
	if out := k.must(t, nil, "get", resource, "-o", "wide"); !strings.Contains(out, name) {
		t.Errorf("%s: get -o wide does not show %s:\n%s", resource, name, out)
	}
	if out := k.must(t, nil, "describe", resource, name); !strings.Contains(out, name) {
		t.Errorf("%s: describe does not speak of %s:\n%s", resource, name, out)
	}
	plural, _, _ := strings.Cut(resource, ".")
	explained := k.must(t, nil, "explain", plural, "--api-version="+groupVersion, "--recursive")
	if !strings.Contains(explained, "metadata") || !strings.Contains(explained, "FIELDS:") {
		t.Errorf("%s: explain says:\n%s", resource, explained)
	}
	if !made {
		return
	}
	k.must(t, nil, "delete", resource, name, "--wait=false")
	for range 100 { // what has a finalizer goes when its controller has looked at it
		if _, err := k.run(nil, "get", resource, name); err != nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("%s: %s is still there", resource, name)
}
