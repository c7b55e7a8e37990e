package bootstrap

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// definitions are the kinds that bootstrap objects have, without anything but their names.
func definitions() []*kind.Definition {
	d := func(group, version, kindName, plural string, scope kind.Scope, new func() object.Object) *kind.Definition {
		return &kind.Definition{Group: group, Version: version, Kind: kindName, Plural: plural, Scope: scope, Verbs: kind.Standard, New: new}
	}
	all := []*kind.Definition{
		d("", "v1", "Namespace", "namespaces", kind.Cluster, kind.Of[corev1.Namespace]()),
		d("", "v1", "ConfigMap", "configmaps", kind.Namespaced, kind.Of[corev1.ConfigMap]()),
		d("", "v1", "Service", "services", kind.Namespaced, kind.Of[corev1.Service]()),
		d("", "v1", "Endpoints", "endpoints", kind.Namespaced, kind.Of[corev1.Endpoints]()),
		d("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", kind.Namespaced, kind.Of[discoveryv1.EndpointSlice]()),
		d("coordination.k8s.io", "v1", "Lease", "leases", kind.Namespaced, kind.Of[coordinationv1.Lease]()),
		d("networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", kind.Cluster, kind.Of[networkingv1.ServiceCIDR]()),
		d("networking.k8s.io", "v1", "IPAddress", "ipaddresses", kind.Cluster, kind.Of[networkingv1.IPAddress]()),
		d("scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", kind.Cluster, kind.Of[schedulingv1.PriorityClass]()),
		d("flowcontrol.apiserver.k8s.io", "v1", "FlowSchema", "flowschemas", kind.Cluster, kind.Of[flowcontrolv1.FlowSchema]()),
		d("flowcontrol.apiserver.k8s.io", "v1", "PriorityLevelConfiguration", "prioritylevelconfigurations", kind.Cluster, kind.Of[flowcontrolv1.PriorityLevelConfiguration]()),
		d("rbac.authorization.k8s.io", "v1", "ClusterRole", "clusterroles", kind.Cluster, kind.Of[rbacv1.ClusterRole]()),
		d("rbac.authorization.k8s.io", "v1", "Role", "roles", kind.Namespaced, kind.Of[rbacv1.Role]()),
		d("rbac.authorization.k8s.io", "v1", "ClusterRoleBinding", "clusterrolebindings", kind.Cluster, kind.Of[rbacv1.ClusterRoleBinding]()),
		d("rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", kind.Namespaced, kind.Of[rbacv1.RoleBinding]()),
		d("apiregistration.k8s.io", "v1", "APIService", "apiservices", kind.Cluster, kind.Of[apiregistrationv1.APIService]()),
	}
	for _, v := range LocalVersions { // so that every local version is served
		all = append(all, d(v.Group, v.Version, "Any"+v.Version, "anys", kind.Cluster, kind.Of[corev1.ConfigMap]()))
	}
	return all
}

// store keeps objects in memory and counts writes.
type store struct {
	objects map[string]object.Object
	writes  []string
}

func newStore() *store { return &store{objects: map[string]object.Object{}} }

func key(r schema.GroupResource, namespace, name string) string {
	return r.String() + "/" + object.Key(namespace, name)
}

func (s *store) Get(_ context.Context, r schema.GroupResource, namespace, name string) (object.Object, error) {
	if o := s.objects[key(r, namespace, name)]; o != nil {
		return object.Copy(o), nil
	}
	return nil, apierrors.NewNotFound(r, name)
}

func (s *store) List(_ context.Context, r schema.GroupResource, _ string) ([]object.Object, error) {
	var all []object.Object
	for k, o := range s.objects {
		if len(k) > len(r.String()) && k[:len(r.String())+1] == r.String()+"/" {
			all = append(all, object.Copy(o))
		}
	}
	return all, nil
}

func (s *store) Change(ctx context.Context, r schema.GroupResource, namespace, name string, change func(object.Object) error, _ kind.ChangeOptions) (object.Object, error) {
	o, err := s.Get(ctx, r, namespace, name)
	if err != nil {
		return nil, err
	}
	if err := change(o); err != nil {
		return nil, err
	}
	k := key(r, namespace, name)
	s.writes = append(s.writes, "change "+k)
	s.objects[k] = o
	return o, nil
}

func (s *store) Create(_ context.Context, r schema.GroupResource, o object.Object) (object.Object, error) {
	k := key(r, o.GetNamespace(), o.GetName())
	if s.objects[k] != nil {
		return nil, apierrors.NewAlreadyExists(r, o.GetName())
	}
	s.writes = append(s.writes, "create "+k)
	s.objects[k] = object.Copy(o)
	return o, nil
}

func (s *store) Delete(_ context.Context, r schema.GroupResource, namespace, name string, _ metav1.DeleteOptions) error {
	k := key(r, namespace, name)
	s.writes = append(s.writes, "delete "+k)
	delete(s.objects, k)
	return nil
}

// batchStore creates many objects at once.
type batchStore struct {
	*store
	batches int
}

func (b *batchStore) CreateAll(ctx context.Context, seeds []kind.Seed) error {
	b.batches++
	for _, item := range seeds {
		if _, err := b.Create(ctx, item.Resource, item.Object); err != nil {
			return err
		}
	}
	return nil
}

var now = time.Date(2026, 11, 23, 15, 21, 55, 0, time.UTC)

// config is that of the server whose objects are in testdata.
func config() Config {
	return Config{
		Catalog:       kind.NewCatalog(definitions()...),
		ServiceRanges: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
		Port:          6445,
		Servers:       []netip.Addr{netip.MustParseAddr("192.0.2.2")},
		Identity:      Identity{Hostname: "vm", Instance: "704e19ab-99c7-45e4-95f2-adf1ed251459", Peer: "192.0.2.2:6445"},
		RBAC:          true,
		Now:           func() time.Time { return now },
	}
}

func reconcile(t testing.TB, s kind.Objects, c Config) {
	t.Helper()
	if err := Reconcile(t.Context(), s, c); err != nil {
		t.Fatal(err)
	}
}

func tree(t *testing.T, obj any) map[string]any {
	t.Helper()
	data, err := json.Marshal(obj)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

// stock reads the objects that kube-apiserver 1.37.2 stored at its first start.
func stock(t *testing.T) []map[string]any {
	t.Helper()
	f, err := os.Open("testdata/stock.jsonl.gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var all []map[string]any
	lines := bufio.NewScanner(z)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var m map[string]any
		if err := json.Unmarshal(lines.Bytes(), &m); err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
	}
	return all
}

func TestObjectsAreThoseOfKubeAPIServer(t *testing.T) {
	s := newStore()
	reconcile(t, s, config())
	ours := map[string]map[string]any{}
	for _, o := range s.objects {
		m := tree(t, o)
		ours[fmt.Sprintf("%T %s", o, object.Key(o.GetNamespace(), o.GetName()))] = m
	}
	seen := 0
	for _, want := range stock(t) {
		meta := want["metadata"].(map[string]any)
		namespace, _ := meta["namespace"].(string)
		name := meta["name"].(string)
		group := schema.FromAPIVersionAndKind(want["apiVersion"].(string), want["kind"].(string))
		var got map[string]any
		for _, d := range definitions() {
			if d.Kind == group.Kind && d.Group == group.Group {
				got = ours[fmt.Sprintf("%T %s", d.New(), object.Key(namespace, name))]
			}
		}
		if got == nil {
			t.Errorf("%s %s is missing", group.Kind, name)
			continue
		}
		seen++
		delete(want, "apiVersion")
		delete(want, "kind")
		if group.Kind == "Lease" { // renewed when it was recorded
			want["spec"].(map[string]any)["renewTime"] = got["spec"].(map[string]any)["renewTime"]
		}
		// Service and Namespace statuses are theirs to prepare; what is null there is absent here.
		clean(got)
		clean(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s %s (-stock +ours):\n%s", group.Kind, name, diff)
		}
	}
	// All but the authentication ConfigMap, which the recorded server had no reason to make.
	if want := len(s.objects) - 1; seen != want {
		t.Errorf("%d of our %d objects are known", seen, want)
	}
}

// clean removes nulls, empty maps and times of transitions.
func clean(m map[string]any) {
	for k, v := range m {
		switch v := v.(type) {
		case nil:
			delete(m, k)
		case map[string]any:
			clean(v)
			if len(v) == 0 {
				delete(m, k)
			}
		case []any:
			for _, e := range v {
				if e, ok := e.(map[string]any); ok {
					delete(e, "lastTransitionTime")
					clean(e)
				}
			}
		}
	}
}

func TestSecondStartWritesOnlyTheLease(t *testing.T) {
	s := newStore()
	reconcile(t, s, config())
	if len(s.writes) != len(s.objects) {
		t.Errorf("%d writes for %d objects", len(s.writes), len(s.objects))
	}
	s.writes = nil
	reconcile(t, s, config())
	if len(s.writes) != 1 || s.writes[0] != "change leases.coordination.k8s.io/kube-system/apiserver-wlv32tlttr4jl3gtroqexyxapa" {
		t.Errorf("writes: %v", s.writes)
	}
}

func TestFirstStartIsOneBatch(t *testing.T) {
	s := &batchStore{store: newStore()}
	reconcile(t, s, config())
	if s.batches != 1 {
		t.Errorf("%d batches", s.batches)
	}
	if s.objects["services/default/kubernetes"] == nil {
		t.Error("no service")
	}
}

func TestAbsentKindsAreLeftOut(t *testing.T) {
	c := config()
	c.Catalog = kind.NewCatalog(definitions()[:1]...)
	s := newStore()
	reconcile(t, s, c)
	if len(s.objects) != 4 {
		t.Errorf("%d objects, want 4 namespaces", len(s.objects))
	}
}

// repaired changes one stored object, reconciles, and returns the object as it is then.
func repaired[P object.Object](t *testing.T, k string, change func(P), c Config) (P, []string) {
	t.Helper()
	s := newStore()
	reconcile(t, s, config())
	change(s.objects[k].(P))
	s.writes = nil
	reconcile(t, s, c)
	writes := slices.DeleteFunc(s.writes, func(w string) bool { return w == "change leases.coordination.k8s.io/kube-system/"+c.Identity.Name() })
	got, _ := s.objects[k].(P)
	return got, writes
}

func TestPolicyIsRepairedAndAdditionsStay(t *testing.T) {
	const role = "clusterroles.rbac.authorization.k8s.io/system:basic-user"
	extra := rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}
	t.Run("missing rule", func(t *testing.T) {
		got, writes := repaired(t, role, func(r *rbacv1.ClusterRole) { r.Rules = []rbacv1.PolicyRule{extra, r.Rules[0]} }, config())
		if len(writes) != 1 || len(got.Rules) != 3 || got.Rules[2].Resources[0] != "selfsubjectreviews" || !reflect.DeepEqual(got.Rules[0], extra) {
			t.Errorf("%v %v", writes, got.Rules)
		}
	})
	t.Run("more rules", func(t *testing.T) {
		if _, writes := repaired(t, role, func(r *rbacv1.ClusterRole) { r.Rules = append(r.Rules, extra) }, config()); len(writes) != 0 {
			t.Errorf("%v", writes)
		}
	})
	t.Run("opted out", func(t *testing.T) {
		_, writes := repaired(t, role, func(r *rbacv1.ClusterRole) {
			r.Annotations[autoupdateRBAC] = "false"
			r.Rules = nil
		}, config())
		if len(writes) != 0 {
			t.Errorf("%v", writes)
		}
	})
	t.Run("aggregated rules stay", func(t *testing.T) {
		_, writes := repaired(t, "clusterroles.rbac.authorization.k8s.io/view", func(r *rbacv1.ClusterRole) { r.Rules = []rbacv1.PolicyRule{extra} }, config())
		if len(writes) != 0 {
			t.Errorf("%v", writes)
		}
	})
	t.Run("missing subject", func(t *testing.T) {
		other := rbacv1.Subject{Kind: "User", APIGroup: rbacv1.GroupName, Name: "jane"}
		got, writes := repaired(t, "clusterrolebindings.rbac.authorization.k8s.io/system:discovery",
			func(b *rbacv1.ClusterRoleBinding) { b.Subjects = []rbacv1.Subject{other} }, config())
		if len(writes) != 1 || len(got.Subjects) != 2 || got.Subjects[0] != other {
			t.Errorf("%v %v", writes, got.Subjects)
		}
	})
	t.Run("other role", func(t *testing.T) {
		got, writes := repaired(t, "clusterrolebindings.rbac.authorization.k8s.io/system:discovery",
			func(b *rbacv1.ClusterRoleBinding) { b.RoleRef.Name = "x" }, config())
		if len(writes) != 2 || got.RoleRef.Name != "system:discovery" {
			t.Errorf("%v %v", writes, got)
		}
	})
}

func TestFlowControlIsRepaired(t *testing.T) {
	const schema = "flowschemas.flowcontrol.apiserver.k8s.io/"
	change := func(s *flowcontrolv1.FlowSchema) { s.Spec.MatchingPrecedence = 7 }
	takenOver := func(s *flowcontrolv1.FlowSchema) {
		change(s)
		s.Annotations[autoupdateSpec] = "false"
	}
	if got, _ := repaired(t, schema+"service-accounts", change, config()); got.Spec.MatchingPrecedence != 9000 {
		t.Errorf("%v", got.Spec)
	}
	if got, writes := repaired(t, schema+"service-accounts", takenOver, config()); got.Spec.MatchingPrecedence != 7 {
		t.Errorf("%v", writes)
	}
	if got, _ := repaired(t, schema+"catch-all", takenOver, config()); got.Spec.MatchingPrecedence != 10000 {
		t.Errorf("%v", got.Spec)
	}
	s := newStore()
	old := &flowcontrolv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: "from-an-old-server", Annotations: map[string]string{autoupdateSpec: "true"}}}
	mine := &flowcontrolv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: "mine"}}
	s.objects[schema+old.Name], s.objects[schema+mine.Name] = old, mine
	reconcile(t, s, config())
	if s.objects[schema+old.Name] != nil || s.objects[schema+mine.Name] == nil {
		t.Error("stale objects were not told from others")
	}
}

func TestAddressesFollowTheServer(t *testing.T) {
	c := config()
	c.Servers = []netip.Addr{netip.MustParseAddr("192.0.2.3")}
	c.Port = 7000
	endpoints, _ := repaired(t, "endpoints/default/kubernetes", func(*corev1.Endpoints) {}, c)
	if s := endpoints.Subsets[0]; s.Addresses[0].IP != "192.0.2.3" || s.Ports[0].Port != 7000 {
		t.Errorf("%v", endpoints.Subsets)
	}
	service, _ := repaired(t, "services/default/kubernetes", func(*corev1.Service) {}, c)
	if service.Spec.Ports[0].TargetPort.IntValue() != 7000 {
		t.Errorf("%v", service.Spec.Ports)
	}
}

func TestAuthenticationIsJoined(t *testing.T) {
	const one = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	const two = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n"
	c := config()
	c.Authentication = Authentication{ClientCA: one, RequestHeaderCA: one, AllowedNames: []string{"front-proxy-client"}, UsernameHeaders: []string{"X-Remote-User"}}
	s := newStore()
	reconcile(t, s, c)
	const k = "configmaps/kube-system/extension-apiserver-authentication"
	first := s.objects[k].(*corev1.ConfigMap).Data
	if want := map[string]string{"client-ca-file": one, "requestheader-client-ca-file": one, "requestheader-allowed-names": `["front-proxy-client"]`,
		"requestheader-username-headers": `["X-Remote-User"]`, "requestheader-uid-headers": `[]`, "requestheader-group-headers": `[]`,
		"requestheader-extra-headers-prefix": `[]`}; !reflect.DeepEqual(first, want) {
		t.Errorf("%v", cmp.Diff(want, first))
	}
	c.Authentication.ClientCA = two
	c.Authentication.AllowedNames = []string{"other"}
	reconcile(t, s, c)
	got := s.objects[k].(*corev1.ConfigMap).Data
	if got["client-ca-file"] != one+two || got["requestheader-allowed-names"] != `["front-proxy-client","other"]` {
		t.Errorf("%v", got)
	}
	s.writes = nil
	reconcile(t, s, c)
	if len(s.writes) != 1 {
		t.Errorf("%v", s.writes)
	}
}

func TestPolicyErrorsNameTheLine(t *testing.T) {
	for _, text := range []string{"Rolls x\n", "  core pods : get\n", "Role a/b\n  core pods get\n", "RoleBinding a/b\n  grope x\n"} {
		if _, err := parsePolicy(text); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func BenchmarkPolicy(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Policy()
	}
}

func BenchmarkReconcileUnchanged(b *testing.B) {
	s := newStore()
	reconcile(b, s, config())
	c := config()
	for b.Loop() {
		s.writes = nil
		reconcile(b, s, c)
	}
}
