package engine

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/storage/storagetest"
	"testing/synctest"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// mortal is what a deletion is about, as the documentation tells it ("Finalizers", "Garbage Collection", "Pod
// Lifecycle"): a model of one object, without storage or requests.
type mortal struct {
	graceful   bool // its kind dies slowly: 30 s unless asked otherwise
	there      bool
	finalizers []string
	deleting   bool
	grace      int64
}

func (m *mortal) without(names ...string) {
	m.finalizers = slices.DeleteFunc(m.finalizers, func(f string) bool { return slices.Contains(names, f) })
}

// settle removes the object if nothing holds it any more.
func (m *mortal) settle() {
	if m.deleting && len(m.finalizers) == 0 && m.grace == 0 {
		*m = mortal{graceful: m.graceful}
	}
}

func (m *mortal) delete(o metav1.DeleteOptions) {
	const orphan, foreground = metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents
	if o.PropagationPolicy != nil {
		m.without(orphan, foreground)
		switch *o.PropagationPolicy {
		case metav1.DeletePropagationOrphan:
			m.finalizers = append(m.finalizers, orphan)
		case metav1.DeletePropagationForeground:
			m.finalizers = append(m.finalizers, foreground)
		}
	}
	asked := int64(0)
	if m.graceful {
		asked = ptr.Deref(o.GracePeriodSeconds, 30)
	}
	switch {
	case !m.deleting:
		m.deleting, m.grace = true, asked
	case o.GracePeriodSeconds != nil:
		m.grace = min(m.grace, asked) // it may only end sooner
	}
	m.settle()
}

func (m *mortal) String() string {
	if !m.there {
		return "gone"
	}
	text := fmt.Sprint("there ", m.finalizers)
	if m.deleting {
		text += fmt.Sprint(" deleting ", m.grace)
	}
	return text
}

// TestDeletionFollowsTheModel deletes objects in random ways, again and again, and gives and takes their finalizers meanwhile.
func TestDeletionFollowsTheModel(t *testing.T) {
	for seed := range uint64(60) {
		synctest.Test(t, func(t *testing.T) {
			w, rnd := newWorld(t, storagetest.NewMemory()), rand.New(rand.NewPCG(seed, 3))
			d, model := w.deployments, &mortal{}
			if rnd.IntN(2) == 0 {
				d, model.graceful = w.pods, true
			}
			var story []string
			for range 25 {
				story = append(story, w.mortalStep(d, model, rnd))
				if got := w.mortal(d, model.graceful); got.String() != model.String() {
					t.Fatalf("seed %d: %s is\n %s, want\n %s, after\n %s", seed, d.Plural, got, model, strings.Join(story, "\n "))
				}
			}
		})
	}
}

// mortalStep does one thing to the object and to its model.
func (w *world) mortalStep(d *kind.Definition, m *mortal, rnd *rand.Rand) string {
	if !m.there {
		m.there = true
		for _, f := range []string{"example.com/a", "example.com/b", metav1.FinalizerOrphanDependents} {
			if rnd.IntN(3) == 0 {
				m.finalizers = append(m.finalizers, f)
			}
		}
		quoted := `"` + strings.Join(m.finalizers, `","`) + `"`
		if len(m.finalizers) == 0 {
			quoted = ""
		}
		w.create(d, `{"metadata":{"name":"x","finalizers":[`+quoted+`]}}`)
		return "create with " + quoted
	}
	obj := w.get(d, "x")
	switch rnd.IntN(4) {
	case 0: // take a finalizer
		if len(m.finalizers) == 0 {
			return "nothing to take"
		}
		f := m.finalizers[rnd.IntN(len(m.finalizers))]
		m.without(f)
		obj.SetFinalizers(slices.DeleteFunc(obj.GetFinalizers(), func(have string) bool { return have == f }))
		w.must(w.update(w.call(d, "x"), obj))
		m.settle()
		return "take " + f
	case 1: // give one
		const f = "example.com/new"
		if slices.Contains(m.finalizers, f) {
			return "nothing to give"
		}
		obj.SetFinalizers(append(obj.GetFinalizers(), f))
		_, err := w.update(w.call(d, "x"), obj)
		if m.deleting {
			w.expect("a finalizer for what is being deleted", err, metav1.StatusReasonInvalid)
			return "try to give " + f
		}
		w.expect("a finalizer", err, "")
		m.finalizers = append(m.finalizers, f)
		return "give " + f
	}
	var o metav1.DeleteOptions
	text := "delete"
	if policies := []metav1.DeletionPropagation{metav1.DeletePropagationBackground, metav1.DeletePropagationForeground, metav1.DeletePropagationOrphan}; rnd.IntN(2) == 0 {
		o.PropagationPolicy = &policies[rnd.IntN(3)]
		text += " " + string(*o.PropagationPolicy)
	}
	if rnd.IntN(2) == 0 {
		o.GracePeriodSeconds = ptr.To([]int64{0, 5, 60}[rnd.IntN(3)])
		text += fmt.Sprint(" within ", *o.GracePeriodSeconds)
	}
	switch rnd.IntN(6) {
	case 0:
		o.Preconditions = &metav1.Preconditions{UID: ptr.To(obj.GetUID() + "x")}
		_, err := w.delete(w.call(d, "x"), o)
		w.expect(text, err, metav1.StatusReasonConflict)
		return text + " of another"
	case 1:
		o.DryRun = []string{metav1.DryRunAll}
		w.quiet(text, func() {
			_, err := w.delete(w.call(d, "x"), o)
			w.expect(text, err, "")
		})
		return text + " as a dry run"
	}
	_, err := w.delete(w.call(d, "x"), o)
	w.expect(text, err, "")
	m.delete(o)
	return text
}

// mortal is the object as the model tells it.
func (w *world) mortal(d *kind.Definition, graceful bool) *mortal {
	obj, err := w.read(d, "x")
	if err != nil {
		w.expect("read", err, metav1.StatusReasonNotFound)
		return &mortal{}
	}
	m := &mortal{graceful: graceful, there: true, finalizers: obj.GetFinalizers(), deleting: obj.GetDeletionTimestamp() != nil}
	if m.deleting {
		m.grace = *obj.GetDeletionGracePeriodSeconds()
	}
	return m
}
