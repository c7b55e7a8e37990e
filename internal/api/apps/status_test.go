package apps

import (
	"testing"

	"github.com/timonel/timonel/internal/api/podspec"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func deploymentWith(replicas int32, s appsv1.DeploymentStatus) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "d", Labels: map[string]string{"mine": "yes"}},
		Spec:       appsv1.DeploymentSpec{Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"a": "b"}}}, Status: s,
	}
}

func TestStatusWritesLeaveTheRest(t *testing.T) {
	view := deployment(podspec.Rules{}).Subresources["status"].View
	old := deploymentWith(1, appsv1.DeploymentStatus{})
	obj := deploymentWith(9, appsv1.DeploymentStatus{Replicas: 3})
	obj.Labels = map[string]string{"other": "yes"}
	obj.Annotations = map[string]string{"a": "b"}
	view.Prepare(t.Context(), obj, old)
	if *obj.Spec.Replicas != 1 || obj.Labels["mine"] != "yes" {
		t.Errorf("a status write changed spec or labels: %d replicas, labels %v", *obj.Spec.Replicas, obj.Labels)
	}
	if obj.Status.Replicas != 3 || obj.Annotations["a"] != "b" {
		t.Errorf("a status write lost its status or annotations: %+v", obj)
	}
}

func TestDeploymentStatus(t *testing.T) {
	check := func(name string, now, was appsv1.DeploymentStatus, want string) {
		t.Helper()
		errs := validateDeploymentStatus(deploymentWith(1, now), deploymentWith(1, was))
		got := ""
		if len(errs) > 0 {
			got = errs.ToAggregate().Error()
		}
		if got != want {
			t.Errorf("%s:\nwant %s\ngot  %s", name, want, got)
		}
	}
	check("fits", appsv1.DeploymentStatus{Replicas: 3, ReadyReplicas: 2, AvailableReplicas: 1, UpdatedReplicas: 3}, appsv1.DeploymentStatus{}, "")
	check("more ready than there are", appsv1.DeploymentStatus{Replicas: 1, ReadyReplicas: 2}, appsv1.DeploymentStatus{},
		"status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas")
	check("more available than ready", appsv1.DeploymentStatus{Replicas: 2, ReadyReplicas: 1, AvailableReplicas: 2}, appsv1.DeploymentStatus{},
		"status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas")
	check("collisions forgotten", appsv1.DeploymentStatus{CollisionCount: ptr.To[int32](1)}, appsv1.DeploymentStatus{CollisionCount: ptr.To[int32](2)},
		"status.collisionCount: Invalid value: 1: cannot be decremented")
}

func TestScale(t *testing.T) {
	scale := deployment(podspec.Rules{}).Subresources["scale"].Scale
	d := deploymentWith(2, appsv1.DeploymentStatus{Replicas: 1})
	spec, status, selector, err := scale.Get(d)
	if spec != 2 || status != 1 || selector != "a=b" || err != nil {
		t.Errorf("scale is %d %d %q %v, want 2 1 a=b", spec, status, selector, err)
	}
	if err := scale.Set(d, 5); err != nil || *d.Spec.Replicas != 5 {
		t.Errorf("after scaling to 5: %d replicas, %v", *d.Spec.Replicas, err)
	}
}
