package crd

import (
	"fmt"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// selectablePaths are the paths that any version can be selected by: all versions share what the watch
// cache keeps beside an object.
func selectablePaths(versions []apiextensions.CustomResourceDefinitionVersion) []string {
	var paths []string
	for _, v := range versions {
		for _, f := range v.SelectableFields {
			paths = append(paths, strings.TrimPrefix(f.JSONPath, "."))
		}
	}
	slices.Sort(paths)
	return slices.Compact(paths)
}

// selectableFields are the fields of one version: those of others have no label.
func selectableFields(paths []string, own []apiextensions.SelectableField) []kind.Field {
	var fields []kind.Field
	for _, path := range paths {
		f := kind.Field{Path: path}
		if slices.ContainsFunc(own, func(s apiextensions.SelectableField) bool { return strings.TrimPrefix(s.JSONPath, ".") == path }) {
			f.Label = path
		}
		fields = append(fields, f)
	}
	return fields
}

// scale maps a custom resource to Scale by the paths of its definition.
func scale(s *apiextensions.CustomResourceSubresourceScale) *kind.Scale {
	split := func(path string) []string { return strings.Split(strings.TrimPrefix(path, "."), ".") }
	specPath, statusPath := split(s.SpecReplicasPath), split(s.StatusReplicasPath)
	return &kind.Scale{
		ReplicasPath: specPath,
		Get: func(obj object.Object) (spec, status int32, selector string, err error) {
			t := tree(obj)
			want, found, err := unstructured.NestedInt64(t, specPath...)
			if err != nil {
				return 0, 0, "", err
			}
			if !found {
				return 0, 0, "", fmt.Errorf("the spec replicas field %q does not exist", s.SpecReplicasPath)
			}
			have, _, err := unstructured.NestedInt64(t, statusPath...)
			if err != nil {
				return 0, 0, "", err
			}
			if s.LabelSelectorPath != nil && *s.LabelSelectorPath != "" {
				if selector, _, err = unstructured.NestedString(t, split(*s.LabelSelectorPath)...); err != nil {
					return 0, 0, "", err
				}
			}
			return int32(want), int32(have), selector, nil
		},
		Set: func(obj object.Object, replicas int32) error {
			return unstructured.SetNestedField(tree(obj), int64(replicas), specPath...)
		},
	}
}
