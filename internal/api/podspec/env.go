package podspec

import (
	"fmt"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	textOneField = "may not have more than one field specified at a time"

	labelsField      = "metadata.labels"
	annotationsField = "metadata.annotations"
)

// The fields of its own pod that a container can be told (Kubernetes documentation, "Downward API"): in
// variables, in files; and all that the name of a field is recognised as.
var (
	envFields = []string{"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName",
		"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"}
	fileFields = []string{annotationsField, labelsField, "metadata.name", "metadata.namespace", "metadata.uid"}
	podFields  = append([]string{annotationsField, labelsField, "spec.restartPolicy", "spec.schedulerName", "spec.host", "status.phase"}, envFields...)

	containerResources = []string{"limits.cpu", "limits.ephemeral-storage", "limits.memory",
		"requests.cpu", "requests.ephemeral-storage", "requests.memory"}
)

func (c *checker) checkEnv(env []corev1.EnvVar, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, e := range env {
		at := path.Index(i)
		errs = append(errs, check.RequiredForm(e.Name, at.Child("name"), validation.IsRelaxedEnvVarName)...)
		if e.ValueFrom != nil {
			errs = append(errs, c.checkEnvSource(&e, at.Child("valueFrom"))...)
		}
	}
	return errs
}

func (c *checker) checkEnvSource(e *corev1.EnvVar, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	sources := 0
	s := e.ValueFrom
	if s.FieldRef != nil {
		sources++
		errs = append(errs, checkFieldRef(s.FieldRef, envFields, at.Child("fieldRef"))...)
	}
	if s.ResourceFieldRef != nil {
		sources++
		errs = append(errs, checkResourceRef(s.ResourceFieldRef, false, at.Child("resourceFieldRef"))...)
	}
	if r := s.ConfigMapKeyRef; r != nil {
		sources++
		errs = append(errs, checkKeyRef(r.Name, r.Key, at.Child("configMapKeyRef"))...)
	}
	if r := s.SecretKeyRef; r != nil {
		sources++
		errs = append(errs, checkKeyRef(r.Name, r.Key, at.Child("secretKeyRef"))...)
	}
	if r := s.FileKeyRef; r != nil {
		sources++
		errs = append(errs, c.checkFileRef(r, at.Child("fileKeyRef"))...)
	}
	switch {
	case sources == 0:
		errs = append(errs, field.Invalid(at, "", "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"))
	case e.Value != "":
		errs = append(errs, field.Invalid(at, "", "may not be specified when `value` is not empty"))
	case sources > 1:
		errs = append(errs, field.Invalid(at, "", textOneField))
	}
	return errs
}

func checkKeyRef(name, key string, at *field.Path) field.ErrorList {
	errs := check.Required(name, at.Child("name"))
	return append(errs, check.RequiredForm(key, at.Child("key"), validation.IsConfigMapKey)...)
}

func (c *checker) checkFileRef(r *corev1.FileKeySelector, at *field.Path) field.ErrorList {
	errs := check.RequiredForm(r.Key, at.Child("key"), validation.IsRelaxedEnvVarName)
	if r.Path == "" {
		errs = append(errs, field.Required(at.Child("path"), ""))
	} else {
		errs = append(errs, localPath(r.Path, at.Child("path"))...)
	}
	volume := at.Child("volumeName")
	switch v := c.volumes[r.VolumeName]; {
	case r.VolumeName == "":
		errs = append(errs, field.Required(volume, ""))
	case v == nil:
		errs = append(errs, field.NotFound(volume, r.VolumeName))
	case v.EmptyDir == nil:
		errs = append(errs, field.Invalid(volume, r.VolumeName, "referenced volume must be of type emptyDir"))
	}
	return errs
}

// checkFieldRef checks the name of a field of the pod, or of one label or annotation: metadata.labels['key'].
func checkFieldRef(r *corev1.ObjectFieldSelector, allowed []string, at *field.Path) field.ErrorList {
	path := at.Child("fieldPath")
	if r.APIVersion == "" {
		return field.ErrorList{field.Required(at.Child("apiVersion"), "")}
	}
	if r.FieldPath == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	name, key, subscripted := subscript(r.FieldPath)
	switch {
	case r.APIVersion != "v1":
		return field.ErrorList{field.Invalid(path, r.FieldPath, fmt.Sprintf("error converting fieldPath: unsupported pod version: %s", r.APIVersion))}
	case subscripted && name == labelsField:
		return check.Each(at, key, check.QualifiedName(key))
	case subscripted && name == annotationsField:
		key = strings.ToLower(key)
		return check.Each(at, key, check.QualifiedName(key))
	case subscripted:
		return field.ErrorList{field.Invalid(path, r.FieldPath, "error converting fieldPath: field label does not support subscript: "+r.FieldPath)}
	case !slices.Contains(podFields, name):
		return field.ErrorList{field.Invalid(path, r.FieldPath, "error converting fieldPath: field label not supported: "+r.FieldPath)}
	}
	return check.OneOf(r.FieldPath, path, allowed...)
}

// subscript splits "metadata.labels['key']".
func subscript(path string) (name, key string, ok bool) {
	rest, found := strings.CutSuffix(path, "']")
	if !found {
		return path, "", false
	}
	name, key, found = strings.Cut(rest, "['")
	if !found || name == "" {
		return path, "", false
	}
	return name, key, true
}

func checkResourceRef(r *corev1.ResourceFieldSelector, file bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case file && r.ContainerName == "":
		errs = append(errs, field.Required(at.Child("containerName"), ""))
	case r.Resource == "":
		errs = append(errs, field.Required(at.Child("resource"), ""))
	case !strings.HasPrefix(r.Resource, "limits.hugepages-") && !strings.HasPrefix(r.Resource, "requests.hugepages-"):
		errs = append(errs, check.OneOf(r.Resource, at.Child("resource"), containerResources...)...)
	}
	return append(errs, checkDivisor(r.Resource, r.Divisor, at)...)
}

// sizeUnits are the units in which bytes can be told.
var sizeUnits = []string{"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}

// checkDivisor wants a unit that makes sense for the resource, "limits.memory". Parity: what is quoted is the resource.
func checkDivisor(name string, divisor resource.Quantity, at *field.Path) field.ErrorList {
	if divisor.IsZero() {
		return nil
	}
	_, r, _ := strings.Cut(name, ".")
	units, listed, what := sizeUnits, strings.Join(sizeUnits, ", "), ""
	switch {
	case r == "cpu":
		units, listed, what = []string{"1m", "1"}, "1m and 1", "cpu"
	case r == "memory":
		what = "memory"
	case r == "ephemeral-storage":
		what = "local ephemeral storage"
	case strings.HasPrefix(r, "hugepages-"):
		what = "hugepages"
	}
	if what == "" || slices.Contains(units, divisor.String()) {
		return nil
	}
	return field.ErrorList{field.Invalid(at.Child("divisor"), name, fmt.Sprintf("only divisor's values %s are supported with the %s resource", listed, what))}
}

// checkEnvFrom. Parity: the paths have no index.
func (c *checker) checkEnvFrom(from []corev1.EnvFromSource, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, f := range from {
		errs = append(errs, check.Form(f.Prefix, path.Index(i).Child("prefix"), validation.IsRelaxedEnvVarName)...)
		if f.ConfigMapRef != nil {
			errs = append(errs, check.Required(f.ConfigMapRef.Name, path.Index(i).Child("configMapRef", "name"))...)
		}
		if f.SecretRef != nil {
			errs = append(errs, check.Required(f.SecretRef.Name, path.Index(i).Child("secretRef", "name"))...)
		}
		switch {
		case f.ConfigMapRef == nil && f.SecretRef == nil:
			errs = append(errs, field.Invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"))
		case f.ConfigMapRef != nil && f.SecretRef != nil:
			errs = append(errs, field.Invalid(path, "", textOneField))
		}
	}
	return errs
}
