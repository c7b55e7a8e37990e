package events

import (
	"math/rand"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/timonel/timonel/internal/api/core"
	"github.com/timonel/timonel/internal/kind"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	"k8s.io/apimachinery/pkg/api/equality"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
)

func definition() *kind.Definition {
	for _, d := range core.Definitions(core.Options{EventTTL: time.Hour}) {
		if d.Kind == "Event" {
			return Definitions(d)[0]
		}
	}
	return nil
}

func TestEventsLoseNothing(t *testing.T) {
	fill := fuzzer.FuzzerFor(metafuzzer.Funcs, rand.NewSource(1), serializer.NewCodecFactory(runtime.NewScheme()))
	d := definition()
	for range 100 {
		e := &eventsv1.Event{}
		fill.Fill(e)
		e.SetGroupVersionKind(eventsv1.SchemeGroupVersion.WithKind("Event"))
		hub, err := d.Convert.ToHub(e)
		if err != nil {
			t.Fatal(err)
		}
		back, err := d.Convert.FromHub(hub)
		if err != nil || !equality.Semantic.DeepEqual(e, back) {
			t.Fatalf("%v\n%s", err, cmp.Diff(e, back))
		}
	}
}

func TestEventsFromOldClientsAreRefusedHere(t *testing.T) {
	d := definition()
	e := &corev1.Event{Count: 3, InvolvedObject: corev1.ObjectReference{Namespace: "d"}}
	e.Namespace = "d"
	var got []string
	for _, problem := range d.Validate(t.Context(), e) {
		got = append(got, problem.Field)
	}
	if diff := cmp.Diff([]string{"eventTime", "type", "count"}, got); diff != "" {
		t.Error(diff)
	}
}
