package apiextensions

import (
	"encoding/json"

	"github.com/timonel/timonel/internal/object"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	kjson "sigs.k8s.io/json"
)

// Definitions are stored as apiextensions.k8s.io/v1beta1, for servers that are older than v1. Its differences:
//
//   - What all versions have in common (schema, subresources, columns, selectable fields) is said once, at the top;
//     else in each version. The schema is called validation there.
//   - spec.version is the name of the first version.
//   - The webhook of the conversion is not a struct of its own.
//   - The path of a column is JSONPath, not jsonPath.
//   - preserveUnknownFields is true when it is not given.
//
// The types below are those of v1beta1, with its order of fields, where it differs. They also read v1, which other writers may have stored.
const storedVersion = apiextensionsv1.GroupName + "/v1beta1"

type storedDefinition struct {
	metav1.TypeMeta   `json:""`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   storedSpec                                     `json:"spec"`
	Status apiextensionsv1.CustomResourceDefinitionStatus `json:"status,omitempty"`
}

type storedSpec struct {
	Group        string                                        `json:"group"`
	Version      string                                        `json:"version,omitempty"`
	Names        apiextensionsv1.CustomResourceDefinitionNames `json:"names"`
	Scope        apiextensionsv1.ResourceScope                 `json:"scope"`
	Validation   *apiextensionsv1.CustomResourceValidation     `json:"validation,omitempty"`
	Subresources *apiextensionsv1.CustomResourceSubresources   `json:"subresources,omitempty"`
	Versions     []storedVersionOf                             `json:"versions,omitempty"`
	Columns      []storedColumn                                `json:"additionalPrinterColumns,omitempty"`
	Selectable   []apiextensionsv1.SelectableField             `json:"selectableFields,omitempty"`
	Conversion   *storedConversion                             `json:"conversion,omitempty"`
	Preserve     *bool                                         `json:"preserveUnknownFields,omitempty"`
}

type storedVersionOf struct {
	Name               string                                      `json:"name"`
	Served             bool                                        `json:"served"`
	Storage            bool                                        `json:"storage"`
	Deprecated         bool                                        `json:"deprecated,omitempty"`
	DeprecationWarning *string                                     `json:"deprecationWarning,omitempty"`
	Schema             *apiextensionsv1.CustomResourceValidation   `json:"schema,omitempty"`
	Subresources       *apiextensionsv1.CustomResourceSubresources `json:"subresources,omitempty"`
	Columns            []storedColumn                              `json:"additionalPrinterColumns,omitempty"`
	Selectable         []apiextensionsv1.SelectableField           `json:"selectableFields,omitempty"`
}

type storedColumn struct {
	Name        string  `json:"name"`
	Type        string  `json:"type"`
	Format      string  `json:"format,omitempty"`
	Description string  `json:"description,omitempty"`
	Priority    int32   `json:"priority,omitempty"`
	Path        string  `json:"JSONPath"`
	PathInV1    *string `json:"jsonPath,omitempty"`
}

type storedConversion struct {
	Strategy       apiextensionsv1.ConversionStrategyType `json:"strategy"`
	ClientConfig   *apiextensionsv1.WebhookClientConfig   `json:"webhookClientConfig,omitempty"`
	ReviewVersions []string                               `json:"conversionReviewVersions,omitempty"`
	WebhookInV1    *apiextensionsv1.WebhookConversion     `json:"webhook,omitempty"`
}

func newStored() any { return &storedDefinition{} }

func toStored(obj object.Object) (any, error) {
	d := obj.(*apiextensionsv1.CustomResourceDefinition)
	spec := &d.Spec
	s := &storedDefinition{
		TypeMeta: metav1.TypeMeta{Kind: "CustomResourceDefinition", APIVersion: storedVersion}, ObjectMeta: d.ObjectMeta, Status: d.Status,
		Spec: storedSpec{
			Group: spec.Group, Names: spec.Names, Scope: spec.Scope, Conversion: storedConversionOf(spec.Conversion), Preserve: &spec.PreserveUnknownFields,
		},
	}
	for i := range spec.Versions {
		v := &spec.Versions[i]
		s.Spec.Versions = append(s.Spec.Versions, storedVersionOf{
			Name: v.Name, Served: v.Served, Storage: v.Storage, Deprecated: v.Deprecated, DeprecationWarning: v.DeprecationWarning,
			Schema: v.Schema, Subresources: v.Subresources, Columns: storedColumns(v.AdditionalPrinterColumns), Selectable: v.SelectableFields,
		})
	}
	s.Spec.share()
	return s, nil
}

// share moves what all versions have to the top.
func (s *storedSpec) share() {
	versions := s.Versions
	if len(versions) == 0 {
		return
	}
	first := versions[0]
	s.Version = first.Name
	if first.Schema != nil && all(versions, func(v *storedVersionOf) any { return v.Schema }) {
		s.Validation = first.Schema
	}
	if first.Subresources != nil && all(versions, func(v *storedVersionOf) any { return v.Subresources }) {
		s.Subresources = first.Subresources
	}
	if len(first.Columns) > 0 && all(versions, func(v *storedVersionOf) any { return v.Columns }) {
		s.Columns = first.Columns
	}
	if len(first.Selectable) > 0 && all(versions, func(v *storedVersionOf) any { return v.Selectable }) {
		s.Selectable = first.Selectable
	}
	for i := range versions {
		v := &versions[i]
		if s.Validation != nil {
			v.Schema = nil
		}
		if s.Subresources != nil {
			v.Subresources = nil
		}
		if s.Columns != nil {
			v.Columns = nil
		}
		if s.Selectable != nil {
			v.Selectable = nil
		}
	}
}

func all(versions []storedVersionOf, part func(*storedVersionOf) any) bool {
	for i := range versions[1:] {
		if !equality.Semantic.DeepEqual(part(&versions[i+1]), part(&versions[0])) {
			return false
		}
	}
	return true
}

func storedColumns(columns []apiextensionsv1.CustomResourceColumnDefinition) []storedColumn {
	var out []storedColumn
	for _, c := range columns {
		out = append(out, storedColumn{Name: c.Name, Type: c.Type, Format: c.Format, Description: c.Description, Priority: c.Priority, Path: c.JSONPath})
	}
	return out
}

func storedConversionOf(c *apiextensionsv1.CustomResourceConversion) *storedConversion {
	if c == nil {
		return nil
	}
	out := &storedConversion{Strategy: c.Strategy}
	if c.Webhook != nil {
		out.ClientConfig, out.ReviewVersions = c.Webhook.ClientConfig, c.Webhook.ConversionReviewVersions
	}
	return out
}

func fromStored(stored any) (object.Object, error) {
	s := stored.(*storedDefinition)
	spec := &s.Spec
	beta := s.APIVersion == storedVersion
	d := &apiextensionsv1.CustomResourceDefinition{
		ObjectMeta: s.ObjectMeta, Status: s.Status,
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{
			Group: spec.Group, Names: spec.Names, Scope: spec.Scope, Conversion: spec.Conversion.v1(), PreserveUnknownFields: ptr.Deref(spec.Preserve, beta),
		},
	}
	if beta && len(spec.Versions) == 0 && spec.Version != "" { // from before there could be several
		spec.Versions = []storedVersionOf{{Name: spec.Version, Served: true, Storage: true}}
	}
	for i := range spec.Versions {
		v := &spec.Versions[i]
		if beta {
			spec.give(v, i > 0)
		}
		d.Spec.Versions = append(d.Spec.Versions, apiextensionsv1.CustomResourceDefinitionVersion{
			Name: v.Name, Served: v.Served, Storage: v.Storage, Deprecated: v.Deprecated, DeprecationWarning: v.DeprecationWarning,
			Schema: v.Schema, Subresources: v.Subresources, AdditionalPrinterColumns: columnsOf(v.Columns), SelectableFields: v.Selectable,
		})
	}
	d.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
	return d, nil
}

// give gives a version, as its own, what it has in common with the others; copied says that another one has it already.
func (s *storedSpec) give(v *storedVersionOf, copied bool) {
	validation, subresources := s.Validation, s.Subresources
	if copied {
		validation, subresources = validation.DeepCopy(), subresources.DeepCopy()
	}
	if v.Schema == nil {
		v.Schema = validation
	}
	if v.Subresources == nil {
		v.Subresources = subresources
	}
	if v.Columns == nil {
		v.Columns = s.Columns
	}
	if v.Selectable == nil {
		v.Selectable = append(v.Selectable, s.Selectable...)
	}
}

func columnsOf(columns []storedColumn) []apiextensionsv1.CustomResourceColumnDefinition {
	var out []apiextensionsv1.CustomResourceColumnDefinition
	for _, c := range columns {
		out = append(out, apiextensionsv1.CustomResourceColumnDefinition{
			Name: c.Name, Type: c.Type, Format: c.Format, Description: c.Description, Priority: c.Priority, JSONPath: ptr.Deref(c.PathInV1, c.Path),
		})
	}
	return out
}

func (c *storedConversion) v1() *apiextensionsv1.CustomResourceConversion {
	if c == nil {
		return nil
	}
	out := &apiextensionsv1.CustomResourceConversion{Strategy: c.Strategy, Webhook: c.WebhookInV1}
	if c.ClientConfig != nil || c.ReviewVersions != nil {
		out.Webhook = &apiextensionsv1.WebhookConversion{ClientConfig: c.ClientConfig, ConversionReviewVersions: c.ReviewVersions}
	}
	return out
}

// sortValues writes the free JSON in a schema (default, example, enum) as it is stored and shown: without spaces, keys
// sorted, whole numbers without a fraction.
func sortValues(s *apiextensionsv1.JSONSchemaProps) {
	if s == nil {
		return
	}
	sortValue(s.Default)
	sortValue(s.Example)
	for i := range s.Enum {
		sortValue(&s.Enum[i])
	}
	for _, of := range [][]apiextensionsv1.JSONSchemaProps{s.AllOf, s.OneOf, s.AnyOf} {
		for i := range of {
			sortValues(&of[i])
		}
	}
	sortValues(s.Not)
	if s.Items != nil {
		sortValues(s.Items.Schema)
		for i := range s.Items.JSONSchemas {
			sortValues(&s.Items.JSONSchemas[i])
		}
	}
	for _, of := range []*apiextensionsv1.JSONSchemaPropsOrBool{s.AdditionalItems, s.AdditionalProperties} {
		if of != nil {
			sortValues(of.Schema)
		}
	}
	var one apiextensionsv1.JSONSchemaProps
	for _, of := range []map[string]apiextensionsv1.JSONSchemaProps{s.Properties, s.PatternProperties, s.Definitions} {
		for name := range of {
			one = of[name] // its values are pointers and slices: they change where they are
			sortValues(&one)
		}
	}
	for _, d := range s.Dependencies {
		sortValues(d.Schema)
	}
}

func sortValue(v *apiextensionsv1.JSON) {
	if v == nil {
		return
	}
	var tree any
	if kjson.UnmarshalCaseSensitivePreserveInts(v.Raw, &tree) != nil {
		return // validation has its word about it
	}
	if sorted, err := json.Marshal(tree); err == nil {
		v.Raw = sorted
	}
}
