package cel

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	language "github.com/timonel/timonel/internal/cel"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// What rules may cost, judging by the largest values that the schema lets in (limits of kube-apiserver).
const (
	maxRuleCost  = 10_000_000
	maxTotalCost = 100_000_000
	// toldShare and toldRules: when the total is too much, the dearest rules are named, if they have a share worth telling.
	toldShare = maxTotalCost / 100
	toldRules = 4
)

// shownRule is a rule as the reference shows it in errors.
type shownRule struct {
	Rule, Message, MessageExpression string
	Reason                           *apiextensions.FieldValueErrorReason
	FieldPath                        string
	OptionalOldSelf                  *bool
}

// Check reports the rules of a schema whose root is at path that do not compile or can cost too much.
func Check(root *apiextensions.JSONSchemaProps, path *field.Path) field.ErrorList {
	c := &checker{}
	c.node(root, path, place{root: true, times: 1})
	if c.total <= maxTotalCost {
		return c.errs
	}
	slices.SortStableFunc(c.dear, func(a, b cost) int { return cmp.Compare(b.cost, a.cost) })
	for _, d := range c.dear[:min(len(c.dear), toldRules)] {
		c.errs = append(c.errs, field.Forbidden(d.path, "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema"))
	}
	return append(c.errs, field.Forbidden(path, "x-kubernetes-validations "+tooDear("rule cost total for entire OpenAPIv3 schema", c.total, maxTotalCost)))
}

// tooDear says by how much a cost is over its limit.
func tooDear(what string, cost, limit uint64) string {
	by := "more than 100x"
	switch factor := float64(cost) / float64(limit); {
	case factor < 1.5: // what is rounded would look as if it were no more than the limit
		by = fmt.Sprintf("%fx", factor)
	case factor <= 100:
		by = fmt.Sprintf("%.1fx", factor)
	}
	return fmt.Sprintf("estimated %s exceeds budget by factor of %s (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)", what, by)
}

// checker walks a schema and adds up what its rules cost.
type checker struct {
	errs  field.ErrorList
	total uint64
	dear  []cost
}

type cost struct {
	path *field.Path
	cost uint64
}

// unbounded is how often a value can occur that is below a list or map without a limit: as often as a request can hold it.
const unbounded = math.MaxUint64

// place is where in an object the values of a schema node are.
type place struct {
	root  bool   // the value is a whole object
	times uint64 // it can occur so many times
	// uncorrelated is the list or map above whose parts cannot be told from those of the old object; nil: there is none.
	uncorrelated *field.Path
}

// node checks a schema node.
func (c *checker) node(props *apiextensions.JSONSchemaProps, path *field.Path, at place) {
	if len(props.XValidations) > 0 {
		s, here := newScope(props, at.root), at
		if here.times == unbounded {
			here.times = language.RequestBytes / (s.self.MinBytes + 1)
		}
		ground, err := groundOf(props, at.root)
		if err != nil {
			c.errs = append(c.errs, field.InternalError(path, err))
			return
		}
		for i := range props.XValidations {
			c.rule(s, ground, &props.XValidations[i], path.Child("x-kubernetes-validations").Index(i), here)
		}
	}
	below := func(child *apiextensions.JSONSchemaProps, path *field.Path, times uint64, uncorrelated *field.Path) {
		c.node(child, path, place{root: child.XEmbeddedResource, times: times, uncorrelated: uncorrelated})
	}
	uncorrelated := at.uncorrelated
	if uncorrelated == nil && props.XMapType != nil && *props.XMapType == "atomic" {
		uncorrelated = path
	}
	for _, name := range slices.Sorted(maps.Keys(props.Properties)) {
		child := props.Properties[name]
		below(&child, path.Child("properties").Key(name), at.times, uncorrelated)
	}
	if props.AdditionalProperties != nil && props.AdditionalProperties.Schema != nil {
		below(props.AdditionalProperties.Schema, path.Child("additionalProperties"), multiplied(at.times, props.MaxProperties), uncorrelated)
	}
	if props.Items != nil && props.Items.Schema != nil {
		if uncorrelated == nil && (props.XListType == nil || *props.XListType != "map") {
			uncorrelated = path
		}
		below(props.Items.Schema, path.Child("items"), multiplied(at.times, props.MaxItems), uncorrelated)
	}
}

func multiplied(times uint64, max *int64) uint64 {
	if max == nil || times == unbounded {
		return unbounded
	}
	return language.Times(times, bound(max))
}

// rule checks a rule of the values at a place.
func (c *checker) rule(s *scope, g ground, r *apiextensions.ValidationRule, path *field.Path, at place) {
	if strings.TrimSpace(r.Rule) == "" {
		return // told by the schema's own validation
	}
	show := shownRule{r.Rule, r.Message, r.MessageExpression, r.Reason, r.FieldPath, r.OptionalOldSelf}
	optionalOld := ptr.Deref(r.OptionalOldSelf, false)
	condition := known.judge(g.key(r.Rule, isCondition, optionalOld), func() (*language.Expression, error) { return s.condition(r) })
	if at.uncorrelated != nil && condition.transition {
		c.errs = append(c.errs, field.Invalid(path.Child("rule"), r.Rule, fmt.Sprintf("oldSelf cannot be used on the uncorrelatable portion of the schema within %v", at.uncorrelated)))
	}
	c.expression(condition, show, "rule cost", path.Child("rule"), at.times)
	if r.MessageExpression != "" {
		message := known.judge(g.key(r.MessageExpression, isMessage, optionalOld), func() (*language.Expression, error) { return s.message(r) })
		c.expression(message, show, "messageExpression cost", path.Child("messageExpression"), at.times)
	}
}

func (c *checker) expression(v verdict, show shownRule, what string, path *field.Path, times uint64) {
	if v.err != nil {
		c.errs = append(c.errs, field.Invalid(path, show, v.err.Error()))
		return
	}
	if v.unknown != nil {
		c.errs = append(c.errs, field.InternalError(path, v.unknown))
		return
	}
	all := language.Times(v.cost, times)
	if all > maxRuleCost {
		c.errs = append(c.errs, field.Forbidden(path, tooDear(what, all, maxRuleCost)))
	}
	if all > math.MaxUint64-c.total {
		c.total = math.MaxUint64
	} else {
		c.total += all
	}
	if all >= toldShare {
		c.dear = append(c.dear, cost{path, all})
	}
}
