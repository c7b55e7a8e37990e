package core

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// ConfigMap is configuration for pods to read, as keys and values.
func configMap() *kind.Definition {
	return &kind.Definition{
		Version: "v1", Kind: "ConfigMap", Plural: "configmaps", ShortNames: []string{"cm"},
		Scope: kind.Namespaced, Verbs: kind.Standard,
		New:            kind.Of[corev1.ConfigMap](),
		Validate:       kind.Validate(validateConfigMap),
		ValidateUpdate: kind.ValidateUpdate(validateConfigMapUpdate),
		Columns: kind.Columns{
			{Name: "Data", Description: corev1.ConfigMap{}.SwaggerDoc()["data"], Of: kind.Cell(func(c *corev1.ConfigMap) any {
				return int64(len(c.Data) + len(c.BinaryData))
			})},
			kind.Age,
		},
		ColumnFields: []string{"data.key", "binaryData.key"},
	}
}

func validateConfigMap(c *corev1.ConfigMap) field.ErrorList {
	var errs field.ErrorList
	data, binary := field.NewPath("data"), field.NewPath("binaryData")
	size := 0
	for _, k := range check.Sorted(c.Data) {
		errs = append(errs, check.Each(data.Key(k), k, validation.IsConfigMapKey(k))...)
		if _, twice := c.BinaryData[k]; twice {
			errs = append(errs, field.Invalid(data.Key(k), k, "duplicate of key present in binaryData"))
		}
		size += len(c.Data[k])
	}
	for _, k := range check.Sorted(c.BinaryData) {
		errs = append(errs, check.Each(binary.Key(k), k, validation.IsConfigMapKey(k))...)
		size += len(c.BinaryData[k])
	}
	if size > corev1.MaxSecretSize {
		errs = append(errs, field.TooLong(field.NewPath(""), "", corev1.MaxSecretSize))
	}
	return errs
}

func validateConfigMapUpdate(c, old *corev1.ConfigMap) field.ErrorList {
	var errs field.ErrorList
	if ptr.Deref(old.Immutable, false) {
		errs = append(errs, keepImmutable(c.Immutable)...)
		errs = append(errs, keepWhenImmutable(c.Data, old.Data, field.NewPath("data"))...)
		errs = append(errs, keepWhenImmutable(c.BinaryData, old.BinaryData, field.NewPath("binaryData"))...)
	}
	return append(errs, validateConfigMap(c)...)
}

const immutableText = "field is immutable when `immutable` is set"

// keepImmutable wants that an immutable ConfigMap or Secret stays so.
func keepImmutable(immutable *bool) field.ErrorList {
	if ptr.Deref(immutable, false) {
		return nil
	}
	return field.ErrorList{field.Forbidden(field.NewPath("immutable"), immutableText)}
}

func keepWhenImmutable[M any](value, old M, path *field.Path) field.ErrorList {
	if equality.Semantic.DeepEqual(value, old) {
		return nil
	}
	return field.ErrorList{field.Forbidden(path, immutableText)}
}
