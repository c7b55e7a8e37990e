package object

import (
	"math/rand/v2"
	"strings"
	"testing"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// forms are the forms of names, with what apimachinery has against a name.
var forms = []struct {
	name  string
	is    func(string) bool
	wrong func(string) []string
}{
	{"DNS label", IsDNSLabel, validation.IsDNS1123Label},
	{"DNS subdomain", IsDNSSubdomain, validation.IsDNS1123Subdomain},
	{"label key", IsLabelKey, validation.IsQualifiedName},
	{"label value", IsLabelValue, validation.IsValidLabelValue},
}

func checkForms(t *testing.T, s string) {
	for _, f := range forms {
		if wrong := f.wrong(s); f.is(s) != (len(wrong) == 0) {
			t.Errorf("%q is a %s: %v, but what is wrong with it is %q", s, f.name, f.is(s), wrong)
		}
	}
}

func TestForms(t *testing.T) {
	for _, s := range []string{
		"", "a", "A", "0", "-", ".", "_", "/", "a-", "-a", "a.b", "a..b", "a.-b", "a-.b", "a.b-", ".a", "a.", "a_b", "a/b", "a/", "/b", "a/b/c", "A/b", "a/B", "a.b/c_d",
		"a\n", "\na", "ä", "aäb", "K", "a b", "example.com/some-name", "x--y", "a.b.c.d", "kubernetes.io/metadata.name",
	} {
		checkForms(t, s)
	}
	for _, n := range []int{62, 63, 64, 252, 253, 254} {
		long := strings.Repeat("a", n)
		checkForms(t, long)
		checkForms(t, long+"/a")
		checkForms(t, "a/"+long)
		checkForms(t, strings.Repeat("a.", n/2)+"a")
		checkForms(t, strings.Repeat("a.", n/2)+"a/a")
	}
	for range 50_000 {
		b := make([]byte, rand.IntN(8))
		for i := range b {
			b[i] = "aaAz09-._/ \n\xc3\xa4"[rand.IntN(14)]
		}
		checkForms(t, string(b))
	}
}

func FuzzForms(f *testing.F) {
	f.Add("example.com/a-b_c.D")
	f.Fuzz(func(t *testing.T, s string) { checkForms(t, s) })
}

// What is fine has nothing wrong with it, and what clients send as a rule is fine.
func TestFineMetadata(t *testing.T) {
	rand := rand.New(rand.NewPCG(1, 2))
	one := func(all ...string) string { return all[rand.IntN(len(all))] }
	fine, wrong := 0, 0
	for range 20_000 {
		o := &metav1.ObjectMeta{}
		key := func() string {
			return one("app", "a.b/c", "Example.com/name", "a/b/c", "", "-", "ä", strings.Repeat("k", 64), "app", "x")
		}
		for range rand.IntN(3) {
			metav1.SetMetaDataLabel(o, key(), one("", "web", "a b", "x_y", strings.Repeat("v", 64)))
			metav1.SetMetaDataAnnotation(o, key(), one("", "any thing", strings.Repeat("v", 130<<10)))
		}
		for range rand.IntN(3) {
			o.OwnerReferences = append(o.OwnerReferences, metav1.OwnerReference{
				APIVersion: one("v1", "apps/v1", "apps/v1", "", "/v1", "a/", "a/b/c", "/"), Kind: one("Pod", "Event", "ReplicaSet", ""), Name: one("n", "n", ""), UID: types.UID(one("u", "u", "")),
				Controller: []*bool{nil, ptr.To(true), ptr.To(false)}[rand.IntN(3)],
			})
		}
		for range rand.IntN(3) {
			o.ManagedFields = append(o.ManagedFields, metav1.ManagedFieldsEntry{
				Operation: metav1.ManagedFieldsOperationType(one("Apply", "Update", "", "Other")), FieldsType: one("FieldsV1", "", "FieldsV2"),
				Manager: one("kubectl", "", "a b", "tab\t", "ä", "\x7f", strings.Repeat("m", 128), strings.Repeat("m", 129)), Subresource: one("", "status", strings.Repeat("s", 257)),
			})
		}
		path := field.NewPath("metadata")
		errs := metavalidation.ValidateLabels(o.Labels, path)
		errs = append(errs, apivalidation.ValidateAnnotations(o.Annotations, path)...)
		errs = append(errs, apivalidation.ValidateOwnerReferences(o.OwnerReferences, path)...)
		errs = append(errs, metavalidation.ValidateManagedFields(o.ManagedFields, path)...)
		switch is := FineMetadata(o); {
		case is && len(errs) > 0:
			t.Fatalf("%v is fine, but %v", o, errs)
		case is:
			fine++
		case len(errs) > 0:
			wrong++
		}
	}
	if fine < 1000 || wrong < 1000 {
		t.Errorf("the test tests little: %d were fine, %d wrong", fine, wrong)
	}
	if o := (&metav1.ObjectMeta{
		Labels: map[string]string{"app.kubernetes.io/name": "web"}, Annotations: map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{}\n"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "u", Controller: ptr.To(true)}},
		ManagedFields:   []metav1.ManagedFieldsEntry{{Operation: "Update", Manager: "kube-controller-manager", FieldsType: "FieldsV1", Subresource: "status"}},
	}); !FineMetadata(o) {
		t.Error("what is ordinary is not fine")
	}
}
