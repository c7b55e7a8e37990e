package flowcontrol

import (
	"fmt"
	"math"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/show"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const (
	defaultShares      = 30
	defaultQueues      = 64
	defaultHandSize    = 8
	defaultQueueLength = 50
	maxQueues          = 10 * 1000 * 1000
	maxEntropyBits     = 60 // of the hash that deals hands of queues
)

// PriorityLevelConfiguration is a share of the server, and what happens to requests that exceed it.
func priorityLevelConfiguration() *kind.Definition {
	queuing := flowcontrolv1.QueuingConfiguration{}.SwaggerDoc()
	queue := func(name, description string, of func(*flowcontrolv1.QueuingConfiguration) int32) kind.Column {
		return kind.Column{Name: name, Description: description, Of: kind.Cell(func(p *flowcontrolv1.PriorityLevelConfiguration) any {
			if p.Spec.Limited == nil || p.Spec.Limited.LimitResponse.Queuing == nil {
				return show.None
			}
			return int64(of(p.Spec.Limited.LimitResponse.Queuing))
		})}
	}
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "PriorityLevelConfiguration", Plural: "prioritylevelconfigurations",
		Scope: kind.Cluster, Verbs: kind.Standard,
		New:     kind.Of[flowcontrolv1.PriorityLevelConfiguration](),
		Default: kind.Default(defaultLevel),
		PrepareCreate: kind.Prepare(func(p *flowcontrolv1.PriorityLevelConfiguration) {
			p.Status = flowcontrolv1.PriorityLevelConfigurationStatus{}
		}),
		PrepareUpdate: kind.PrepareUpdate(func(p, old *flowcontrolv1.PriorityLevelConfiguration) { p.Status = old.Status }),
		Generation: kind.Changed(func(p, old *flowcontrolv1.PriorityLevelConfiguration) bool {
			return !object.Equal(&p.Spec, &old.Spec)
		}),
		Validate: kind.Validate(validateLevel),
		Columns: kind.Columns{
			{Name: "Type", Description: flowcontrolv1.PriorityLevelConfigurationSpec{}.SwaggerDoc()["type"], Of: kind.Cell(func(p *flowcontrolv1.PriorityLevelConfiguration) any {
				return string(p.Spec.Type)
			})},
			{Name: "NominalConcurrencyShares", Description: flowcontrolv1.LimitedPriorityLevelConfiguration{}.SwaggerDoc()["nominalConcurrencyShares"], Of: kind.Cell(func(p *flowcontrolv1.PriorityLevelConfiguration) any {
				if p.Spec.Limited == nil {
					return show.None
				}
				return int64(ptr.Deref(p.Spec.Limited.NominalConcurrencyShares, 0))
			})},
			queue("Queues", queuing["queues"], func(q *flowcontrolv1.QueuingConfiguration) int32 { return q.Queues }),
			queue("HandSize", queuing["handSize"], func(q *flowcontrolv1.QueuingConfiguration) int32 { return q.HandSize }),
			queue("QueueLengthLimit", queuing["queueLengthLimit"], func(q *flowcontrolv1.QueuingConfiguration) int32 { return q.QueueLengthLimit }),
			kind.Age,
		},
		ColumnFields: []string{"spec.type", "spec.limited.nominalConcurrencyShares", "spec.limited.limitResponse.queuing"},
		Subresources: map[string]*kind.Subresource{
			"status": kind.StatusOnly(func(p, old *flowcontrolv1.PriorityLevelConfiguration) { p.Spec = old.Spec }, func(p, _ *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
				return checkConditions(len(p.Status.Conditions), func(i int) (string, flowcontrolv1.ConditionStatus) {
					return string(p.Status.Conditions[i].Type), p.Status.Conditions[i].Status
				})
			}),
		},
	}
}

func defaultLevel(p *flowcontrolv1.PriorityLevelConfiguration) {
	set := func(n **int32, value int32) {
		if *n == nil {
			*n = &value
		}
	}
	if p.Spec.Type == flowcontrolv1.PriorityLevelEnablementExempt && p.Spec.Exempt == nil {
		p.Spec.Exempt = &flowcontrolv1.ExemptPriorityLevelConfiguration{}
	}
	if e := p.Spec.Exempt; e != nil {
		set(&e.NominalConcurrencyShares, 0)
		set(&e.LendablePercent, 0)
	}
	l := p.Spec.Limited
	if l == nil {
		return
	}
	set(&l.NominalConcurrencyShares, defaultShares)
	set(&l.LendablePercent, 0)
	if q := l.LimitResponse.Queuing; q != nil {
		fill := func(n *int32, value int32) {
			if *n == 0 {
				*n = value
			}
		}
		fill(&q.Queues, defaultQueues)
		fill(&q.HandSize, defaultHandSize)
		fill(&q.QueueLengthLimit, defaultQueueLength)
	}
}

func validateLevel(p *flowcontrolv1.PriorityLevelConfiguration) field.ErrorList {
	spec := field.NewPath("spec")
	const exempt, limited = flowcontrolv1.PriorityLevelEnablementExempt, flowcontrolv1.PriorityLevelEnablementLimited
	var errs field.ErrorList
	if p.Spec.Type != "" && (p.Name == flowcontrolv1.PriorityLevelConfigurationNameExempt) != (p.Spec.Type == exempt) && (p.Spec.Type == exempt || p.Spec.Type == limited) {
		errs = append(errs, field.Invalid(spec.Child("type"), p.Spec.Type, "must be 'Exempt' if and only if `name` is 'exempt'"))
	}
	switch p.Spec.Type {
	case exempt:
		if p.Spec.Limited != nil {
			errs = append(errs, field.Forbidden(spec.Child("limited"), "must be nil if the type is not Limited"))
		}
		if e := p.Spec.Exempt; e != nil {
			at := spec.Child("exempt")
			errs = append(errs, checkShares(e.NominalConcurrencyShares, e.LendablePercent, at)...)
		}
	case limited:
		if p.Spec.Exempt != nil {
			errs = append(errs, field.Forbidden(spec.Child("exempt"), "must be nil if the type is Limited"))
		}
		if p.Spec.Limited == nil {
			errs = append(errs, field.Required(spec.Child("limited"), ""))
		} else {
			errs = append(errs, checkLimited(p.Spec.Limited, spec.Child("limited"))...)
		}
	default:
		errs = append(errs, check.RequiredOneOf(p.Spec.Type, spec.Child("type"), exempt, limited)...)
	}
	if fixed := mandatoryLevel(p.Name); fixed != nil && !equality.Semantic.DeepEqual(p.Spec, *fixed) {
		errs = append(errs, field.Invalid(spec, check.GoNames(p.Spec), fmt.Sprintf("spec of '%s' must equal the fixed value", p.Name)))
	}
	return errs
}

func checkShares(shares, lendable *int32, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	if shares != nil && *shares < 0 {
		errs = append(errs, field.Invalid(path.Child("nominalConcurrencyShares"), *shares, "must be a non-negative integer"))
	}
	if lendable != nil && (*lendable < 0 || *lendable > 100) {
		errs = append(errs, field.Invalid(path.Child("lendablePercent"), *lendable, "must be between 0 and 100, inclusive"))
	}
	return errs
}

func checkLimited(l *flowcontrolv1.LimitedPriorityLevelConfiguration, path *field.Path) field.ErrorList {
	errs := checkShares(l.NominalConcurrencyShares, l.LendablePercent, path)
	if n := l.BorrowingLimitPercent; n != nil && *n < 0 {
		errs = append(errs, field.Invalid(path.Child("borrowingLimitPercent"), *n, "if specified, must be a non-negative integer"))
	}
	response := path.Child("limitResponse")
	queuing := response.Child("queuing")
	switch l.LimitResponse.Type {
	case flowcontrolv1.LimitResponseTypeReject:
		if l.LimitResponse.Queuing != nil {
			errs = append(errs, field.Forbidden(queuing, "must be nil if limited.limitResponse.type is not Limited"))
		}
	case flowcontrolv1.LimitResponseTypeQueue:
		if l.LimitResponse.Queuing == nil {
			return append(errs, field.Required(queuing, ""))
		}
		errs = append(errs, checkQueuing(l.LimitResponse.Queuing, queuing)...)
	default:
		errs = append(errs, check.RequiredOneOf(l.LimitResponse.Type, response.Child("type"), flowcontrolv1.LimitResponseTypeQueue, flowcontrolv1.LimitResponseTypeReject)...)
	}
	return errs
}

func checkQueuing(q *flowcontrolv1.QueuingConfiguration, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	positive := func(n int32, name string) bool {
		if n <= 0 {
			errs = append(errs, field.Invalid(path.Child(name), n, "must be positive"))
		}
		return n > 0
	}
	positive(q.QueueLengthLimit, "queueLengthLimit")
	queues := positive(q.Queues, "queues")
	if queues && q.Queues > maxQueues {
		errs = append(errs, field.Invalid(path.Child("queues"), q.Queues, fmt.Sprintf("must not be greater than %d", maxQueues)))
	}
	if !positive(q.HandSize, "handSize") || !queues {
		return errs
	}
	hand := path.Child("handSize")
	switch {
	case q.HandSize > q.Queues:
		errs = append(errs, field.Invalid(hand, q.HandSize, fmt.Sprintf("should not be greater than queues (%d)", q.Queues)))
	case int(math.Ceil(math.Log2(float64(q.Queues))*float64(q.HandSize))) > maxEntropyBits:
		errs = append(errs, field.Invalid(hand, q.HandSize, fmt.Sprintf("required entropy bits of deckSize %d and handSize %d should not be greater than %d", q.Queues, q.HandSize, maxEntropyBits)))
	}
	return errs
}
