package core

import (
	"fmt"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/podspec"
	"github.com/timonel/timonel/internal/kind"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// LimitRange bounds what single pods, containers and claims of a namespace can ask for; the plug-in LimitRanger applies it.
func limitRange() *kind.Definition {
	return &kind.Definition{
		Version: "v1", Kind: "LimitRange", Plural: "limitranges", ShortNames: []string{"limits"},
		Scope: kind.Namespaced, Verbs: kind.Standard, CreateOnPut: true,
		New:     kind.Of[corev1.LimitRange](),
		Default: kind.Default(defaultLimitRange),
		PrepareCreate: kind.Prepare(func(l *corev1.LimitRange) {
			if l.Name == "" {
				l.Name = string(uuid.NewUUID())
			}
		}),
		Validate: kind.Validate(validateLimitRange),
	}
}

// defaultLimitRange completes the limits of containers: a default from the maximum, a default request from the default, else from
// the minimum.
func defaultLimitRange(l *corev1.LimitRange) {
	for i := range l.Spec.Limits {
		item := &l.Spec.Limits[i]
		for _, list := range []corev1.ResourceList{item.Max, item.Min, item.Default, item.DefaultRequest, item.MaxLimitRequestRatio} {
			podspec.RoundUp(list)
		}
		if item.Type != corev1.LimitTypeContainer {
			continue
		}
		fill(&item.Default, item.Max)
		fill(&item.DefaultRequest, item.Default)
		fill(&item.DefaultRequest, item.Min)
	}
}

func fill(to *corev1.ResourceList, from corev1.ResourceList) {
	for name, q := range from {
		if _, found := (*to)[name]; !found {
			if *to == nil {
				*to = corev1.ResourceList{}
			}
			(*to)[name] = q.DeepCopy()
		}
	}
}

func validateLimitRange(l *corev1.LimitRange) field.ErrorList {
	var errs field.ErrorList
	seen := map[corev1.LimitType]bool{}
	for i := range l.Spec.Limits {
		item, at := &l.Spec.Limits[i], field.NewPath("spec", "limits").Index(i)
		errs = append(errs, validateLimitType(item.Type, at.Child("type"))...)
		if seen[item.Type] {
			errs = append(errs, field.Duplicate(at.Child("type"), item.Type))
		}
		seen[item.Type] = true
		errs = append(errs, validateLimits(item, at)...)
	}
	return errs
}

func validateLimitType(t corev1.LimitType, at *field.Path) field.ErrorList {
	if errs := check.Each(at, t, validation.IsQualifiedName(string(t))); errs != nil {
		return errs
	}
	known := []corev1.LimitType{corev1.LimitTypePod, corev1.LimitTypeContainer, corev1.LimitTypePersistentVolumeClaim}
	if !strings.Contains(string(t), "/") && !slices.Contains(known, t) {
		return field.ErrorList{field.Invalid(at, t, "must be a standard limit type or fully qualified")}
	}
	return nil
}

func validateLimits(item *corev1.LimitRangeItem, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	names := map[corev1.ResourceName]bool{}
	see := func(list corev1.ResourceList, name string) {
		for _, k := range check.Sorted(list) {
			errs = append(errs, limitResourceName(item.Type, k, at.Child(name).Key(string(k)))...)
			names[k] = true
		}
	}
	see(item.Max, "max")
	see(item.Min, "min")
	if item.Type == corev1.LimitTypePod {
		if len(item.Default) > 0 {
			errs = append(errs, field.Forbidden(at.Child("default"), "may not be specified when `type` is 'Pod'"))
		}
		if len(item.DefaultRequest) > 0 {
			errs = append(errs, field.Forbidden(at.Child("defaultRequest"), "may not be specified when `type` is 'Pod'"))
		}
	} else {
		see(item.Default, "default")
		see(item.DefaultRequest, "defaultRequest")
	}
	if item.Type == corev1.LimitTypePersistentVolumeClaim {
		_, min := item.Min[corev1.ResourceStorage]
		_, max := item.Max[corev1.ResourceStorage]
		if !min && !max {
			errs = append(errs, field.Required(at.Child("limits"), "either minimum or maximum storage value is required, but neither was provided"))
		}
	}
	see(item.MaxLimitRequestRatio, "maxLimitRequestRatio")
	for _, k := range check.Sorted(names) {
		errs = append(errs, compareLimits(item, k, at)...)
	}
	return errs
}

func limitResourceName(t corev1.LimitType, name corev1.ResourceName, at *field.Path) field.ErrorList {
	if t == corev1.LimitTypePod || t == corev1.LimitTypeContainer {
		return check.ContainerResourceName(name, at)
	}
	return check.ResourceName(name, at)
}

// compareLimits wants min <= default request <= default <= max. Parity: which of the two values an answer quotes
// differs from case to case.
func compareLimits(item *corev1.LimitRangeItem, k corev1.ResourceName, at *field.Path) field.ErrorList {
	min, hasMin := item.Min[k]
	max, hasMax := item.Max[k]
	def, hasDef := item.Default[k]
	req, hasReq := item.DefaultRequest[k]
	ratio, hasRatio := item.MaxLimitRequestRatio[k]
	var errs field.ErrorList
	say := func(name, value, format string, args ...any) {
		errs = append(errs, field.Invalid(at.Child(name).Key(string(k)), value, fmt.Sprintf(format, args...)))
	}
	text := func(q resource.Quantity) string { return q.String() }
	if hasMin && hasMax && min.Cmp(max) > 0 {
		say("min", text(min), "min value %s is greater than max value %s", text(min), text(max))
	}
	if hasReq && hasMin && min.Cmp(req) > 0 {
		say("defaultRequest", text(req), "min value %s is greater than default request value %s", text(min), text(req))
	}
	if hasReq && hasMax && req.Cmp(max) > 0 {
		say("defaultRequest", text(req), "default request value %s is greater than max value %s", text(req), text(max))
	}
	if hasReq && hasDef && req.Cmp(def) > 0 {
		say("defaultRequest", text(req), "default request value %s is greater than default limit value %s", text(req), text(def))
	}
	if hasDef && hasMin && min.Cmp(def) > 0 {
		say("default", text(min), "min value %s is greater than default value %s", text(min), text(def))
	}
	if hasDef && hasMax && def.Cmp(max) > 0 {
		say("default", text(max), "default value %s is greater than max value %s", text(def), text(max))
	}
	if hasRatio && ratio.Cmp(*resource.NewQuantity(1, resource.DecimalSI)) < 0 {
		say("maxLimitRequestRatio", text(ratio), "ratio %s is less than 1", text(ratio))
	}
	if hasRatio && hasMin && hasMax && !min.IsZero() {
		if most := max.AsApproximateFloat64() / min.AsApproximateFloat64(); ratio.AsApproximateFloat64() > most {
			say("maxLimitRequestRatio", text(ratio), "ratio %s is greater than max/min = %f", text(ratio), most)
		}
	}
	if !check.Overcommittable(k) && hasDef && hasReq && def.Cmp(req) != 0 {
		say("defaultRequest", text(req), "default value %s must equal to defaultRequest value %s in %s", text(def), text(req), k)
	}
	return errs
}
