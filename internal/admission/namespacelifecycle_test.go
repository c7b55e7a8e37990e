package admission

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func namespaceObject(name string, phase corev1.NamespacePhase, labels ...string) *corev1.Namespace {
	n := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NamespaceStatus{Phase: phase}}
	for i := 0; i+1 < len(labels); i += 2 {
		metav1.SetMetaDataLabel(&n.ObjectMeta, labels[i], labels[i+1])
	}
	return n
}

func secret(namespace, name string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
}

func TestNamespaceLifecycle(t *testing.T) {
	s := newStore(map[schema.GroupResource][]object.Object{namespaces: {
		namespaceObject("live", corev1.NamespaceActive), namespaceObject("going", corev1.NamespaceTerminating),
	}})
	p := (&cluster{Reader: s}).namespaceLifecycle()
	for _, test := range []struct {
		name string
		r    *Request
		want string
	}{
		{"live", on(Create, "secrets", secret("live", "x"), nil), ""},
		{"terminating", on(Create, "secrets", secret("going", "x"), nil), `secrets "x" is forbidden: unable to create new content in namespace going because it is being terminated`},
		{"update in terminating", on(Update, "secrets", secret("going", "x"), secret("going", "x")), ""},
		{"eviction in terminating", on(Create, "pods/eviction", secret("going", "x"), nil), `pods "x" is forbidden: unable to create new content in namespace going because it is being terminated`},
		{"missing", on(Create, "secrets", secret("none", "x"), nil), `namespaces "none" not found`},
		{"delete in missing", on(Delete, "secrets", nil, secret("none", "x")), ""},
		{"review", on(Create, "authorization.k8s.io:localsubjectaccessreviews", secret("going", "x"), nil), ""},
		{"cluster-scoped", on(Create, "nodes", secret("", "x"), nil), ""},
		{"default", on(Delete, "namespaces", nil, namespaceObject("default", "")), `namespaces "default" is forbidden: this namespace may not be deleted`},
		{"kube-public", on(Delete, "namespaces", nil, namespaceObject("kube-public", "")), `namespaces "kube-public" is forbidden: this namespace may not be deleted`},
		{"other", on(Delete, "namespaces", nil, namespaceObject("other", "")), ""},
		{"new namespace", on(Create, "namespaces", namespaceObject("other", ""), nil), ""},
	} {
		synctest.Test(t, func(t *testing.T) { same(t, test.name, admit(t, p, test.r), test.want) })
	}
	err := p.Change(t.Context(), on(Create, "secrets", secret("going", "x"), nil))
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		t.Fatal(err)
	}
	same(t, "causes", status.Status().Details.Causes, []metav1.StatusCause{{Type: "NamespaceTerminating", Message: "namespace going is being terminated", Field: "metadata.namespace"}})
}

// A namespace that was made again is not refused for what it was before.
func TestNamespaceMadeAgain(t *testing.T) {
	s := newStore(map[schema.GroupResource][]object.Object{namespaces: {namespaceObject("red", corev1.NamespaceTerminating)}})
	c := &cluster{Reader: s, BuiltinOptions: BuiltinOptions{Fresh: func(context.Context) error {
		s.objects[key(namespaces, "", "red")] = namespaceObject("red", corev1.NamespaceActive)
		return nil
	}}}
	same(t, "create", admit(t, c.namespaceLifecycle(), on(Create, "secrets", secret("red", "x"), nil)), "")
}

// What is admitted into a namespace rests on it: its end may begin before the object is stored.
func TestNamespaceIsPremise(t *testing.T) {
	red := namespaceObject("red", corev1.NamespaceActive)
	red.ResourceVersion = "7"
	p := (&cluster{Reader: newStore(map[schema.GroupResource][]object.Object{namespaces: {red}})}).namespaceLifecycle()
	r := on(Create, "secrets", secret("red", "x"), nil)
	same(t, "create", admit(t, p, r), "")
	if len(r.Premises) != 1 {
		t.Fatalf("%d premises, want 1", len(r.Premises))
	}
	premise := r.Premises[0]
	same(t, "name", premise.Resource.Resource+"/"+premise.Name+" "+premise.Version, "namespaces/red 7")
	same(t, "labelled", premise.Judge(namespaceObject("red", corev1.NamespaceActive, "a", "b")), nil)
	same(t, "ending", premise.Judge(namespaceObject("red", corev1.NamespaceTerminating)).Error(), `secrets "x" is forbidden: unable to create new content in namespace red because it is being terminated`)
	update := on(Update, "secrets", secret("red", "x"), secret("red", "x"))
	same(t, "update", admit(t, p, update), "")
	same(t, "premises of an update", len(update.Premises), 0)
}

func TestNamespaceExistsAndAutoProvision(t *testing.T) {
	s := newStore(nil)
	c := &cluster{Reader: s, BuiltinOptions: BuiltinOptions{Objects: s}}
	synctest.Test(t, func(t *testing.T) {
		same(t, "missing", admit(t, c.namespaceExists(), on(Create, "secrets", secret("red", "x"), nil)), `namespaces "red" not found`)
	})
	dry := on(Create, "secrets", secret("red", "x"), nil)
	dry.DryRun = true
	same(t, "dry run", admit(t, c.namespaceAutoProvision(), dry), "")
	same(t, "objects", len(s.objects), 0)
	same(t, "provision", admit(t, c.namespaceAutoProvision(), on(Create, "secrets", secret("red", "x"), nil)), "")
	same(t, "exists", admit(t, c.namespaceExists(), on(Create, "secrets", secret("red", "x"), nil)), "")
}
