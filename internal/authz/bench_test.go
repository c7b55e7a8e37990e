package authz_test

import (
	"fmt"
	"testing"

	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/bootstrap"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
)

// chain is the usual chain with the bootstrap policy, a few hundred namespaces with bindings of their own and pods on a node.
func chain() authz.Chain {
	rbac := authz.NewRBAC()
	objects := bootstrap.Policy()
	for i := range 300 {
		ns := fmt.Sprintf("team-%d", i)
		objects = append(objects, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "edit"},
			RoleRef:  rbacv1.RoleRef{Kind: "ClusterRole", Name: "system:aggregate-to-edit"},
			Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: ns, Name: "robot"}, {Kind: "Group", Name: "team"}}})
	}
	rbac.Reset(objects)
	node := authz.NewNode()
	var pods []object.Object
	for i := range 100 {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: fmt.Sprint(i)}}
		p.Spec.NodeName = "node-1"
		p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
		pods = append(pods, p)
	}
	node.Reset(pods)
	return authz.Chain{authz.Masters{}, node, rbac}
}

func node(name string) *user.Info {
	return &user.Info{Name: "system:node:" + name, Groups: []string{"system:nodes", "system:authenticated"}}
}

func BenchmarkAuthorize(b *testing.B) {
	c := chain()
	selector := fields.OneTermEqualSelector("spec.nodeName", "node-1").Requirements()
	robot := user.ServiceAccountInfo("team-7", "robot", "1")
	controller := user.ServiceAccountInfo("kube-system", "deployment-controller", "2")
	for _, bench := range []struct {
		name string
		a    authz.Attributes
		want authz.Decision
	}{
		{"node gets a secret", authz.Attributes{User: node("node-1"), Verb: "get", Resource: "secrets", Namespace: "ns", Name: "pull"}, authz.Allow},
		{"node lists pods", authz.Attributes{User: node("node-1"), Verb: "list", Resource: "pods", Fields: selector}, authz.Allow},
		{"node renews its lease", authz.Attributes{User: node("node-1"), Verb: "update", Group: "coordination.k8s.io", Resource: "leases", Namespace: "kube-node-lease", Name: "node-1"}, authz.Allow},
		{"service account in a namespace", authz.Attributes{User: robot, Verb: "update", Group: "apps", Resource: "deployments", Namespace: "team-7", Name: "x"}, authz.Allow},
		{"controller in the cluster", authz.Attributes{User: controller, Verb: "watch", Group: "apps", Resource: "replicasets"}, authz.Allow},
		{"discovery", authz.Attributes{User: robot, Verb: "get", Path: "/apis/apps/v1"}, authz.Allow},
		{"refused", authz.Attributes{User: robot, Verb: "get", Resource: "nodes", Name: "n"}, authz.NoOpinion},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d, _, _ := c.Authorize(b.Context(), &bench.a); d != bench.want {
					b.Fatal(d)
				}
			}
		})
	}
}

// TestAllowDoesNotAllocate keeps the promise that a decision is look-ups only.
func TestAllowDoesNotAllocate(t *testing.T) {
	c := chain()
	a := authz.Attributes{User: user.ServiceAccountInfo("team-7", "robot", "1"), Verb: "create", Resource: "pods", Subresource: "eviction", Namespace: "team-7", Name: "x"}
	n := authz.Attributes{User: node("node-1"), Verb: "get", Resource: "secrets", Namespace: "ns", Name: "pull"}
	ctx := t.Context()
	for _, a := range []*authz.Attributes{&a, &n} {
		allow := func() {
			if d, _, _ := c.Authorize(ctx, a); d != authz.Allow {
				t.Fatal(d)
			}
		}
		allow() // the reason is made once
		if n := testing.AllocsPerRun(100, allow); n != 0 {
			t.Errorf("%s: %v allocations", a.Resource, n)
		}
	}
}

func BenchmarkUpsertBinding(b *testing.B) {
	rbac := authz.NewRBAC()
	rbac.Reset(bootstrap.Policy())
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: "edit"},
		RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "edit"}, Subjects: []rbacv1.Subject{{Kind: "User", Name: "jane"}}}
	for b.Loop() {
		rbac.Upsert(binding)
	}
}

func BenchmarkReset(b *testing.B) {
	rbac := authz.NewRBAC()
	policy := bootstrap.Policy()
	for b.Loop() {
		rbac.Reset(policy)
	}
}
