package apiserverinternal

import (
	internalv1alpha1 "k8s.io/api/apiserverinternal/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Agree makes a status say whether its servers encode in the same version, and in which: after one was added, changed or taken away.
func Agree(s *internalv1alpha1.StorageVersionStatus, now metav1.Time) {
	s.CommonEncodingVersion = nil
	condition := internalv1alpha1.StorageVersionCondition{
		Type: internalv1alpha1.AllEncodingVersionsEqual, Status: internalv1alpha1.ConditionFalse, LastTransitionTime: now,
		Reason: "CommonEncodingVersionUnset", Message: "Common encoding version unset",
	}
	if common, agreed := commonVersion(s); agreed {
		s.CommonEncodingVersion = &common
		condition.Status, condition.Reason, condition.Message = internalv1alpha1.ConditionTrue, "CommonEncodingVersionSet", "Common encoding version set"
	}
	for i, have := range s.Conditions {
		if have.Type != condition.Type {
			continue
		}
		if have.Status != condition.Status {
			s.Conditions[i] = condition
		}
		return
	}
	s.Conditions = append(s.Conditions, condition)
}

// commonVersion is the version that all servers encode in, if there is one.
func commonVersion(s *internalv1alpha1.StorageVersionStatus) (common string, agreed bool) {
	for i, server := range s.StorageVersions {
		if i == 0 {
			common = server.EncodingVersion
		} else if server.EncodingVersion != common {
			return "", false
		}
	}
	return common, len(s.StorageVersions) > 0
}
