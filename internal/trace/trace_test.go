package trace

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The steps of a request take all of its time, each what passed while it ran.
func TestStepsAddUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &Record{}
		r.Begin(time.Now())
		for i, s := range []Step{Decode, Commit, Decode, Commit, Answer} { // a patch that was retried
			time.Sleep(time.Duration(i+1) * time.Second)
			r.Enter(s)
		}
		time.Sleep(10 * time.Second)
		r.End()
		want := map[Step]time.Duration{Accept: 1, Decode: 2 + 4, Commit: 3 + 5, Answer: 10}
		sum := time.Duration(0)
		for _, s := range Steps() {
			if r.Durations[s] != want[s]*time.Second {
				t.Errorf("%s took %v, want %v", s, r.Durations[s], want[s]*time.Second)
			}
			sum += r.Durations[s]
		}
		if r.Total() != sum {
			t.Errorf("in all %v, the steps %v", r.Total(), sum)
		}
	})
}

func TestNobodyIsTold(t *testing.T) {
	var outside *Record
	outside.Enter(Commit) // outside a request
}

func TestRingKeepsTheLast(t *testing.T) {
	g := NewRing(3)
	for n := range 5 {
		var got []string
		for _, r := range g.Records() {
			got = append(got, r.Name)
		}
		want := []string{"[]", "[0]", "[0 1]", "[0 1 2]", "[1 2 3]"}[n]
		if fmt.Sprint(got) != want {
			t.Errorf("after %d: %v, want %s", n, got, want)
		}
		g.Add(&Record{Name: fmt.Sprint(n)})
	}
}

func TestRingIsShared(t *testing.T) {
	g := NewRing(8)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				g.Add(&Record{Name: "x"})
				if n := len(g.Records()); n == 0 || n > 8 {
					t.Errorf("%d records", n)
				}
			}
		})
	}
	wg.Wait()
}

func TestStepNames(t *testing.T) {
	want := "[accept locate identify pace authorize decode change check commit answer]"
	if got := fmt.Sprint(Steps()); got != want {
		t.Errorf("the steps are %s", got)
	}
}
