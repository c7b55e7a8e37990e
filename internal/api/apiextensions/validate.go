package apiextensions

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/timonel/timonel/internal/api/check"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const (
	maxDeprecationWarning = 256 // bytes
	maxSelectableFields   = 8
)

// validator checks definitions. Paths in its answers are those of the form that is stored: what all versions have in common is
// at the top of the spec.
type validator struct{ Options }

func (v validator) validate(d *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
	var errs field.ErrorList
	if d.Name != "" && d.Name != d.Spec.Names.Plural+"."+d.Spec.Group {
		errs = append(errs, field.Invalid(field.NewPath("metadata", "name"), d.Name, `must be spec.names.plural+"."+spec.group`))
	}
	errs = append(errs, v.spec(d, nil)...)
	errs = append(errs, checkStatus(d)...)
	errs = append(errs, checkApproval(d, nil)...)
	return append(errs, checkPreserve(d, nil)...)
}

func (v validator) validateUpdate(d, old *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
	spec := field.NewPath("spec")
	errs := v.spec(d, old)
	if established(old) {
		errs = append(errs, check.Immutable(d.Spec.Scope, old.Spec.Scope, spec.Child("scope"))...)
		errs = append(errs, check.Immutable(d.Spec.Names.Kind, old.Spec.Names.Kind, spec.Child("names", "kind"))...)
	}
	errs = append(errs, check.Immutable(d.Spec.Group, old.Spec.Group, spec.Child("group"))...)
	errs = append(errs, check.Immutable(d.Spec.Names.Plural, old.Spec.Names.Plural, spec.Child("names", "plural"))...)
	errs = append(errs, checkStatus(d)...)
	errs = append(errs, checkApproval(d, old)...)
	return append(errs, checkPreserve(d, old)...)
}

// checkPreserve wants pruning, unless the definition is older than pruning.
func checkPreserve(d, old *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
	if !d.Spec.PreserveUnknownFields || old != nil && old.Spec.PreserveUnknownFields {
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath("spec", "preserveUnknownFields"), true,
		"cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead")}
}

// protected reports whether a group belongs to the Kubernetes project.
func protected(group string) bool {
	return group == "k8s.io" || group == "kubernetes.io" || strings.HasSuffix(group, ".k8s.io") || strings.HasSuffix(group, ".kubernetes.io")
}

// approval says what the annotation of a definition in a protected group means (KEP-1111).
type approval int

const (
	approvalMissing approval = iota
	approvalBypassed
	approved
	approvalInvalid
)

func approvalOf(d *apiextensionsv1.CustomResourceDefinition) approval {
	text := d.Annotations[apiextensionsv1.KubeAPIApprovedAnnotation]
	where, err := url.ParseRequestURI(text)
	switch {
	case text == "":
		return approvalMissing
	case strings.HasPrefix(text, "unapproved"):
		return approvalBypassed
	case err == nil && where.Host != "" && where.Scheme != "":
		return approved
	}
	return approvalInvalid
}

// checkApproval wants to see that a kind in the project's own groups was reviewed; an update may leave it as it was.
func checkApproval(d, old *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
	state := approvalOf(d)
	if !protected(d.Spec.Group) || old != nil && approvalOf(old) == state {
		return nil
	}
	at := field.NewPath("metadata", "annotations").Key(apiextensionsv1.KubeAPIApprovedAnnotation)
	needed := fmt.Sprintf("protected groups must have approval annotation %q", apiextensionsv1.KubeAPIApprovedAnnotation)
	const see = ", see https://github.com/kubernetes/enhancements/pull/1111"
	switch state {
	case approvalMissing:
		return field.ErrorList{field.Required(at, needed+see)}
	case approvalInvalid:
		return field.ErrorList{field.Invalid(at, d.Annotations[apiextensionsv1.KubeAPIApprovedAnnotation], needed+` with either a URL or a reason starting with "unapproved"`+see)}
	}
	return nil
}

func (v validator) spec(d, old *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
	s, spec := &d.Spec, field.NewPath("spec")
	var errs field.ErrorList
	group := spec.Child("group")
	switch {
	case s.Group == "":
		errs = append(errs, field.Required(group, ""))
	case validation.IsDNS1123Subdomain(s.Group) != nil:
		errs = append(errs, check.Each(group, s.Group, []string{strings.Join(validation.IsDNS1123Subdomain(s.Group), ",")})...)
	case !strings.Contains(s.Group, "."):
		errs = append(errs, field.Invalid(group, s.Group, "should be a domain with at least one dot"))
	}
	errs = append(errs, check.RequiredOneOf(s.Scope, spec.Child("scope"), apiextensionsv1.ClusterScoped, apiextensionsv1.NamespaceScoped)...)
	parts := commonParts(s.Versions)
	errs = append(errs, v.versions(d, old, parts, spec)...)
	for _, name := range []struct{ key, value string }{
		{"plural", s.Names.Plural}, {"singular", s.Names.Singular}, {"kind", s.Names.Kind}, {"listKind", s.Names.ListKind},
	} {
		errs = append(errs, check.Required(name.value, spec.Child("names", name.key))...)
	}
	errs = append(errs, checkNames(&s.Names, spec.Child("names"))...)
	if len(s.Versions) > 0 {
		errs = append(errs, v.parts(&s.Versions[0], parts, statusEnabled(s.Versions), places{
			schema: spec.Child("validation"), others: spec,
		})...)
	}
	if strategy := conversionStrategy(s); s.PreserveUnknownFields && strategy != apiextensionsv1.NoneConverter {
		errs = append(errs, field.Invalid(spec.Child("conversion", "strategy"), strategy, "must be None if spec.preserveUnknownFields is true"))
	}
	return append(errs, checkConversion(s.Conversion, spec.Child("conversion"))...)
}

func conversionStrategy(s *apiextensionsv1.CustomResourceDefinitionSpec) apiextensionsv1.ConversionStrategyType {
	if s.Conversion == nil {
		return apiextensionsv1.NoneConverter
	}
	return s.Conversion.Strategy
}

// statusEnabled reports whether any of the versions has a status subresource.
func statusEnabled(versions []apiextensionsv1.CustomResourceDefinitionVersion) bool {
	return slices.ContainsFunc(versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool {
		return v.Subresources != nil && v.Subresources.Status != nil
	})
}

// checkNames checks the forms of the names that are given.
func checkNames(n *apiextensionsv1.CustomResourceDefinitionNames, path *field.Path) field.ErrorList {
	label := func(name, value string) field.ErrorList {
		return check.Form(value, path.Child(name), func(text string) []string { return joined(validation.IsDNS1035Label(text)) })
	}
	kindName := func(name, value string) field.ErrorList {
		return check.Form(value, path.Child(name), func(text string) []string {
			var messages []string
			for _, m := range joined(validation.IsDNS1035Label(strings.ToLower(text))) {
				messages = append(messages, "may have mixed case, but should otherwise match: "+m)
			}
			return messages
		})
	}
	errs := label("plural", n.Plural)
	errs = append(errs, label("singular", n.Singular)...)
	errs = append(errs, kindName("kind", n.Kind)...)
	errs = append(errs, kindName("listKind", n.ListKind)...)
	for i, short := range n.ShortNames {
		errs = append(errs, check.Each(path.Child("shortNames").Index(i), short, joined(validation.IsDNS1035Label(short)))...)
	}
	if n.Kind != "" && n.Kind == n.ListKind {
		errs = append(errs, field.Invalid(path.Child("listKind"), n.ListKind, "kind and listKind may not be the same"))
	}
	for i, category := range n.Categories {
		errs = append(errs, check.Each(path.Child("categories").Index(i), category, joined(validation.IsDNS1035Label(category)))...)
	}
	return errs
}

func joined(messages []string) []string {
	if len(messages) == 0 {
		return nil
	}
	return []string{strings.Join(messages, ",")}
}

// common says which parts are the same in all versions, and therefore at the top of the spec.
type common struct{ schema, subresources, columns, fields bool }

func commonParts(versions []apiextensionsv1.CustomResourceDefinitionVersion) common {
	c := common{true, true, true, true}
	for i := range versions {
		a, b := &versions[0], &versions[i]
		c.schema = c.schema && equality.Semantic.DeepEqual(a.Schema, b.Schema)
		c.subresources = c.subresources && equality.Semantic.DeepEqual(a.Subresources, b.Subresources)
		c.columns = c.columns && equality.Semantic.DeepEqual(a.AdditionalPrinterColumns, b.AdditionalPrinterColumns)
		c.fields = c.fields && equality.Semantic.DeepEqual(a.SelectableFields, b.SelectableFields)
	}
	return c
}

// others marks the parts that differ.
func (c common) others() common {
	return common{!c.schema, !c.subresources, !c.columns, !c.fields}
}

// quoted is how answers quote versions: without what is at the top.
func quoted(versions []apiextensionsv1.CustomResourceDefinitionVersion, c common) any {
	if versions == nil {
		return nil
	}
	out := slices.Clone(versions)
	for i := range out {
		v := &out[i]
		if c.schema {
			v.Schema = nil
		}
		if c.subresources {
			v.Subresources = nil
		}
		if c.columns {
			v.AdditionalPrinterColumns = nil
		}
		if c.fields {
			v.SelectableFields = nil
		}
	}
	return check.GoNames(out)
}

func (v validator) versions(d, old *apiextensionsv1.CustomResourceDefinition, parts common, spec *field.Path) field.ErrorList {
	list, path := d.Spec.Versions, spec.Child("versions")
	var errs field.ErrorList
	needsSchema := old == nil || !old.Spec.PreserveUnknownFields
	for i := range list {
		if needsSchema && (list[i].Schema == nil || list[i].Schema.OpenAPIV3Schema == nil) {
			errs = append(errs, field.Required(path.Index(i).Child("schema", "openAPIV3Schema"), "schemas are required"))
		}
	}
	if d.Spec.PreserveUnknownFields && slices.ContainsFunc(list, hasDefaults) {
		errs = append(errs, field.Invalid(spec.Child("preserveUnknownFields"), true, "must be false in order to use defaults in the schema"))
	}
	seen := map[string]bool{}
	unique := true
	for i := range list {
		version, at := &list[i], path.Index(i)
		errs = append(errs, check.Each(at.Child("name"), version.Name, joined(validation.IsDNS1035Label(version.Name)))...)
		errs = append(errs, checkDeprecation(version, at)...)
		errs = append(errs, v.parts(version, parts.others(), statusEnabled(list[i:i+1]), places{schema: at.Child("schema"), others: at})...)
		unique = unique && !seen[version.Name]
		seen[version.Name] = true
	}
	if !unique {
		errs = append(errs, field.Invalid(path, quoted(list, parts), "must contain unique version names"))
	}
	if len(storageVersions(d)) != 1 {
		errs = append(errs, field.Invalid(path, quoted(list, parts), "must have exactly one version marked as storage version"))
	}
	if len(list) > 0 {
		errs = append(errs, check.Each(spec.Child("version"), list[0].Name, joined(validation.IsDNS1035Label(list[0].Name)))...)
	}
	return errs
}

// places are the paths of the parts of a version.
type places struct{ schema, others *field.Path }

// parts checks the parts of a version that are marked.
func (v validator) parts(version *apiextensionsv1.CustomResourceDefinitionVersion, marked common, status bool, at places) field.ErrorList {
	var errs field.ErrorList
	if marked.schema {
		errs = append(errs, v.schema(version.Schema, status, at.schema.Child("openAPIV3Schema"))...)
	}
	if marked.subresources {
		errs = append(errs, checkSubresources(version.Subresources, at.others.Child("subresources"))...)
	}
	if marked.columns {
		errs = append(errs, checkColumns(version.AdditionalPrinterColumns, at.others.Child("additionalPrinterColumns"))...)
	}
	if marked.fields {
		errs = append(errs, checkSelectable(version, at.others.Child("selectableFields"))...)
	}
	return errs
}

func checkDeprecation(version *apiextensionsv1.CustomResourceDefinitionVersion, path *field.Path) field.ErrorList {
	if version.DeprecationWarning == nil {
		return nil
	}
	text, at := *version.DeprecationWarning, path.Child("deprecationWarning")
	wrong := func(problem string) field.ErrorList { return field.ErrorList{field.Invalid(at, text, problem)} }
	switch {
	case !version.Deprecated:
		return wrong("can only be set for deprecated versions")
	case len(text) > maxDeprecationWarning:
		return wrong(fmt.Sprintf("must be <= %d characters long", maxDeprecationWarning))
	case text == "":
		return wrong("must not be an empty string")
	}
	for i, r := range text {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return wrong(fmt.Sprintf("must only contain printable UTF-8 characters; non-printable character found at index %d", i))
		}
	}
	return nil
}

func checkStatus(d *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
	return append(checkNames(&d.Status.AcceptedNames, field.NewPath("status", "acceptedNames")), checkStored(d)...)
}

func checkStored(d *apiextensionsv1.CustomResourceDefinition) field.ErrorList {
	path := field.NewPath("status", "storedVersions")
	stored := d.Status.StoredVersions
	if len(stored) == 0 {
		var quote any
		if stored != nil {
			quote = stored
		}
		return field.ErrorList{field.Invalid(path, quote, "must have at least one stored version")}
	}
	var errs field.ErrorList
	seen := map[string]bool{}
	for i, name := range stored {
		if seen[name] {
			errs = append(errs, field.Invalid(path.Index(i), name, "must have unique stored version"))
		}
		seen[name] = true
		if !slices.ContainsFunc(d.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool { return v.Name == name }) {
			errs = append(errs, field.Invalid(path.Index(i), name, fmt.Sprintf("missing from spec.versions; %[1]s was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in %[1]s and removes %[1]s from status.storedVersions", name)))
		}
	}
	if names := storageVersions(d); len(names) > 0 {
		if name := names[len(names)-1]; !seen[name] {
			errs = append(errs, field.Invalid(path, stored, "must have the storage version "+name))
		}
	}
	return errs
}

func checkConversion(c *apiextensionsv1.CustomResourceConversion, path *field.Path) field.ErrorList {
	if c == nil {
		return nil
	}
	var client *apiextensionsv1.WebhookClientConfig
	var versions []string
	if c.Webhook != nil {
		client, versions = c.Webhook.ClientConfig, c.Webhook.ConversionReviewVersions
	}
	clientPath, versionsPath := path.Child("webhookClientConfig"), path.Child("conversionReviewVersions")
	errs := check.RequiredOneOf(c.Strategy, path.Child("strategy"), apiextensionsv1.NoneConverter, apiextensionsv1.WebhookConverter)
	if c.Strategy != apiextensionsv1.WebhookConverter {
		if client != nil {
			errs = append(errs, field.Forbidden(clientPath, "should not be set when strategy is not set to Webhook"))
		}
		if len(versions) > 0 {
			errs = append(errs, field.Forbidden(versionsPath, "should not be set when strategy is not set to Webhook"))
		}
		return errs
	}
	switch {
	case client == nil:
		errs = append(errs, field.Required(clientPath, "required when strategy is set to Webhook"))
	case (client.URL == nil) == (client.Service == nil):
		errs = append(errs, field.Required(clientPath, "exactly one of url or service is required"))
	case client.URL != nil:
		errs = append(errs, check.WebhookURL(*client.URL, clientPath.Child("url"))...)
	default:
		s := client.Service
		errs = append(errs, check.WebhookService(s.Name, s.Namespace, s.Path, ptr.Deref(s.Port, defaultWebhookPort), clientPath.Child("service"))...)
	}
	if len(versions) == 0 {
		return append(errs, field.Required(versionsPath, ""))
	}
	return append(errs, check.WebhookVersions(versions, versionsPath)...)
}

func checkSubresources(s *apiextensionsv1.CustomResourceSubresources, path *field.Path) field.ErrorList {
	if s == nil || s.Scale == nil {
		return nil
	}
	scale := path.Child("scale")
	under := func(name, value string, roots ...string) field.ErrorList {
		at := scale.Child(name)
		if value == "" {
			return field.ErrorList{field.Required(at, "")}
		}
		errs := simplePath(value, at)
		if len(errs) > 0 {
			return errs
		}
		for _, root := range roots {
			if strings.HasPrefix(value, root+".") {
				return nil
			}
		}
		return field.ErrorList{field.Invalid(at, value, "should be a json path under "+either(roots))}
	}
	errs := under("specReplicasPath", s.Scale.SpecReplicasPath, ".spec")
	errs = append(errs, under("statusReplicasPath", s.Scale.StatusReplicasPath, ".status")...)
	if p := ptr.Deref(s.Scale.LabelSelectorPath, ""); p != "" {
		errs = append(errs, under("labelSelectorPath", p, ".status", ".spec")...)
	}
	return errs
}

func either(roots []string) string {
	if len(roots) == 1 {
		return roots[0]
	}
	return "either " + strings.Join(roots, " or ")
}
