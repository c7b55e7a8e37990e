// Package resource holds the kinds of resource.k8s.io (dynamic resource allocation): drivers publish devices in ResourceSlices,
// users ask for them in ResourceClaims, by DeviceClass, and DeviceTaintRules keep them off. A file each.
//
// Promises: every function is pure, but for the time at which a taint was added. Does not know the language of
// selectors: the server gives it a checker for them. Start reading at deviceclass.go, then resourceclaim.go.
package resource

import (
	"errors"
	"fmt"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/expression"
	"github.com/timonel/timonel/internal/feature"
	"github.com/timonel/timonel/internal/kind"
	resourcev1 "k8s.io/api/resource/v1"
	resourcev1alpha3 "k8s.io/api/resource/v1alpha3"
	resourcev1beta1 "k8s.io/api/resource/v1beta1"
	resourcev1beta2 "k8s.io/api/resource/v1beta2"
	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const group = resourcev1.GroupName

// Options are what the kinds need to know about the server.
type Options struct {
	// CheckSelector says what is wrong with the CEL expression of a device selector, in the words of the answer. An error that is
	// TooComplex is about what the expression may cost. nil: only the syntax is checked.
	CheckSelector func(expression string) error
	TooComplex    error
	Gates         feature.Gates
}

// Definitions lists the kinds of the group in alphabetical order, as discovery does, the preferred version first.
func Definitions(o Options) []*kind.Definition {
	if o.CheckSelector == nil {
		o.CheckSelector = func(text string) error {
			if problem := expression.Syntax(text); problem != "" {
				return errors.New(problem)
			}
			return nil
		}
	}
	c := checker{Options: o}
	class, rule, claim, template, slice := deviceClass(c), deviceTaintRule(), resourceClaim(c), resourceClaimTemplate(c), resourceSlice(o.Gates)
	return []*kind.Definition{
		class, rule, claim, template, slice,
		class.Renamed("v1beta2", kind.Of[resourcev1beta2.DeviceClass]()),
		rule.Renamed("v1beta2", kind.Of[resourcev1beta2.DeviceTaintRule]()),
		claim.Renamed("v1beta2", kind.Of[resourcev1beta2.ResourceClaim]()),
		template.Renamed("v1beta2", kind.Of[resourcev1beta2.ResourceClaimTemplate]()),
		slice.Renamed("v1beta2", kind.Of[resourcev1beta2.ResourceSlice]()),
		class.Renamed("v1beta1", kind.Of[resourcev1beta1.DeviceClass]()),
		claim.Converted("v1beta1", kind.Of[resourcev1beta1.ResourceClaim](), kind.Conversion{ToHub: claimToHub, FromHub: claimFromHub}),
		template.Converted("v1beta1", kind.Of[resourcev1beta1.ResourceClaimTemplate](), kind.Conversion{ToHub: templateToHub, FromHub: templateFromHub}),
		slice.Converted("v1beta1", kind.Of[resourcev1beta1.ResourceSlice](), kind.Conversion{ToHub: sliceToHub, FromHub: sliceFromHub}),
		rule.Renamed("v1alpha3", kind.Of[resourcev1alpha3.DeviceTaintRule]()),
		poolStatusRequest(o.Gates),
	}
}

// checker checks what the kinds have in common.
type checker struct {
	Options
	// known are the expressions of the old version: they are not checked again, so that stricter limits do not get in the way.
	known map[string]bool
}

// knows returns a checker that does not check the expressions of the old version.
func (c checker) knows(selectors []resourcev1.DeviceSelector) checker {
	c.known = map[string]bool{}
	for _, s := range selectors {
		if s.CEL != nil {
			c.known[s.CEL.Expression] = true
		}
	}
	return c
}

func poolName(name string, path *field.Path) field.ErrorList {
	return check.RequiredSpelled(name, path, validate.ResourcePoolName)
}

func className(name string, path *field.Path) field.ErrorList {
	return check.RequiredSpelled(name, path, validate.LongName)
}

func attributeName(name resourcev1.FullyQualifiedName, path *field.Path) field.ErrorList {
	return check.RequiredSpelled(name, path, validate.ResourceFullyQualifiedName)
}

// driverName wants the name of a driver: a DNS subdomain.
func driverName(name string, path *field.Path) field.ErrorList {
	if name == "" {
		return field.ErrorList{field.Required(path, "")}
	}
	var errs field.ErrorList
	if len(name) > resourcev1.DriverNameMaxLength {
		errs = append(errs, field.TooLong(path, name, resourcev1.DriverNameMaxLength))
	}
	return append(errs, check.Spelled(name, path, validate.LongNameCaseless)...)
}

// declaredDriver is driverName where k8s.io/api declares it with tags, which count characters.
func declaredDriver(name string, path *field.Path) field.ErrorList {
	return append(
		check.RequiredSpelled(name, path, validate.LongNameCaseless),
		check.Spelled(name, path, check.Bounded(validate.MaxLength[string], resourcev1.DriverNameMaxLength))...)
}

// tooMany wants no more than max entries.
func tooMany(n, max int, path *field.Path) field.ErrorList {
	if n > max {
		return field.ErrorList{field.TooMany(path, n, max)}
	}
	return nil
}

func (c checker) selectors(selectors []resourcev1.DeviceSelector, path *field.Path) field.ErrorList {
	errs := tooMany(len(selectors), resourcev1.DeviceSelectorsMaxSize, path)
	for i, s := range selectors {
		at := path.Index(i).Child("cel")
		if s.CEL == nil {
			errs = append(errs, field.Required(at, ""))
			continue
		}
		at = at.Child("expression")
		switch text := s.CEL.Expression; {
		case text == "":
			errs = append(errs, field.Required(at, ""))
		case len(text) > resourcev1.CELSelectorExpressionMaxLength:
			errs = append(errs, field.TooLong(at, text, resourcev1.CELSelectorExpressionMaxLength))
		default:
			errs = append(errs, c.selector(text, at)...)
		}
	}
	return errs
}

func (c checker) selector(text string, at *field.Path) field.ErrorList {
	if c.known[text] {
		return nil
	}
	switch err := c.CheckSelector(text); {
	case err == nil:
		return nil
	case c.TooComplex != nil && errors.Is(err, c.TooComplex):
		return field.ErrorList{field.Forbidden(at, err.Error())}
	default:
		return field.ErrorList{field.Invalid(at, text, err.Error())}
	}
}

// configuration checks what is passed through to a driver.
func configuration(o *resourcev1.OpaqueDeviceConfiguration, path *field.Path) field.ErrorList {
	if o == nil {
		return field.ErrorList{field.Required(path.Child("opaque"), "")}
	}
	at := path.Child("opaque")
	errs := declaredDriver(o.Driver, at.Child("driver"))
	return append(errs, rawObject(o.Parameters.Raw, true, resourcev1.OpaqueParametersMaxLength, at.Child("parameters"))...)
}

// taint checks a taint of a device.
func taint(t *resourcev1.DeviceTaint, path *field.Path) field.ErrorList {
	errs := check.Each(path.Child("key"), t.Key, check.QualifiedName(t.Key))
	errs = append(errs, check.Each(path.Child("value"), t.Value, labelValue(t.Value))...)
	return append(errs, check.RequiredOneOf(t.Effect, path.Child("effect"), effects...)...)
}

// effects are those of taints, in the order in which answers list them.
var effects = []resourcev1.DeviceTaintEffect{resourcev1.DeviceTaintEffectNoExecute, resourcev1.DeviceTaintEffectNoSchedule, resourcev1.DeviceTaintEffectNone}

// oneOf wants exactly one of the members to be set; what says how that is put.
func oneOf(path *field.Path, text string, members ...member) field.ErrorList {
	var set []string
	for _, m := range members {
		if m.set {
			set = append(set, m.name)
		}
	}
	switch len(set) {
	case 1:
		return nil
	case 0:
		return field.ErrorList{field.Required(path, text)}
	}
	quoted := ""
	for i, name := range set {
		if i > 0 {
			quoted += ", "
		}
		quoted += fmt.Sprintf("`%s`", name)
	}
	return field.ErrorList{field.Invalid(path, "{"+quoted+"}", text+", but multiple fields are set")}
}

type member struct {
	name string
	set  bool
}
