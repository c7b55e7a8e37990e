package feature

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestGates(t *testing.T) {
	check := func(flags, gate string, want bool) {
		t.Helper()
		g, err := ParseGates(strings.Split(flags, " "))
		if err != nil {
			t.Errorf("%q: %v", flags, err)
		} else if got := g.Enabled(gate); got != want {
			t.Errorf("%q: %s is %v", flags, gate, got)
		}
	}
	check("", "APIServerIdentity", true)
	check("", "CBORServingAndStorage", false)
	check("CBORServingAndStorage=true", "CBORServingAndStorage", true)
	check("kube:CBORServingAndStorage=true,APIServerIdentity=false", "APIServerIdentity", false)
	check("CBORServingAndStorage=true CBORServingAndStorage=false", "CBORServingAndStorage", false) // the last one counts
	check("AllAlpha=true", "CompositePodGroup", true)
	check("AllAlpha=true", "GenericWorkload", false) // beta
	check("AllAlpha=true,CompositePodGroup=false", "CompositePodGroup", false)
	check("CompositePodGroup=false,AllAlpha=true", "CompositePodGroup", false) // in any order
	check("AllBeta=true", "GenericWorkload", true)
	check("AllBeta=false", "APIServerIdentity", false)
	check("AllBeta=false", "ClusterTrustBundle", true) // GA
	check("JobManagedBy=true", "JobManagedBy", true)   // locked, to this
}

func TestGatesRefuse(t *testing.T) {
	check := func(flag, want string) {
		t.Helper()
		if _, err := ParseGates([]string{flag}); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", flag, err, want)
		}
	}
	check("Nonsense=true", "unrecognized feature gate: Nonsense")
	check("JobManagedBy=false", "cannot set feature gate JobManagedBy to false, feature is locked to true")
	check("CBORServingAndStorage", "missing bool value for CBORServingAndStorage")
	check("CBORServingAndStorage=maybe", `invalid value of CBORServingAndStorage=maybe, err: strconv.ParseBool: parsing "maybe": invalid syntax`)
	check("moon:CBORServingAndStorage=true", "component not registered: moon")
}

// What is set and changes nothing is told apart from what does.
func TestIdleGates(t *testing.T) {
	g, err := ParseGates([]string{"AllAlpha=true,CBORServingAndStorage=true,AtomicFIFO=false,APIServerIdentity=true"})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(g.Idle()); got != "[AtomicFIFO]" {
		t.Errorf("idle are %s", got)
	}
	for name := range implemented {
		g.Enabled(name) // panics when there is no such gate
	}
	on := 0
	for gate, enabled := range g.All() {
		if gate.Name == "AtomicFIFO" && (enabled || gate.Stage != "BETA") {
			t.Errorf("%v is %v", gate, enabled)
		}
		on++
	}
	if on != strings.Count(gatesText, "\n") {
		t.Errorf("%d gates are listed", on)
	}
}

func has(gv schema.GroupVersion) bool {
	versions := map[string][]string{"": {"", "v1"}, "apps": {"", "v1"}, "resource.k8s.io": {"", "v1", "v1beta1", "v1alpha3"}}
	return slices.Contains(versions[gv.Group], gv.Version)
}

func parse(flag string) (APIs, error) {
	var p Pairs
	if err := p.Set(flag); err != nil {
		return APIs{}, err
	}
	return ParseAPIs(p, has)
}

func TestAPIs(t *testing.T) {
	check := func(flag, group, version, resource string, want bool) {
		t.Helper()
		a, err := parse(flag)
		if err != nil {
			t.Errorf("%q: %v", flag, err)
		} else if got := a.Serves(schema.GroupVersionResource{Group: group, Version: version, Resource: resource}); got != want {
			t.Errorf("%q: %s/%s/%s is served: %v", flag, group, version, resource, got)
		}
	}
	check("", "apps", "v1", "deployments", true)
	check("", "autoscaling", "v2", "horizontalpodautoscalers", true)
	check("", "resource.k8s.io", "v1beta1", "deviceclasses", false)
	check("resource.k8s.io/v1beta1=true", "resource.k8s.io", "v1beta1", "deviceclasses", true)
	check("resource.k8s.io/v1beta1=true", "resource.k8s.io", "v1alpha3", "deviceclasses", false)
	check("api/all=true", "resource.k8s.io", "v1alpha3", "deviceclasses", true)
	check("api/beta=true", "resource.k8s.io", "v1alpha3", "deviceclasses", false)
	check("api/beta=true", "resource.k8s.io", "v1beta1", "deviceclasses", true)
	check("api/alpha=true,api/all=false,v1=true", "resource.k8s.io", "v1alpha3", "deviceclasses", true) // the narrower key counts
	check("api/all=true,resource.k8s.io/v1alpha3=false", "resource.k8s.io", "v1alpha3", "deviceclasses", false)
	check("api/all=false,api/ga=true", "apps", "v1", "deployments", true)
	check("api/v1=true,apps/v1=false", "apps", "v1", "deployments", false)
	check("apps/v1/deployments=false", "apps", "v1", "deployments", false)
	check("apps/v1/deployments=false", "apps", "v1", "daemonsets", true)
	check("apps/v1=false,apps/v1/deployments=true", "apps", "v1", "deployments", true)
}

func TestAPIsRefuse(t *testing.T) {
	check := func(flag, want string) {
		t.Helper()
		if _, err := parse(flag); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", flag, err, want)
		}
	}
	check("api/all", "malformed pair, expect string=string")
	check("api/all=", "invalid value api/all=")
	check("apps/v1=perhaps", "invalid value apps/v1=perhaps")
	check("api/all=false", "invalid key with only api/all=false")
	check("moon/v1=true,sun/v1=true", "unknown api groups moon,sun")
	check("apps/v7=true", "group version apps/v7 that has not been registered")
	check("apps=true", "runtime-config invalid key apps")
}

// Whatever stands behind a flag, it is read or refused.
func FuzzFlags(f *testing.F) {
	f.Add("api/all=true,kube:AllAlpha=true")
	f.Add("apps/v1/x=false,=,/=/")
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = ParseGates([]string{text})
		a, err := parse(text)
		if err == nil {
			a.Serves(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"})
		}
	})
}
