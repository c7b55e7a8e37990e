package election

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// One candidate leads soon, and for as long as it lives.
func TestOneCandidate(t *testing.T) {
	live(t, func(w *world) {
		w.component("a", "1.37.0", "1.37.0")
		w.expect(10*time.Second, "a")
		lease := w.lease()
		if s := lease.Spec; ptr.Deref(s.HolderIdentity, "") != "a" || ptr.Deref(s.Strategy, "") != coordinationv1.OldestEmulationVersion ||
			s.PreferredHolder != nil || ptr.Deref(s.LeaseTransitions, -1) != 0 || lease.Annotations[electedBy] != coordinator {
			w.Errorf("the Lease is %+v %v", s, lease.Annotations)
		}
		asked := w.candidate("a").Spec.PingTime
		if asked == nil {
			w.Error("nobody asked whether it is there")
		}
		w.expect(time.Hour, "a")
		if again := w.candidate("a").Spec.PingTime; !again.Equal(asked) {
			w.Errorf("it was asked again at %v", again)
		}
	})
}

// Of several candidates the one with the oldest version leads, and when it dies the next.
func TestHolderDies(t *testing.T) {
	live(t, func(w *world) {
		w.component("c", "1.37.0", "1.37.0")
		kill := w.component("a", "1.37.0", "1.36.0")
		w.component("b", "1.37.1", "1.36.0")
		w.expect(10*time.Second, "a")
		w.expect(time.Minute, "a")
		kill()
		w.expect(30*time.Second, "a", "b")
		if s := w.lease().Spec; ptr.Deref(s.LeaseTransitions, -1) != 1 || s.PreferredHolder != nil {
			w.Errorf("the Lease is %+v", s)
		}
		asked := w.candidate("a").Spec.PingTime
		w.expect(time.Hour, "a", "b")
		if again := w.candidate("a").Spec.PingTime; !again.Equal(asked) {
			w.Errorf("the dead is asked again and again, at %v", again)
		}
		w.expect(time.Hour, "a", "b")
		if _, err := w.client.CoordinationV1beta1().LeaseCandidates(namespace).Get(w.Context(), "a", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			w.Errorf("the candidate that nobody renews: %v", err)
		}
	})
}

// A holder gives way to a better candidate, and there is never more than one.
func TestBetterArrives(t *testing.T) {
	live(t, func(w *world) {
		w.component("new", "1.37.0", "1.37.0")
		w.expect(10*time.Second, "new")
		w.component("old", "1.36.0", "1.36.0")
		w.expect(6*time.Second, "new")
		if s := w.lease().Spec; ptr.Deref(s.PreferredHolder, "") != "old" || ptr.Deref(s.HolderIdentity, "") != "new" {
			w.Errorf("the Lease is %+v", s)
		}
		w.expect(40*time.Second, "new", "old")
		w.component("newer", "1.38.0", "1.37.0")
		w.expect(10*time.Minute, "new", "old")
		if s := w.lease().Spec; s.PreferredHolder != nil {
			w.Errorf("the Lease is %+v", s)
		}
	})
}

// A better candidate behind which there is nobody does not disturb the holder; nor one that lapsed long ago.
func TestBetterIsSilent(t *testing.T) {
	live(t, func(w *world) {
		w.component("new", "1.37.0", "1.37.0")
		w.expect(10*time.Second, "new")
		w.put("ghost", "1.36.0", coordinationv1.OldestEmulationVersion)
		w.expect(10*time.Second, "new")
		asked := w.candidate("ghost").Spec.PingTime
		if asked == nil {
			w.Error("the better one was not asked")
		}
		w.expect(10*time.Minute, "new")
		if again := w.candidate("ghost").Spec.PingTime; !again.Equal(asked) {
			w.Errorf("it is asked again and again, at %v", again)
		}
		ghost := w.candidate("ghost")
		ghost.Spec.RenewTime = new(metav1.NowMicro()) // it is there after all
		if _, err := w.client.CoordinationV1beta1().LeaseCandidates(namespace).Update(w.Context(), ghost, metav1.UpdateOptions{}); err != nil {
			w.Fatal(err)
		}
		w.expect(time.Second, "new")
		if again := w.candidate("ghost").Spec.PingTime; again.Equal(asked) {
			w.Error("it renewed itself and was not asked")
		}
	})
}

// While nobody answers, nobody is elected; whoever comes then is, at once.
func TestNobodyAnswers(t *testing.T) {
	live(t, func(w *world) {
		w.put("ghost", "1.36.0", coordinationv1.OldestEmulationVersion)
		w.expect(time.Minute)
		if _, err := w.client.CoordinationV1().Leases(namespace).Get(w.Context(), leaseName, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			w.Errorf("the Lease: %v", err)
		}
		w.component("a", "1.37.0", "1.37.0")
		w.expect(10*time.Second, "a")
	})
}

// A candidate whose clock is ahead is asked in its own time, so that it answers.
func TestClockAhead(t *testing.T) {
	live(t, func(w *world) {
		w.put("ahead", "1.36.0", coordinationv1.OldestEmulationVersion)
		one := w.candidate("ahead")
		one.Spec.RenewTime = new(metav1.NewMicroTime(time.Now().Add(time.Minute)))
		if _, err := w.client.CoordinationV1beta1().LeaseCandidates(namespace).Update(w.Context(), one, metav1.UpdateOptions{}); err != nil {
			w.Fatal(err)
		}
		w.expect(20 * time.Second)
		if s := w.candidate("ahead").Spec; s.PingTime == nil || !s.PingTime.After(s.RenewTime.Time) {
			w.Errorf("it is asked at %v and renewed itself at %v", s.PingTime, s.RenewTime)
		}
	})
}

// Who holds a Lease by the rules of old keeps it; when he has gone a candidate gets it.
func TestUncoordinatedHolder(t *testing.T) {
	live(t, func(w *world) {
		kill := w.elector("classic", false)
		w.expect(5*time.Second, "classic")
		w.component("a", "1.36.0", "1.36.0")
		w.expect(10*time.Minute, "classic")
		if s := w.lease().Spec; s.PreferredHolder != nil || s.Strategy != nil {
			w.Errorf("the Lease is %+v", s)
		}
		kill()
		w.expect(30*time.Second, "classic", "a")
	})
}

// Strategies of others are left to others, and disagreement to those who disagree; the latest version counts.
func TestStrategies(t *testing.T) {
	live(t, func(w *world) {
		w.put("theirs", "1.38.0", "example.com/mine")
		w.component("a", "1.37.0", "1.37.0")
		w.expect(time.Minute)
		if err := w.client.CoordinationV1beta1().LeaseCandidates(namespace).Delete(w.Context(), "theirs", metav1.DeleteOptions{}); err != nil {
			w.Fatal(err)
		}
		w.expect(10*time.Second, "a")
	})
	check := func(want coordinationv1.CoordinatedLeaseStrategy, all ...*candidate) {
		t.Helper()
		if got := strategyOf(all); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	one := func(version string, strategy coordinationv1.CoordinatedLeaseStrategy) *candidate {
		c := &candidate{}
		c.Spec.BinaryVersion, c.Spec.Strategy = version, strategy
		return c
	}
	check("")
	check("x", one("1.36.0", "x"), one("1.36.0", "x"))
	check("y", one("1.36.0", "x"), one("1.37.0", "y"), one("1.36.0", "z"))
	check("", one("1.37.0", "x"), one("1.37.0", "y"), one("1.36.0", "x"))
	check("z", one("1.37.0", "x"), one("1.37.0", "y"), one("1.37.1", "z"))
}

// The oldest is told by emulation, then by binary version, then by age, then by name.
func TestOldest(t *testing.T) {
	one := func(name, emulation, binary string, age int64) *candidate {
		c := &candidate{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.Unix(age, 0)}}
		c.Spec.EmulationVersion, c.Spec.BinaryVersion = emulation, binary
		return c
	}
	none, bad := one("none", "", "1.30.0", 0), one("bad", "1.30.0", "new", 0)
	ordered := []*candidate{
		one("a", "1.9.0", "1.37.0", 9), one("b", "1.36.0", "1.36.0", 8), one("c", "1.36.0", "1.37.0", 6), one("d", "1.36.0", "1.37.0", 7),
		one("e", "1.36.0", "1.37.0", 7), one("f", "1.37.0", "1.37.0", 1),
	}
	for i, want := range ordered {
		rest := append([]*candidate{none, bad}, ordered[i:]...)
		for range rest { // in any order
			rest = append(rest[1:], rest[0])
			if got := oldest(rest); got != want {
				t.Errorf("%v is the oldest, want %s", got, want.Name)
			}
		}
	}
	if got := oldest([]*candidate{none, bad}); got != nil {
		t.Errorf("%v is the oldest of those without versions", got)
	}
}

// Of several servers one coordinates, and another takes over: at once from one that ends, in time from one that vanishes.
func TestServers(t *testing.T) {
	live(t, func(w *world) {
		holder := func() string {
			w.Helper()
			l, err := w.client.CoordinationV1().Leases(lockNamespace).Get(w.Context(), lockName, metav1.GetOptions{})
			if err != nil {
				w.Fatal(err)
			}
			return holderOf(l)
		}
		time.Sleep(time.Second)
		_, stop := w.server("second")
		time.Sleep(10 * time.Minute)
		if holder() != "first" {
			w.Errorf("%s coordinates", holder())
		}
		stop()
		if holder() != "first" {
			w.Errorf("%s coordinates after the end of another", holder())
		}
		_, stop = w.server("third")
		w.component("a", "1.37.0", "1.37.0")
		w.expect(10*time.Second, "a")
		seize(w, "vanished") // a server that is not there
		time.Sleep(lockTerm / 2)
		if holder() != "vanished" {
			w.Errorf("%s coordinates before the time is up", holder())
		}
		time.Sleep(lockTerm)
		if h := holder(); h != "first" && h != "third" {
			w.Errorf("%q coordinates after the time was up", h)
		}
		w.component("b", "1.36.0", "1.36.0")
		w.expect(time.Minute, "a", "b")
		stop()
		time.Sleep(2 * lockRenewal)
		if holder() != "first" {
			w.Errorf("%q coordinates after the end of the third", holder())
		}
	})
}

// seize gives the lock to somebody.
func seize(w *world, name string) {
	l, err := w.client.CoordinationV1().Leases(lockNamespace).Get(w.Context(), lockName, metav1.GetOptions{})
	if err != nil {
		w.Fatal(err)
	}
	l.Spec.HolderIdentity, l.Spec.RenewTime = &name, new(metav1.NowMicro())
	if _, err := w.client.CoordinationV1().Leases(lockNamespace).Update(w.Context(), l, metav1.UpdateOptions{}); err != nil {
		w.Fatal(err)
	}
}
