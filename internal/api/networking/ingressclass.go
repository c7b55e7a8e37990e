package networking

import (
	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/validation/path"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const maxController = 250

// IngressClass is a controller of Ingresses with its settings.
func ingressClass() *kind.Definition {
	name := kind.Name
	name.Of = func(o object.Object) any {
		if o.GetAnnotations()[networkingv1.AnnotationIsDefaultIngressClass] == "true" {
			return o.GetName() + " (default)"
		}
		return o.GetName()
	}
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "IngressClass", Plural: "ingressclasses",
		Scope: kind.Cluster, Verbs: kind.Standard,
		New: kind.Of[networkingv1.IngressClass](),
		Default: kind.Default(func(c *networkingv1.IngressClass) {
			if p := c.Spec.Parameters; p != nil && p.Scope == nil {
				p.Scope = ptr.To(networkingv1.IngressClassParametersReferenceScopeCluster)
			}
		}),
		Generation: kind.Changed(func(c, old *networkingv1.IngressClass) bool { return !object.Equal(&c.Spec, &old.Spec) }),
		Validate:   kind.Validate(validateIngressClass),
		ValidateUpdate: kind.ValidateUpdate(func(c, old *networkingv1.IngressClass) field.ErrorList {
			return append(check.Immutable(c.Spec.Controller, old.Spec.Controller, field.NewPath("spec", "controller")), validateIngressClass(c)...)
		}),
		Columns: kind.Columns{
			name,
			{Name: "Controller", Description: "Controller that is responsible for handling this class", Of: kind.Cell(func(c *networkingv1.IngressClass) any { return c.Spec.Controller })},
			{Name: "Parameters", Description: "A reference to a resource with additional parameters", Of: kind.Cell(func(c *networkingv1.IngressClass) any { return parameters(c.Spec.Parameters) })},
			kind.Age,
		},
		ColumnFields: []string{"metadata.annotations", "spec.controller", "spec.parameters"},
	}
}

func parameters(p *networkingv1.IngressClassParametersReference) string {
	if p == nil {
		return show.None
	}
	text := p.Kind
	if group := ptr.Deref(p.APIGroup, ""); group != "" {
		text += "." + group
	}
	return text + "/" + p.Name
}

func validateIngressClass(c *networkingv1.IngressClass) field.ErrorList {
	controller := field.NewPath("spec", "controller")
	var errs field.ErrorList
	if c.Spec.Controller == "" {
		errs = append(errs, field.Required(controller, ""))
	} else {
		if len(c.Spec.Controller) > maxController {
			errs = append(errs, field.TooLong(controller, c.Spec.Controller, maxController))
		}
		errs = append(errs, validation.IsDomainPrefixedPath(controller, c.Spec.Controller)...)
	}
	p, at := c.Spec.Parameters, field.NewPath("spec", "parameters")
	if p == nil {
		return errs
	}
	errs = append(errs, checkParameters(p, at)...)
	errs = append(errs, check.Required(p.Kind, at.Child("kind"))...)
	return append(errs, check.Required(p.Name, at.Child("name"))...)
}

// checkReference checks a reference to an object; without required, only what is given of it.
func checkReference(group *string, kind, name string, required bool, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if group != nil {
		errs = append(errs, check.Each(at.Child("apiGroup"), *group, check.Subdomain(*group))...)
	}
	for _, part := range []struct{ name, value string }{{"kind", kind}, {"name", name}} {
		if part.value == "" && required {
			errs = append(errs, field.Required(at.Child(part.name), part.name+" is required"))
		}
		errs = append(errs, check.Form(part.value, at.Child(part.name), path.IsValidPathSegmentName)...)
	}
	return errs
}

func checkParameters(p *networkingv1.IngressClassParametersReference, at *field.Path) field.ErrorList {
	errs := checkReference(p.APIGroup, p.Kind, p.Name, false, at)
	scope, namespace := at.Child("scope"), at.Child("namespace")
	if p.Scope == nil {
		return append(errs, field.Required(scope, ""))
	}
	switch *p.Scope {
	case networkingv1.IngressClassParametersReferenceScopeNamespace:
		if p.Namespace == nil {
			return append(errs, field.Required(namespace, "`parameters.scope` is set to 'Namespace'"))
		}
		return append(errs, check.Each(namespace, *p.Namespace, check.Label(*p.Namespace))...)
	case networkingv1.IngressClassParametersReferenceScopeCluster:
		if p.Namespace != nil {
			errs = append(errs, field.Forbidden(namespace, "`parameters.scope` is set to 'Cluster'"))
		}
		return errs
	}
	return append(errs, check.OneOf(*p.Scope, scope, networkingv1.IngressClassParametersReferenceScopeCluster, networkingv1.IngressClassParametersReferenceScopeNamespace)...)
}
