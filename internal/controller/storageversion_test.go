package controller

import (
	"strings"
	"testing"
	"time"

	internalv1alpha1 "k8s.io/api/apiserverinternal/v1alpha1"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// What a server said goes when its Lease does, or runs out; what nobody says anything of goes too.
func TestStorageVersions(t *testing.T) {
	lease := func(name string) *coordinationv1.Lease {
		return &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: name, Labels: map[string]string{serverLease: "kube-apiserver"}},
			Spec:       coordinationv1.LeaseSpec{RenewTime: ptr(metav1.NewMicroTime(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))), LeaseDurationSeconds: ptr(int32(3600))}, // when a bubble's time begins
		}
	}
	version := func(name string, servers ...string) *internalv1alpha1.StorageVersion {
		v := &internalv1alpha1.StorageVersion{ObjectMeta: metav1.ObjectMeta{Name: name}}
		for _, s := range servers {
			id, encoding, _ := strings.Cut(s, "=")
			v.Status.StorageVersions = append(v.Status.StorageVersions, internalv1alpha1.ServerStorageVersion{APIServerID: id, EncodingVersion: encoding, DecodableVersions: []string{encoding}})
		}
		return v
	}
	unlabelled := lease("aggregated") // is not followed, but there
	unlabelled.Labels = nil
	unlabelled.Spec.LeaseDurationSeconds = ptr(int32(1 << 30))
	objects := []runtime.Object{
		lease("old"), lease("new"), lease("short"), unlabelled,
		version("apps.deployments", "old=apps/v1", "new=apps/v2", "dead=apps/v1"),
		version("core.pods", "old=v1", "new=v1"),
		version("example.com.widgets", "aggregated=example.com/v1", "old=example.com/v2"),
		version("gone.example.com.things", "dead=gone.example.com/v1"),
	}
	for name, add := range map[string]func(*Controllers){
		"with news of all":       (*Controllers).addStorageVersions,
		"without news of leases": func(c *Controllers) { deaf(c, "leases"); c.addStorageVersions() },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, add, func(c *cluster) {
				api, leases := c.client.InternalV1alpha1().StorageVersions(), c.client.CoordinationV1().Leases("kube-system")
				expect := func(name, servers, common string) {
					t.Helper()
					c.settle()
					v, err := api.Get(c.ctx, name, metav1.GetOptions{})
					if servers == "" {
						if !apierrors.IsNotFound(err) {
							t.Errorf("%s is there: %+v, %v", name, v, err)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					var said []string
					for _, s := range v.Status.StorageVersions {
						said = append(said, s.APIServerID)
					}
					got := ""
					if v.Status.CommonEncodingVersion != nil {
						got = *v.Status.CommonEncodingVersion
					}
					if strings.Join(said, " ") != servers || got != common {
						t.Errorf("of %s %v say %q, want %s, %q", name, said, got, servers, common)
					}
				}
				expect("apps.deployments", "old new", "")
				expect("core.pods", "old new", "")
				expect("gone.example.com.things", "", "")
				if err := leases.Delete(c.ctx, "old", metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
				if name == "with news of all" {
					expect("apps.deployments", "new", "apps/v2")
					expect("core.pods", "new", "v1")
					expect("example.com.widgets", "aggregated", "example.com/v1")
				}
				time.Sleep(2 * time.Hour) // and the rest of those who are not renewed
				expect("apps.deployments", "", "")
				expect("core.pods", "", "")
				expect("example.com.widgets", "aggregated", "example.com/v1")
			}, objects...)
		})
	}
}

// A server that renews its Lease stays; and a quiet cluster is quiet.
func TestStorageVersionsStay(t *testing.T) {
	run(t, (*Controllers).addStorageVersions, func(c *cluster) {
		leases := c.client.CoordinationV1().Leases("kube-system")
		l := must[*coordinationv1.Lease](t)(leases.Create(c.ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: "a", Labels: map[string]string{serverLease: "kube-apiserver"}},
			Spec:       coordinationv1.LeaseSpec{RenewTime: ptr(metav1.NowMicro()), LeaseDurationSeconds: ptr(int32(3600))},
		}, metav1.CreateOptions{}))
		must[*internalv1alpha1.StorageVersion](t)(c.client.InternalV1alpha1().StorageVersions().Create(c.ctx, &internalv1alpha1.StorageVersion{
			ObjectMeta: metav1.ObjectMeta{Name: "core.pods"},
			Status:     internalv1alpha1.StorageVersionStatus{StorageVersions: []internalv1alpha1.ServerStorageVersion{{APIServerID: "a", EncodingVersion: "v1", DecodableVersions: []string{"v1"}}}},
		}, metav1.CreateOptions{}))
		c.settle()
		c.client.ClearActions()
		for range 30 {
			time.Sleep(10 * time.Minute)
			l.Spec.RenewTime = ptr(metav1.NowMicro())
			l = must[*coordinationv1.Lease](t)(leases.Update(c.ctx, l, metav1.UpdateOptions{}))
		}
		c.settle()
		for _, a := range c.client.Actions() {
			if a.GetResource().Resource != "leases" || a.GetVerb() != "update" {
				t.Errorf("%s %s", a.GetVerb(), a.GetResource())
			}
		}
	})
}
