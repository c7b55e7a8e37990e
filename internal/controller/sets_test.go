package controller

import (
	"maps"
	"slices"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestDaemonSet(t *testing.T) {
	plain := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "plain"}}
	tainted := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "tainted"}, Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "own", Effect: corev1.TaintEffectNoSchedule}}}}
	cordoned := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "cordoned"}, Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}}}}
	run(t, (*Controllers).addDaemonSets, func(c *cluster) {
		sets := c.client.AppsV1().DaemonSets("a")
		one := intOrString("1")
		must[*appsv1.DaemonSet](t)(sets.Create(c.ctx, &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "d", Namespace: "a"}, Spec: appsv1.DaemonSetSpec{
			Selector: &metav1.LabelSelector{MatchLabels: app}, Template: template("one", app),
			UpdateStrategy: appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType, RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxUnavailable: &one}},
		}}, metav1.CreateOptions{}))
		c.settle()
		c.kubelet()
		var on []string
		for _, pod := range c.allPods() {
			on = append(on, nodeOf(&pod))
		}
		slices.Sort(on)
		if want := []string{"cordoned", "plain"}; !slices.Equal(on, want) {
			t.Fatalf("pods on %v, want %v", on, want)
		}
		set := must[*appsv1.DaemonSet](t)(sets.Get(c.ctx, "d", metav1.GetOptions{}))
		set.Spec.Template.Spec.Containers[0].Image = "two"
		must[*appsv1.DaemonSet](t)(sets.Update(c.ctx, set, metav1.UpdateOptions{}))
		for range 6 {
			time.Sleep(time.Second)
			c.settle()
			works := 0
			for _, pod := range c.allPods() {
				if ready(&pod) {
					works++
				}
			}
			if works < 1 {
				t.Error("more than one pod is down")
			}
			c.kubelet()
		}
		set = must[*appsv1.DaemonSet](t)(sets.Get(c.ctx, "d", metav1.GetOptions{}))
		if s := set.Status; s.UpdatedNumberScheduled != 2 || s.NumberAvailable != 2 || s.DesiredNumberScheduled != 2 || !slices.Equal(c.images(), []string{"two"}) {
			t.Errorf("status %+v, images %v", s, c.images())
		}
		c.quiet()
	}, plain, tainted, cordoned)
}

func TestStatefulSet(t *testing.T) {
	run(t, (*Controllers).addStatefulSets, func(c *cluster) {
		sets := c.client.AppsV1().StatefulSets("a")
		must[*appsv1.StatefulSet](t)(sets.Create(c.ctx, &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "a"}, Spec: appsv1.StatefulSetSpec{
			Replicas: ptr(int32(3)), Selector: &metav1.LabelSelector{MatchLabels: app}, Template: template("one", app), ServiceName: "svc", PodManagementPolicy: appsv1.OrderedReadyPodManagement,
			UpdateStrategy:       appsv1.StatefulSetUpdateStrategy{Type: appsv1.RollingUpdateStatefulSetStrategyType, RollingUpdate: &appsv1.RollingUpdateStatefulSetStrategy{Partition: ptr(int32(1))}},
			VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}},
		}}, metav1.CreateOptions{}))
		steps := func() (names []string) {
			for range 12 {
				time.Sleep(time.Second)
				c.settle()
				for _, pod := range c.allPods() {
					names = append(names, pod.Name)
				}
				c.kubelet()
			}
			return names
		}
		// In order: each comes when the one before it works.
		if got := slices.Compact(steps()[:6]); !slices.Equal(got, []string{"s-0", "s-0", "s-1", "s-0", "s-1", "s-2"}) && !slices.Equal(got, []string{"s-0", "s-1", "s-0", "s-1", "s-2"}) {
			t.Errorf("pods came as %v", got)
		}
		set := must[*appsv1.StatefulSet](t)(sets.Get(c.ctx, "s", metav1.GetOptions{}))
		set.Spec.Template.Spec.Containers[0].Image = "two"
		must[*appsv1.StatefulSet](t)(sets.Update(c.ctx, set, metav1.UpdateOptions{}))
		steps()
		for _, pod := range c.allPods() {
			want := "two"
			if pod.Name == "s-0" { // below the partition
				want = "one"
			}
			if got := pod.Spec.Containers[0].Image; got != want {
				t.Errorf("%s runs %s, want %s", pod.Name, got, want)
			}
			if pod.Spec.Subdomain != "svc" || pod.Spec.Volumes[0].PersistentVolumeClaim.ClaimName != "data-"+pod.Name {
				t.Errorf("pod %+v", pod.Spec)
			}
		}
		claims := must[*corev1.PersistentVolumeClaimList](t)(c.client.CoreV1().PersistentVolumeClaims("a").List(c.ctx, metav1.ListOptions{}))
		if len(claims.Items) != 3 {
			t.Errorf("%d claims, want 3", len(claims.Items))
		}
		c.quiet()
	})
}

// TestRevisionNumbers: each change of a template gets the next number, whatever the informer of revisions tells.
func TestRevisionNumbers(t *testing.T) {
	daemonSet := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "a"}, Spec: appsv1.DaemonSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: app}, Template: template("one", app),
	}}
	check := func(t *testing.T, add func(c *Controllers), write func(c *cluster, image string)) {
		run(t, func(c *Controllers) { deaf(c, "controllerrevisions"); add(c) }, func(c *cluster) {
			for _, image := range []string{"one", "two", "three", "two", "one", "one"} {
				write(c, image)
				c.settle()
			}
			got := map[string]int64{}
			for _, r := range must[*appsv1.ControllerRevisionList](t)(c.client.AppsV1().ControllerRevisions("a").List(c.ctx, metav1.ListOptions{})).Items {
				got[must[*corev1.PodTemplateSpec](t)(templateFrom(&r)).Spec.Containers[0].Image] = r.Revision
			}
			if want := map[string]int64{"three": 3, "two": 4, "one": 5}; !maps.Equal(got, want) {
				t.Errorf("revisions %v, want %v", got, want)
			}
		})
	}
	t.Run("DaemonSet", func(t *testing.T) {
		check(t, (*Controllers).addDaemonSets, func(c *cluster, image string) {
			sets := c.client.AppsV1().DaemonSets("a")
			set, err := sets.Get(c.ctx, "s", metav1.GetOptions{})
			if err != nil {
				set = must[*appsv1.DaemonSet](t)(sets.Create(c.ctx, daemonSet, metav1.CreateOptions{}))
			}
			set.Spec.Template.Spec.Containers[0].Image = image
			must[*appsv1.DaemonSet](t)(sets.Update(c.ctx, set, metav1.UpdateOptions{}))
		})
	})
	t.Run("StatefulSet", func(t *testing.T) {
		check(t, (*Controllers).addStatefulSets, func(c *cluster, image string) {
			sets := c.client.AppsV1().StatefulSets("a")
			set, err := sets.Get(c.ctx, "s", metav1.GetOptions{})
			if err != nil {
				set = must[*appsv1.StatefulSet](t)(sets.Create(c.ctx, statefulSet(), metav1.CreateOptions{}))
			}
			set.Spec.Template.Spec.Containers[0].Image = image
			must[*appsv1.StatefulSet](t)(sets.Update(c.ctx, set, metav1.UpdateOptions{}))
			c.settle()
			set = must[*appsv1.StatefulSet](t)(sets.Get(c.ctx, "s", metav1.GetOptions{}))
			first := must[*appsv1.ControllerRevision](t)(c.client.AppsV1().ControllerRevisions("a").Get(c.ctx, set.Status.CurrentRevision, metav1.GetOptions{}))
			if got := must[*corev1.PodTemplateSpec](t)(templateFrom(first)).Spec.Containers[0].Image; got != "one" {
				t.Errorf("the current template is %s before any pod of it works", got)
			}
		})
	})
}

// statefulSet has one pod with one claim.
func statefulSet() *appsv1.StatefulSet {
	return &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "a"}, Spec: appsv1.StatefulSetSpec{
		Replicas: ptr(int32(1)), Selector: &metav1.LabelSelector{MatchLabels: app}, Template: template("one", app), PodManagementPolicy: appsv1.OrderedReadyPodManagement,
		VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}},
	}}
}

// TestStatefulSetMakesLostClaims: a pod that waits for a claim that is gone gets it again.
func TestStatefulSetMakesLostClaims(t *testing.T) {
	run(t, (*Controllers).addStatefulSets, func(c *cluster) {
		pods, claims := c.client.CoreV1().Pods("a"), c.client.CoreV1().PersistentVolumeClaims("a")
		must[*appsv1.StatefulSet](t)(c.client.AppsV1().StatefulSets("a").Create(c.ctx, statefulSet(), metav1.CreateOptions{}))
		c.settle()
		check := func(phase corev1.PodPhase, want int) {
			t.Helper()
			pod := must[*corev1.Pod](t)(pods.Get(c.ctx, "s-0", metav1.GetOptions{}))
			pod.Status.Phase = phase
			must[*corev1.Pod](t)(pods.UpdateStatus(c.ctx, pod, metav1.UpdateOptions{}))
			c.settle()
			must[any](t)(nil, claims.Delete(c.ctx, "data-s-0", metav1.DeleteOptions{}))
			c.settle()
			if have := must[*corev1.PersistentVolumeClaimList](t)(claims.List(c.ctx, metav1.ListOptions{})).Items; len(have) != want {
				t.Errorf("%s: %d claims, want %d", phase, len(have), want)
			}
		}
		check(corev1.PodPending, 1)
		check(corev1.PodRunning, 0) // it has what it needs
	})
}

// TestStatefulSetTellsWhatItDid: a pod that somebody else deleted is not told of as deleted by the set.
func TestStatefulSetTellsWhatItDid(t *testing.T) {
	run(t, func(c *Controllers) { late(c, "pods"); c.addStatefulSets() }, func(c *cluster) {
		sets := c.client.AppsV1().StatefulSets("a")
		must[*appsv1.StatefulSet](t)(sets.Create(c.ctx, statefulSet(), metav1.CreateOptions{}))
		time.Sleep(time.Minute)
		must[any](t)(nil, c.client.CoreV1().Pods("a").Delete(c.ctx, "s-0", metav1.DeleteOptions{}))
		set := must[*appsv1.StatefulSet](t)(sets.Get(c.ctx, "s", metav1.GetOptions{}))
		set.Spec.Replicas = ptr(int32(0))
		must[*appsv1.StatefulSet](t)(sets.Update(c.ctx, set, metav1.UpdateOptions{}))
		time.Sleep(time.Minute)
		c.settle()
		var told []string
		for _, e := range must[*corev1.EventList](t)(c.client.CoreV1().Events("a").List(c.ctx, metav1.ListOptions{})).Items {
			told = append(told, e.Message)
		}
		// Events of one moment have one name: of those of the creation the first is there.
		if want := []string{"create Claim data-s-0 Pod s-0 in StatefulSet s success"}; !slices.Equal(told, want) {
			t.Errorf("told of %q, want %q", told, want)
		}
		if n := c.writes("delete", "pods"); n < 2 {
			t.Errorf("%d deletions were tried, want the set's too", n)
		}
	})
}
