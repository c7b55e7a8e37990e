package apiserverinternal

import (
	"strings"
	"testing"
	"time"

	internalv1alpha1 "k8s.io/api/apiserverinternal/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// What is agreed follows from the servers, is valid, and the time of the condition is that of its last change.
func TestAgree(t *testing.T) {
	var s internalv1alpha1.StorageVersionStatus
	now := time.Unix(0, 0)
	check := func(servers, common string, changed bool) {
		t.Helper()
		before := now
		if len(s.Conditions) > 0 {
			before = s.Conditions[0].LastTransitionTime.Time
		}
		now = now.Add(time.Minute)
		s.StorageVersions = nil
		for v := range strings.FieldsSeq(servers) {
			name, version, _ := strings.Cut(v, "=")
			s.StorageVersions = append(s.StorageVersions, internalv1alpha1.ServerStorageVersion{APIServerID: name, EncodingVersion: version, DecodableVersions: []string{version}})
		}
		Agree(&s, metav1.NewTime(now))
		if errs := validateStatus(&s); len(errs) > 0 {
			t.Errorf("%s: %v", servers, errs)
		}
		if got := ptr.Deref(s.CommonEncodingVersion, ""); got != common || len(s.Conditions) != 1 || (s.Conditions[0].Status == internalv1alpha1.ConditionTrue) != (common != "") {
			t.Errorf("%s: %q, %+v", servers, got, s.Conditions)
		}
		if at := s.Conditions[0].LastTransitionTime.Time; at.Equal(now) != changed || !changed && !at.Equal(before) {
			t.Errorf("%s: the condition is of %v, it is %v", servers, at, now)
		}
	}
	check("a=v1", "v1", true)
	check("a=v1 b=v1", "v1", false)
	check("a=v1 b=v1 c=v2", "", true)
	check("a=v1 b=v2 c=v1", "", false)
	check("a=apps/v2", "apps/v2", true)
	check("", "", true)
}
