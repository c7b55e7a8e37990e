package object

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The forms of names, told in one look at each byte: nearly all names have them. What is wrong with one that has not, apimachinery's
// validation says, with regular expressions. Invariant: a name has a form here if and only if nothing is wrong with it there.

// Bytes of names, as sets.
const (
	lower    = 1 << iota // a to z, 0 to 9
	upper                // A to Z
	dash                 // -
	dot                  // .
	underbar             // _
)

var byteKinds = func() (kinds [256]uint8) {
	for c := byte('a'); c <= 'z'; c++ {
		kinds[c], kinds[c-'a'+'A'] = lower, upper
	}
	for c := byte('0'); c <= '9'; c++ {
		kinds[c] = lower
	}
	kinds['-'], kinds['.'], kinds['_'] = dash, dot, underbar
	return kinds
}()

// spelled reports whether s has at least one and at most longest bytes, begins and ends with one of the ends, and has besides only those and some others.
func spelled(s string, longest int, ends, others uint8) bool {
	if s == "" || len(s) > longest || byteKinds[s[0]]&ends == 0 || byteKinds[s[len(s)-1]]&ends == 0 {
		return false
	}
	for i := range len(s) {
		if byteKinds[s[i]]&(ends|others) == 0 {
			return false
		}
	}
	return true
}

// IsDNSLabel reports whether s is a DNS label in lower case (RFC 1123).
func IsDNSLabel(s string) bool { return spelled(s, 63, lower, dash) }

// IsDNSSubdomain reports whether s is a DNS subdomain in lower case (RFC 1123).
func IsDNSSubdomain(s string) bool {
	if !spelled(s, 253, lower, dash|dot) {
		return false
	}
	for i := 1; i < len(s)-1; i++ { // each part begins and ends with a letter or digit
		if s[i] == '.' && (byteKinds[s[i-1]] != lower || byteKinds[s[i+1]] != lower) {
			return false
		}
	}
	return true
}

// IsLabelKey reports whether s can be the key of a label: a name, with or without a prefix that is a DNS subdomain.
func IsLabelKey(s string) bool {
	if prefix, name, found := strings.Cut(s, "/"); found {
		return IsDNSSubdomain(prefix) && isLabelName(name)
	}
	return isLabelName(s)
}

func isLabelName(s string) bool { return spelled(s, 63, lower|upper, dash|dot|underbar) }

// IsLabelValue reports whether s can be the value of a label.
func IsLabelValue(s string) bool { return s == "" || isLabelName(s) }

// Bounds of metadata, which are those of apimachinery's validation.
const (
	maxAnnotations = 256 << 10 // bytes of keys and values together
	maxManager     = 128
	maxSubresource = 256
)

// FineMetadata reports whether nothing is wrong with the labels, annotations, owners and managed fields of an object. false: something may be.
func FineMetadata(o metav1.Object) bool {
	for k, v := range o.GetLabels() {
		if !IsLabelKey(k) || !IsLabelValue(v) {
			return false
		}
	}
	size := 0
	for k, v := range o.GetAnnotations() {
		if size += len(k) + len(v); size > maxAnnotations || !IsLabelKey(k) { // the prefix may be in upper case
			return false
		}
	}
	return fineOwners(o.GetOwnerReferences()) && fineManagers(o.GetManagedFields())
}

func fineOwners(owners []metav1.OwnerReference) bool {
	controllers := 0
	for i := range owners {
		r := &owners[i]
		group, version, grouped := strings.Cut(r.APIVersion, "/")
		if group == "" || grouped && (version == "" || strings.Contains(version, "/")) || r.Kind == "" || r.Kind == "Event" || r.Name == "" || r.UID == "" {
			return false
		}
		if r.Controller != nil && *r.Controller {
			controllers++
		}
	}
	return controllers <= 1
}

func fineManagers(entries []metav1.ManagedFieldsEntry) bool {
	for i := range entries {
		e := &entries[i]
		if e.Operation != metav1.ManagedFieldsOperationApply && e.Operation != metav1.ManagedFieldsOperationUpdate ||
			e.FieldsType != "" && e.FieldsType != "FieldsV1" || len(e.Manager) > maxManager || len(e.Subresource) > maxSubresource {
			return false
		}
		for j := range len(e.Manager) {
			if c := e.Manager[j]; c < ' ' || c > '~' {
				return false
			}
		}
	}
	return true
}
