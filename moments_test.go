package timonel_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/timonel/timonel"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

var (
	starts   = flag.Int("starts", 3, "clusters that TestFirstMoments starts")
	visitors = flag.Int("visitors", 6, "who comes to each of them at once")
	seed     = flag.Uint64("seed", 0, "seed of their choices; 0: a random one")
)

// settleWait is how long a cluster may take to come to rest, on a crowded machine.
const settleWait = 30 * time.Second

// TestFirstMoments is the first moments of clusters, when everything is new and comes at once: visitors make things, use them the moment they
// are answered, and delete them while others are still at work in them. No answer may contradict what was answered before; when
// all have gone, the cluster comes to rest, and nothing of theirs is left.
//
// go test -run TestFirstMoments . -args -starts 100 looks for rare ones.
func TestFirstMoments(t *testing.T) {
	if *seed == 0 {
		*seed = rand.Uint64N(1 << 32)
	}
	t.Logf("choices follow from -seed %d, as far as timing allows", *seed)
	n := *starts
	if testing.Short() {
		n = 1
	}
	dir := ""
	for i := range n {
		if i%2 == 0 { // every other one goes on with what the one before left
			dir = t.TempDir()
		}
		var errs errorLog
		cluster, client := start(t, t.Context(), timonel.Config{DataDir: dir, Controllers: true, Scheduler: true, Log: slog.New(&errs)})
		var all sync.WaitGroup
		for id := range *visitors {
			all.Go(func() {
				v := &visitor{T: t, Interface: client, config: cluster.RESTConfig(), dice: rand.New(rand.NewPCG(*seed, uint64(i**visitors+id))), name: fmt.Sprintf("v%d-%d", i, id)}
				v.visit()
			})
		}
		all.Wait()
		settled(t, client, cluster.RESTConfig())
		stop(t, cluster, client)
		if text := errs.String(); text != "" {
			t.Errorf("the log has errors:\n%s", text)
		}
		if t.Failed() {
			return
		}
	}
}

// visitor is somebody who tries everything in a namespace of their own.
type visitor struct {
	*testing.T
	kubernetes.Interface
	config *rest.Config
	dice   *rand.Rand
	name   string // of the namespace
	round  int
}

func (v *visitor) visit() {
	ctx := v.Context()
	for v.round = range 2 { // the namespace is made again the moment it is gone
		_, err := v.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v.name}}, metav1.CreateOptions{})
		v.must("make the namespace", err)
		all := []func(context.Context){v.identity, v.rights, v.quota, v.custom, v.orphans, v.deployment}
		for _, i := range v.dice.Perm(len(all))[:3] {
			all[i](ctx)
		}
		var late sync.WaitGroup
		late.Go(func() { v.intrude(ctx) })
		time.Sleep(time.Duration(v.dice.IntN(20)) * time.Millisecond)
		v.must("delete the namespace", v.CoreV1().Namespaces().Delete(ctx, v.name, metav1.DeleteOptions{}))
		late.Wait()
		v.eventually("the namespace goes", func() bool {
			_, err := v.CoreV1().Namespaces().Get(ctx, v.name, metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
	}
}

func (v *visitor) must(what string, err error) {
	v.Helper()
	if err != nil {
		v.Errorf("%s: %s: %v", v.name, what, err)
	}
}

func (v *visitor) eventually(what string, done func() bool) {
	v.Helper()
	for began := time.Now(); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > settleWait {
			v.Errorf("%s: %s: not within %s", v.name, what, settleWait)
			return
		}
	}
}

// as is a client with a token of the service account "me".
func (v *visitor) as(ctx context.Context) kubernetes.Interface {
	v.Helper()
	answer, err := v.CoreV1().ServiceAccounts(v.name).CreateToken(ctx, "me", &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	v.must("get a token", err)
	config := rest.AnonymousClientConfig(v.config)
	config.BearerToken, config.QPS = answer.Status.Token, -1
	client, err := kubernetes.NewForConfig(config)
	v.must("make a client", err)
	return client
}

func (v *visitor) account(ctx context.Context) {
	v.Helper()
	_, err := v.CoreV1().ServiceAccounts(v.name).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "me"}}, metav1.CreateOptions{})
	v.must("make the account", err)
}

func (v *visitor) noAccount(ctx context.Context) {
	v.Helper()
	v.must("delete the account", v.CoreV1().ServiceAccounts(v.name).Delete(ctx, "me", metav1.DeleteOptions{}))
}

// A token works as soon as it is there, and no longer than its account.
func (v *visitor) identity(ctx context.Context) {
	for range 2 {
		v.account(ctx)
		me := v.as(ctx)
		_, err := me.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		v.must("ask who I am", err)
		v.noAccount(ctx)
		_, err = me.AuthenticationV1().SelfSubjectReviews().Create(ctx, &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if !apierrors.IsUnauthorized(err) {
			v.Errorf("%s: ask who I am without an account: %v", v.name, err)
		}
	}
}

// What was granted works, what was taken back does not.
func (v *visitor) rights(ctx context.Context) {
	v.account(ctx)
	defer v.noAccount(ctx)
	me := v.as(ctx)
	_, err := v.RbacV1().Roles(v.name).Create(ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "reader"}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list"}},
	}}, metav1.CreateOptions{})
	v.must("make a role", err)
	_, err = v.RbacV1().RoleBindings(v.name).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "me"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "reader"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Name: "me", Namespace: v.name}},
	}, metav1.CreateOptions{})
	v.must("bind it", err)
	_, err = me.CoreV1().ConfigMaps(v.name).List(ctx, metav1.ListOptions{})
	v.must("use it", err)
	v.must("unbind it", v.RbacV1().RoleBindings(v.name).Delete(ctx, "me", metav1.DeleteOptions{}))
	if _, err = me.CoreV1().ConfigMaps(v.name).List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		v.Errorf("%s: use what was taken back: %v", v.name, err)
	}
}

// A quota holds from the moment it is there.
func (v *visitor) quota(ctx context.Context) {
	const most = 2
	_, err := v.CoreV1().ResourceQuotas(v.name).Create(ctx, &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "few"}, Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/leases.coordination.k8s.io": *resource.NewQuantity(most, resource.DecimalSI)}},
	}, metav1.CreateOptions{})
	v.must("make a quota", err)
	var all sync.WaitGroup
	for i := range 2 * most {
		all.Go(func() {
			body := fmt.Sprintf(`{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"l%d"}}`, i)
			err := v.CoordinationV1().RESTClient().Post().AbsPath("/apis/coordination.k8s.io/v1/namespaces", v.name, "leases").Body([]byte(body)).Do(ctx).Error()
			if err != nil && !apierrors.IsForbidden(err) {
				v.must("make a lease", err)
			}
		})
	}
	all.Wait()
	leases, err := v.CoordinationV1().Leases(v.name).List(ctx, metav1.ListOptions{})
	v.must("list leases", err)
	if len(leases.Items) > most {
		v.Errorf("%s: %d leases, though the quota is %d", v.name, len(leases.Items), most)
	}
}

var definitions = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// What is defined is served, and goes whole.
func (v *visitor) custom(ctx context.Context) {
	client, err := dynamic.NewForConfig(v.config)
	v.must("make a client", err)
	group := fmt.Sprintf("%s-%d.example.com", v.name, v.round)
	crd := &unstructured.Unstructured{}
	v.must("write a definition", crd.UnmarshalJSON(fmt.Appendf(nil, `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"things.%[1]s"},"spec":{
		"group":"%[1]s","scope":"Namespaced","names":{"plural":"things","kind":"Thing"},
		"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object"}}}]}}`, group)))
	_, err = client.Resource(definitions).Create(ctx, crd, metav1.CreateOptions{})
	v.must("define", err)
	v.eventually("it is established", func() bool {
		now, err := client.Resource(definitions).Get(ctx, crd.GetName(), metav1.GetOptions{})
		v.must("read the definition", err)
		return err != nil || established(now)
	})
	things := client.Resource(schema.GroupVersionResource{Group: group, Version: "v1", Resource: "things"}).Namespace(v.name)
	thing := &unstructured.Unstructured{Object: map[string]any{"apiVersion": group + "/v1", "kind": "Thing", "metadata": map[string]any{"name": "one"}}}
	_, err = things.Create(ctx, thing, metav1.CreateOptions{})
	v.must("make a thing", err)
	_, err = things.Get(ctx, "one", metav1.GetOptions{})
	v.must("read it", err)
	_, err = v.Discovery().ServerResourcesForGroupVersion(group + "/v1")
	v.must("discover it", err)
	if v.dice.IntN(2) == 0 { // else it outlives the namespace
		v.must("delete the definition", client.Resource(definitions).Delete(ctx, crd.GetName(), metav1.DeleteOptions{}))
		v.eventually("the definition goes", func() bool {
			_, err := client.Resource(definitions).Get(ctx, crd.GetName(), metav1.GetOptions{})
			return apierrors.IsNotFound(err)
		})
	}
}

func established(crd *unstructured.Unstructured) bool {
	conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["type"] == "Established" && c["status"] == "True" {
			return true
		}
	}
	return false
}

// Those whose owner goes without them stay, though it goes the moment they are there.
func (v *visitor) orphans(ctx context.Context) {
	owner, err := v.CoreV1().ConfigMaps(v.name).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owner"}}, metav1.CreateOptions{})
	v.must("make an owner", err)
	refs := []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: "owner", UID: owner.UID}}
	for i := range 3 {
		_, err := v.CoreV1().Secrets(v.name).Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("owned", i), OwnerReferences: refs}}, metav1.CreateOptions{})
		v.must("make what it owns", err)
	}
	policy := metav1.DeletePropagationOrphan
	v.must("delete the owner", v.CoreV1().ConfigMaps(v.name).Delete(ctx, "owner", metav1.DeleteOptions{PropagationPolicy: &policy}))
	v.eventually("the orphans are free", func() bool {
		all, err := v.CoreV1().Secrets(v.name).List(ctx, metav1.ListOptions{})
		v.must("list the orphans", err)
		owned := 0
		for i := range all.Items {
			owned += len(all.Items[i].OwnerReferences)
		}
		if len(all.Items) != 3 {
			v.Errorf("%s: %d orphans are left of 3", v.name, len(all.Items))
			return true
		}
		return owned == 0
	})
}

// A deployment gets its pods, in a namespace without a service account yet.
func (v *visitor) deployment(ctx context.Context) {
	replicas, labels := int32(2), map[string]string{"app": "web"}
	_, err := v.AppsV1().Deployments(v.name).Create(ctx, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: appsv1.DeploymentSpec{
		Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "web"}}}},
	}}, metav1.CreateOptions{})
	v.must("deploy", err)
	if v.dice.IntN(2) == 0 { // else the namespace goes while they come
		v.eventually("there are pods", func() bool {
			pods, err := v.CoreV1().Pods(v.name).List(ctx, metav1.ListOptions{})
			v.must("list pods", err)
			return len(pods.Items) == int(replicas)
		})
	}
}

// intrude makes things in the namespace until it is refused.
func (v *visitor) intrude(ctx context.Context) {
	for began := time.Now(); time.Since(began) < settleWait; {
		_, err := v.CoreV1().ConfigMaps(v.name).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "late-"}}, metav1.CreateOptions{})
		switch {
		case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause), apierrors.IsNotFound(err):
			return
		case err != nil:
			v.must("make something while the namespace ends", err)
			return
		}
	}
	v.Errorf("%s: it never ends", v.name)
}

// settled checks that nothing is left in namespaces that are gone.
func settled(t *testing.T, client kubernetes.Interface, config *rest.Config) {
	t.Helper()
	there := map[string]bool{}
	all, err := client.CoreV1().Namespaces().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range all.Items {
		there[all.Items[i].Name] = true
	}
	config = rest.CopyConfig(config)
	config.WarningHandler = rest.NoWarnings{}
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	lists, err := client.Discovery().ServerPreferredNamespacedResources()
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list", "create"}}, lists) {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for i := range list.APIResources {
			found, err := objects.Resource(gv.WithResource(list.APIResources[i].Name)).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Errorf("list %s: %v", list.APIResources[i].Name, err)
				continue
			}
			for _, obj := range found.Items {
				if !there[obj.GetNamespace()] {
					t.Errorf("%s %s/%s is left, in a namespace that is gone", obj.GetKind(), obj.GetNamespace(), obj.GetName())
				}
			}
		}
	}
}

// errorLog keeps what is logged as an error.
type errorLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *errorLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelError }
func (l *errorLog) WithAttrs([]slog.Attr) slog.Handler               { return l }
func (l *errorLog) WithGroup(string) slog.Handler                    { return l }
func (l *errorLog) Handle(ctx context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slog.NewTextHandler(&l.text, nil).Handle(ctx, r)
}

func (l *errorLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.TrimSpace(l.text.String())
}
