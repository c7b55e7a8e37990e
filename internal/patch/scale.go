package patch

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// ScalePaths say by apiVersion where a scalable kind has its number of replicas,
// for instance {"apps/v1": {"spec", "replicas"}}. A version of a custom resource without scale has nil.
type ScalePaths map[string][]string

// ToScale returns the managedFields that the Scale of an object has: those of
// the managers who own its number of replicas.
func (p ScalePaths) ToScale(parent []metav1.ManagedFieldsEntry, apiVersion string) ([]metav1.ManagedFieldsEntry, error) {
	h, err := p.handler(parent, apiVersion)
	if err != nil {
		return nil, err
	}
	return h.ToSubresource()
}

// FromScale returns the managedFields of the object after its Scale was written:
// parent are those before, scale those of the written Scale, apiVersion the object's.
func (p ScalePaths) FromScale(parent, scale []metav1.ManagedFieldsEntry, apiVersion string) ([]metav1.ManagedFieldsEntry, error) {
	h, err := p.handler(parent, apiVersion)
	if err != nil {
		return nil, err
	}
	return h.ToParent(scale)
}

func (p ScalePaths) handler(parent []metav1.ManagedFieldsEntry, apiVersion string) (*managedfields.ScaleHandler, error) {
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		return nil, fmt.Errorf("owners of a scale: %w", err)
	}
	mappings := managedfields.ResourcePathMappings{}
	for version, path := range p {
		var elements fieldpath.Path
		for _, name := range path {
			elements = append(elements, fieldpath.FieldNameElement(name))
		}
		mappings[version] = elements
	}
	return managedfields.NewScaleHandler(parent, gv, mappings), nil
}
