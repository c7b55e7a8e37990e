package authn

import (
	"testing"
	"time"

	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var _ authz.Feed = (*Index)(nil)

func TestIndex(t *testing.T) {
	objects := newCluster()
	i := NewIndex(FromReader(objects))
	check := func(what, want string) {
		t.Helper()
		uid, deleted, err := i.Bound(t.Context(), pods, "ns", "pod")
		switch {
		case want == "" && !apierrors.IsNotFound(err), want != "" && uid != want, err == nil && want == "going" && deleted.IsZero():
			t.Errorf("%s: %q %v %v", what, uid, deleted, err)
		}
	}
	check("not heard of, but there", "pod-uid")
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "pod", UID: "new"}}
	i.Upsert(pod)
	check("heard of", "new")
	i.Upsert(&corev1.Secret{ObjectMeta: meta("ns", "pod")})
	check("another kind does not matter", "new")
	going := pod.DeepCopy()
	going.UID, going.DeletionTimestamp = "going", &metav1.Time{Time: time.Now()}
	i.Upsert(going)
	check("being deleted", "going")
	delete(objects.objects, "pods/ns/pod")
	i.Remove(pod)
	check("gone", "")
	i.Reset([]object.Object{pod})
	check("reset", "new")
	i.Reset(nil)
	check("reset to nothing", "")
}
