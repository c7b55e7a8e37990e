package controller

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func ptr[T any](v T) *T { return &v }

func template(image string, set map[string]string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: set}, Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyAlways, Containers: []corev1.Container{{Name: "c", Image: image}}}}
}

var app = map[string]string{"app": "web"}

func (c *cluster) allPods() []corev1.Pod {
	c.Helper()
	return must[*corev1.PodList](c.T)(c.client.CoreV1().Pods("").List(c.ctx, metav1.ListOptions{})).Items
}

// kubelet makes every pod that runs ready.
func (c *cluster) kubelet() {
	c.Helper()
	for _, pod := range c.allPods() {
		if !ready(&pod) && active(&pod) {
			pod.Status.Phase = corev1.PodRunning
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Now()}}
			must[*corev1.Pod](c.T)(c.client.CoreV1().Pods(pod.Namespace).UpdateStatus(c.ctx, &pod, metav1.UpdateOptions{}))
		}
	}
	c.settle()
}

// end ends every active pod in a phase.
func (c *cluster) end(phase corev1.PodPhase) {
	c.Helper()
	for _, pod := range c.allPods() {
		if active(&pod) {
			pod.Status.Phase = phase
			pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse, LastTransitionTime: metav1.Now()}}
			must[*corev1.Pod](c.T)(c.client.CoreV1().Pods(pod.Namespace).UpdateStatus(c.ctx, &pod, metav1.UpdateOptions{}))
		}
	}
	c.settle()
}

func (c *cluster) quiet() {
	c.Helper()
	c.settle()
	c.client.ClearActions()
	time.Sleep(time.Hour)
	c.settle()
	for _, a := range c.client.Actions() {
		if verb := a.GetVerb(); verb != "watch" && verb != "list" && verb != "get" {
			c.Errorf("nothing changed, and yet: %s %s", verb, a.GetResource().Resource)
		}
	}
}

func TestReplicaSet(t *testing.T) {
	run(t, (*Controllers).addReplicaSets, func(c *cluster) {
		sets := c.client.AppsV1().ReplicaSets("a")
		orphan := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "orphan", Namespace: "a", Labels: app}}
		must[*corev1.Pod](t)(c.client.CoreV1().Pods("a").Create(c.ctx, orphan, metav1.CreateOptions{}))
		set := must[*appsv1.ReplicaSet](t)(sets.Create(c.ctx, &appsv1.ReplicaSet{
			ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "a"},
			Spec:       appsv1.ReplicaSetSpec{Replicas: ptr(int32(40)), Selector: &metav1.LabelSelector{MatchLabels: app}, Template: template("x", app)},
		}, metav1.CreateOptions{}))
		c.settle()
		if n := len(c.allPods()); n != 40 {
			t.Fatalf("%d pods, want 40, the orphan among them", n)
		}
		for _, pod := range c.allPods() {
			if !metav1.IsControlledBy(&pod, set) {
				t.Errorf("%s is not adopted", pod.Name)
			}
		}
		c.kubelet()
		set = must[*appsv1.ReplicaSet](t)(sets.Get(c.ctx, "web", metav1.GetOptions{}))
		if s := set.Status; s.Replicas != 40 || s.ReadyReplicas != 40 || s.AvailableReplicas != 40 || s.FullyLabeledReplicas != 40 {
			t.Errorf("status %+v", s)
		}
		// A pod that no longer matches is let go, and replaced.
		pod := c.allPods()[0]
		pod.Labels = map[string]string{"app": "other"}
		must[*corev1.Pod](t)(c.client.CoreV1().Pods("a").Update(c.ctx, &pod, metav1.UpdateOptions{}))
		c.settle()
		released := must[*corev1.Pod](t)(c.client.CoreV1().Pods("a").Get(c.ctx, pod.Name, metav1.GetOptions{}))
		if len(released.OwnerReferences) != 0 || len(c.allPods()) != 41 {
			t.Errorf("%d pods, the released one is owned by %v", len(c.allPods()), released.OwnerReferences)
		}
		set = must[*appsv1.ReplicaSet](t)(sets.Get(c.ctx, "web", metav1.GetOptions{}))
		set.Spec.Replicas = ptr(int32(3))
		must[*appsv1.ReplicaSet](t)(sets.Update(c.ctx, set, metav1.UpdateOptions{}))
		c.settle()
		if n := len(c.allPods()); n != 4 {
			t.Errorf("%d pods, want 3 and the released one", n)
		}
		c.kubelet()
		c.quiet()
	})
}

// TestShortLivedPod: a pod that is gone before its controller knows of it is replaced, and not before that is certain.
func TestShortLivedPod(t *testing.T) {
	check := func(t *testing.T, add func(client *fake.Clientset), body func(c *cluster)) {
		run(t, func(c *Controllers) {
			add(c.client.(*fake.Clientset))
			c.addReplicaSets()
		}, func(c *cluster) {
			must[*appsv1.ReplicaSet](t)(c.client.AppsV1().ReplicaSets("a").Create(c.ctx, &appsv1.ReplicaSet{
				ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "a"},
				Spec:       appsv1.ReplicaSetSpec{Replicas: ptr(int32(1)), Selector: &metav1.LabelSelector{MatchLabels: app}, Template: template("x", app)},
			}, metav1.CreateOptions{}))
			body(c)
			time.Sleep(expectAgain)
			c.settle()
			if pods := must[*corev1.PodList](t)(c.client.CoreV1().Pods("a").List(c.ctx, metav1.ListOptions{})).Items; len(pods) != 1 {
				t.Errorf("%d pods, want 1", len(pods))
			}
		})
	}
	t.Run("told of before its creation is answered", func(t *testing.T) {
		check(t, func(client *fake.Clientset) {
			var once sync.Once
			before := len(client.ReactionChain) - 1 // the last one is the tracker's
			client.ReactionChain = slices.Insert(client.ReactionChain, before, clienttesting.Reactor(&clienttesting.SimpleReactor{
				Verb: "create", Resource: "pods",
				Reaction: func(a clienttesting.Action) (first bool, made runtime.Object, err error) {
					once.Do(func() {
						pod := a.(clienttesting.CreateAction).GetObject().(*corev1.Pod)
						err = errors.Join(client.Tracker().Create(a.GetResource(), pod, "a"), client.Tracker().Delete(a.GetResource(), "a", pod.Name))
						time.Sleep(time.Second)
						first, made = true, pod
					})
					return first, made, err
				},
			}))
		}, func(*cluster) { time.Sleep(time.Second) })
	})
	t.Run("left out by a new list", func(t *testing.T) {
		check(t, func(client *fake.Clientset) {
			client.PrependWatchReactor("pods", func(a clienttesting.Action) (bool, watch.Interface, error) {
				w, err := client.Tracker().Watch(a.GetResource(), a.GetNamespace())
				left := ""
				return true, watch.Filter(w, func(e watch.Event) (watch.Event, bool) {
					pod := e.Object.(*corev1.Pod)
					if left == "" {
						left = pod.Name
					}
					return e, pod.Name != left
				}), err
			})
		}, func(c *cluster) {
			c.settle()
			must[any](t)(nil, c.client.CoreV1().Pods("a").Delete(c.ctx, c.allPods()[0].Name, metav1.DeleteOptions{}))
			time.Sleep(expectTimeout - time.Minute)
			if c.settle(); len(c.allPods()) != 0 {
				t.Error("made again while it may be there")
			}
			must[*corev1.Pod](t)(c.client.CoreV1().Pods("b").Create(c.ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "other"}}, metav1.CreateOptions{}))
		})
	})
}

func TestVictims(t *testing.T) {
	now := metav1.Now()
	pod := func(name string, change func(*corev1.Pod)) *corev1.Pod {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))}, Spec: corev1.PodSpec{NodeName: name}, Status: corev1.PodStatus{
			Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now.Add(-time.Hour))}},
		}}
		change(p)
		return p
	}
	all := []*corev1.Pod{
		pod("normal", func(*corev1.Pod) {}),
		pod("restarted", func(p *corev1.Pod) { p.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: 3}} }),
		pod("younger", func(p *corev1.Pod) { p.Status.Conditions[0].LastTransitionTime = metav1.NewTime(now.Add(-time.Second)) }),
		pod("cheap", func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.PodDeletionCost: "-5"} }),
		pod("not ready", func(p *corev1.Pod) { p.Status.Conditions = nil }),
		pod("pending", func(p *corev1.Pod) { p.Status.Phase, p.Status.Conditions = corev1.PodPending, nil }),
		pod("unassigned", func(p *corev1.Pod) { p.Spec.NodeName, p.Status.Phase, p.Status.Conditions = "", corev1.PodPending, nil }),
	}
	var got []string
	for _, p := range (&replicator{}).victims(nil, all) {
		got = append(got, p.Name)
	}
	if want := []string{"unassigned", "pending", "not ready", "cheap", "younger", "restarted", "normal"}; !slices.Equal(got, want) {
		t.Errorf("order %v, want %v", got, want)
	}
}

func deployment(replicas int32, strategy appsv1.DeploymentStrategyType) *appsv1.Deployment {
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "a"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: app}, Template: template("one", app), Strategy: appsv1.DeploymentStrategy{Type: strategy},
			RevisionHistoryLimit: ptr(int32(2)), ProgressDeadlineSeconds: ptr(int32(600)),
		},
	}
	if strategy == appsv1.RollingUpdateDeploymentStrategyType {
		quarter := intOrString("25%")
		d.Spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{MaxSurge: &quarter, MaxUnavailable: &quarter}
	}
	return d
}

func addRollouts(c *Controllers) { c.addReplicaSets(); c.addDeployments() }

// rollOut lets a rollout go on until it is done, and checks the bounds at each step.
func (c *cluster) rollOut(most, least int) *appsv1.Deployment {
	c.Helper()
	for range 50 {
		time.Sleep(time.Second)
		c.settle()
		d := must[*appsv1.Deployment](c.T)(c.client.AppsV1().Deployments("a").Get(c.ctx, "web", metav1.GetOptions{}))
		works := 0
		for _, pod := range c.allPods() {
			if ready(&pod) {
				works++
			}
		}
		if n := len(c.allPods()); n > most || works < least {
			c.Fatalf("%d pods of which %d work; allowed are %d, needed %d", n, works, most, least)
		}
		if cond := conditionOf(&d.Status, appsv1.DeploymentProgressing); cond != nil && cond.Reason == rolloutDone && d.Status.ObservedGeneration == d.Generation &&
			d.Status.UpdatedReplicas == *d.Spec.Replicas && d.Status.Replicas == *d.Spec.Replicas {
			return d
		}
		c.kubelet()
	}
	c.Fatal("the rollout does not end")
	return nil
}

func (c *cluster) images() (images []string) {
	for _, pod := range c.allPods() {
		images = append(images, pod.Spec.Containers[0].Image)
	}
	slices.Sort(images)
	return slices.Compact(images)
}

func TestDeployment(t *testing.T) {
	run(t, addRollouts, func(c *cluster) {
		deployments := c.client.AppsV1().Deployments("a")
		must[*appsv1.Deployment](t)(deployments.Create(c.ctx, deployment(8, appsv1.RollingUpdateDeploymentStrategyType), metav1.CreateOptions{}))
		d := c.rollOut(8, 0)
		for i, image := range []string{"two", "three", "four", "one"} {
			d.Spec.Template.Spec.Containers[0].Image = image
			must[*appsv1.Deployment](t)(deployments.Update(c.ctx, d, metav1.UpdateOptions{}))
			d = c.rollOut(10, 6)
			if got := c.images(); !slices.Equal(got, []string{image}) {
				t.Errorf("pods run %v, want %s", got, image)
			}
			if got, want := d.Annotations[revisionAnnotation], fmt.Sprint(i+2); got != want {
				t.Errorf("revision %s, want %s", got, want)
			}
		}
		// Of five templates two old ones are kept; the first came back while it was still there or was made anew.
		sets := must[*appsv1.ReplicaSetList](t)(c.client.AppsV1().ReplicaSets("a").List(c.ctx, metav1.ListOptions{})).Items
		if len(sets) != 3 {
			t.Errorf("%d ReplicaSets, want 3", len(sets))
		}
		d.Spec.Replicas = ptr(int32(4))
		must[*appsv1.Deployment](t)(deployments.Update(c.ctx, d, metav1.UpdateOptions{}))
		c.rollOut(8, 4)
		c.quiet()
	})
}

func TestDeploymentUndoKeepsTheReplicaSet(t *testing.T) {
	run(t, addRollouts, func(c *cluster) {
		deployments := c.client.AppsV1().Deployments("a")
		must[*appsv1.Deployment](t)(deployments.Create(c.ctx, deployment(2, appsv1.RollingUpdateDeploymentStrategyType), metav1.CreateOptions{}))
		d := c.rollOut(2, 0)
		for _, image := range []string{"two", "one"} {
			d.Spec.Template.Spec.Containers[0].Image = image
			must[*appsv1.Deployment](t)(deployments.Update(c.ctx, d, metav1.UpdateOptions{}))
			d = c.rollOut(3, 2)
		}
		sets := must[*appsv1.ReplicaSetList](t)(c.client.AppsV1().ReplicaSets("a").List(c.ctx, metav1.ListOptions{})).Items
		if len(sets) != 2 {
			t.Fatalf("%d ReplicaSets, want 2", len(sets))
		}
		for _, set := range sets {
			if *set.Spec.Replicas > 0 && (set.Annotations[revisionAnnotation] != "3" || set.Annotations[revisionHistoryAnnotation] != "1") {
				t.Errorf("annotations %v", set.Annotations)
			}
		}
	})
}

func TestDeploymentRecreate(t *testing.T) {
	run(t, addRollouts, func(c *cluster) {
		deployments := c.client.AppsV1().Deployments("a")
		must[*appsv1.Deployment](t)(deployments.Create(c.ctx, deployment(3, appsv1.RecreateDeploymentStrategyType), metav1.CreateOptions{}))
		d := c.rollOut(3, 0)
		d.Spec.Template.Spec.Containers[0].Image = "two"
		must[*appsv1.Deployment](t)(deployments.Update(c.ctx, d, metav1.UpdateOptions{}))
		c.rollOut(3, 0)
		if got := c.images(); !slices.Equal(got, []string{"two"}) {
			t.Errorf("pods run %v", got)
		}
	})
}

// A rollout that cannot get on is told as late, once, after its deadline.
func TestDeploymentDeadline(t *testing.T) {
	run(t, addRollouts, func(c *cluster) {
		must[*appsv1.Deployment](t)(c.client.AppsV1().Deployments("a").Create(c.ctx, deployment(2, appsv1.RollingUpdateDeploymentStrategyType), metav1.CreateOptions{}))
		reason := func() string {
			c.settle()
			d := must[*appsv1.Deployment](t)(c.client.AppsV1().Deployments("a").Get(c.ctx, "web", metav1.GetOptions{}))
			return conditionOf(&d.Status, appsv1.DeploymentProgressing).Reason
		}
		time.Sleep(599 * time.Second)
		if got := reason(); got == rolloutLate {
			t.Error("late too early")
		}
		time.Sleep(3 * time.Second)
		if got := reason(); got != rolloutLate {
			t.Errorf("reason %s after the deadline", got)
		}
		c.quiet()
	})
}

// A paused rollout that is scaled keeps its proportions.
func TestDeploymentScalesInProportion(t *testing.T) {
	run(t, addRollouts, func(c *cluster) {
		deployments := c.client.AppsV1().Deployments("a")
		must[*appsv1.Deployment](t)(deployments.Create(c.ctx, deployment(8, appsv1.RollingUpdateDeploymentStrategyType), metav1.CreateOptions{}))
		d := c.rollOut(8, 0)
		d.Spec.Template.Spec.Containers[0].Image = "broken"
		must[*appsv1.Deployment](t)(deployments.Update(c.ctx, d, metav1.UpdateOptions{}))
		c.settle()
		d = must[*appsv1.Deployment](t)(deployments.Get(c.ctx, "web", metav1.GetOptions{}))
		d.Spec.Replicas = ptr(int32(16))
		must[*appsv1.Deployment](t)(deployments.Update(c.ctx, d, metav1.UpdateOptions{}))
		c.settle()
		sizes := map[string]int32{}
		for _, set := range must[*appsv1.ReplicaSetList](t)(c.client.AppsV1().ReplicaSets("a").List(c.ctx, metav1.ListOptions{})).Items {
			sizes[set.Spec.Template.Spec.Containers[0].Image] = *set.Spec.Replicas
		}
		// 6 old and 4 new of 10 allowed become 12 and 8 of 20.
		if sizes["one"] != 12 || sizes["broken"] != 8 {
			t.Errorf("sizes %v", sizes)
		}
	})
}

func TestJob(t *testing.T) {
	job := func(change func(*batchv1.JobSpec)) *batchv1.Job {
		set := map[string]string{"job": "j"}
		j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Name: "j", Namespace: "a"}, Spec: batchv1.JobSpec{
			Parallelism: ptr(int32(2)), Completions: ptr(int32(3)), BackoffLimit: ptr(int32(1)), Selector: &metav1.LabelSelector{MatchLabels: set}, Template: template("x", set),
		}}
		j.Spec.Template.Spec.RestartPolicy = corev1.RestartPolicyNever
		change(&j.Spec)
		return j
	}
	for _, test := range []struct {
		name              string
		change            func(*batchv1.JobSpec)
		phases            []corev1.PodPhase // of the pods that run, one after the other
		want              batchv1.JobConditionType
		reason            string
		succeeded, failed int32
	}{
		{"succeeds", func(*batchv1.JobSpec) {}, []corev1.PodPhase{"Succeeded", "Succeeded"}, batchv1.JobComplete, "CompletionsReached", 3, 0},
		{"indexed", func(s *batchv1.JobSpec) { s.CompletionMode = ptr(batchv1.IndexedCompletion) }, []corev1.PodPhase{"Succeeded", "Succeeded"}, batchv1.JobComplete, "CompletionsReached", 3, 0},
		{"one failure is forgiven", func(s *batchv1.JobSpec) { s.Parallelism = ptr(int32(1)) }, []corev1.PodPhase{"Failed", "Succeeded", "Succeeded", "Succeeded"}, batchv1.JobComplete, "CompletionsReached", 3, 1},
		{"fails", func(*batchv1.JobSpec) {}, []corev1.PodPhase{"Failed"}, batchv1.JobFailed, "BackoffLimitExceeded", 0, 2},
		{"as many as want", func(s *batchv1.JobSpec) { s.Completions = nil }, []corev1.PodPhase{"Succeeded"}, batchv1.JobComplete, "CompletionsReached", 2, 0},
		{"deadline", func(s *batchv1.JobSpec) { s.ActiveDeadlineSeconds = ptr(int64(30)) }, nil, batchv1.JobFailed, "DeadlineExceeded", 0, 0},
	} {
		tell := func(t *testing.T, add func(*Controllers)) {
			run(t, add, func(c *cluster) {
				must[*batchv1.Job](t)(c.client.BatchV1().Jobs("a").Create(c.ctx, job(test.change), metav1.CreateOptions{}))
				c.settle()
				for _, phase := range test.phases {
					c.end(phase)
					time.Sleep(time.Minute) // back-off
					c.settle()
				}
				time.Sleep(time.Minute)
				c.settle()
				got := must[*batchv1.Job](t)(c.client.BatchV1().Jobs("a").Get(c.ctx, "j", metav1.GetOptions{}))
				end := jobEnd(got)
				if end == nil || end.Type != test.want || end.Reason != test.reason {
					t.Fatalf("ended %+v, want %s %s; status %+v", end, test.want, test.reason, got.Status)
				}
				if got.Status.Succeeded != test.succeeded || test.failed != got.Status.Failed && test.reason != "DeadlineExceeded" {
					t.Errorf("succeeded %d, failed %d", got.Status.Succeeded, got.Status.Failed)
				}
				for _, pod := range c.allPods() {
					if tracked(&pod) {
						t.Errorf("%s keeps its finalizer", pod.Name)
					}
				}
				c.quiet()
			})
		}
		t.Run(test.name, func(t *testing.T) { tell(t, (*Controllers).addJobs) })
		// The Job's own informer is up to date while that of pods lags, as any informer may.
		t.Run(test.name+" with late news of pods", func(t *testing.T) { tell(t, func(c *Controllers) { late(c, "pods"); c.addJobs() }) })
	}
}

func TestIndexes(t *testing.T) {
	for _, text := range []string{"", "0", "0,1", "1,3-5,7", "0-99"} {
		if got := formatIndexes(parseIndexes(text)); got != text {
			t.Errorf("%q becomes %q", text, got)
		}
	}
}

func TestCronJob(t *testing.T) {
	run(t, (*Controllers).addCronJobs, func(c *cluster) {
		must[*batchv1.CronJob](t)(c.client.BatchV1().CronJobs("a").Create(c.ctx, &batchv1.CronJob{
			ObjectMeta: metav1.ObjectMeta{Name: "tick", Namespace: "a"},
			Spec:       batchv1.CronJobSpec{Schedule: "*/10 * * * *", ConcurrencyPolicy: batchv1.ForbidConcurrent, SuccessfulJobsHistoryLimit: ptr(int32(1))},
		}, metav1.CreateOptions{}))
		jobs := func() []batchv1.Job {
			c.settle()
			return must[*batchv1.JobList](t)(c.client.BatchV1().Jobs("a").List(c.ctx, metav1.ListOptions{})).Items
		}
		time.Sleep(10*time.Minute + time.Second)
		first := jobs()
		if len(first) != 1 || first[0].Annotations[scheduledAt] == "" {
			t.Fatalf("jobs %v", first)
		}
		time.Sleep(25 * time.Minute)
		if n := len(jobs()); n != 1 {
			t.Errorf("%d jobs while the first runs", n)
		}
		for range 3 { // the one that was due starts when the running one ends
			for _, job := range jobs() {
				if jobEnd(&job) == nil {
					job.Status.Conditions = []batchv1.JobCondition{{Type: batchv1.JobComplete, Status: corev1.ConditionTrue}}
					must[*batchv1.Job](t)(c.client.BatchV1().Jobs("a").UpdateStatus(c.ctx, &job, metav1.UpdateOptions{}))
				}
			}
			time.Sleep(10 * time.Minute)
		}
		if n := len(jobs()); n != 2 {
			t.Errorf("%d jobs, want the last that succeeded and one that runs", n)
		}
	})
}

// TestCronJobAsksForItsJobs: a job that the informer has not told of runs all the same; one that is not there does not.
func TestCronJobAsksForItsJobs(t *testing.T) {
	run(t, func(c *Controllers) { deaf(c, "jobs"); c.addCronJobs() }, func(c *cluster) {
		must[*batchv1.CronJob](t)(c.client.BatchV1().CronJobs("a").Create(c.ctx, &batchv1.CronJob{
			ObjectMeta: metav1.ObjectMeta{Name: "tick", Namespace: "a"}, Spec: batchv1.CronJobSpec{Schedule: "*/10 * * * *", ConcurrencyPolicy: batchv1.ForbidConcurrent},
		}, metav1.CreateOptions{}))
		check := func(want int, active string) {
			t.Helper()
			time.Sleep(time.Hour + time.Second)
			c.settle()
			if made := c.writes("create", "jobs"); made != want {
				t.Errorf("%d jobs made, want %d", made, want)
			}
			cron := must[*batchv1.CronJob](t)(c.client.BatchV1().CronJobs("a").Get(c.ctx, "tick", metav1.GetOptions{}))
			if len(cron.Status.Active) != 1 || cron.Status.Active[0].Name != active {
				t.Errorf("active: %v, want %s", cron.Status.Active, active)
			}
		}
		name := func(at time.Time) string { return fmt.Sprintf("tick-%d", at.Unix()/60) }
		start := time.Now().Truncate(time.Hour)
		check(1, name(start.Add(10*time.Minute)))
		check(1, name(start.Add(10*time.Minute)))
		if err := c.client.BatchV1().Jobs("a").Delete(c.ctx, name(start.Add(10*time.Minute)), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		check(2, name(start.Add(130*time.Minute)))
	})
}
