package admissionregistration

import (
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

const (
	defaultTimeoutSeconds = 10
	maxTimeoutSeconds     = 30
	defaultWebhookPort    = 443
	minNameSegments       = 3
)

const webhooksText = "Webhooks indicates the number of webhooks registered in this configuration"

// webhook is what both kinds of webhooks have, in the form of the validating ones.
type webhook = admissionv1.ValidatingWebhook

// asValidating is a mutating webhook without what only it has. The parts that are filled in stay shared.
func asValidating(w *admissionv1.MutatingWebhook) webhook {
	return webhook{
		Name: w.Name, ClientConfig: w.ClientConfig, Rules: w.Rules, FailurePolicy: w.FailurePolicy, MatchPolicy: w.MatchPolicy,
		NamespaceSelector: w.NamespaceSelector, ObjectSelector: w.ObjectSelector, SideEffects: w.SideEffects,
		TimeoutSeconds: w.TimeoutSeconds, AdmissionReviewVersions: w.AdmissionReviewVersions, MatchConditions: w.MatchConditions,
	}
}

// ValidatingWebhookConfiguration names webhooks that are asked before a request is granted.
func validatingWebhooks(o Options) *kind.Definition {
	validate := func(c, old *admissionv1.ValidatingWebhookConfiguration) field.ErrorList {
		var was []webhook
		if old != nil {
			was = old.Webhooks
		}
		return checkWebhooks(c.Webhooks, was, o)
	}
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "ValidatingWebhookConfiguration", Plural: "validatingwebhookconfigurations", Categories: categories,
		Scope: kind.Cluster, Verbs: kind.Standard, MustMatch: true, AnyFinalizer: true,
		New: kind.Of[admissionv1.ValidatingWebhookConfiguration](),
		Default: kind.Default(func(c *admissionv1.ValidatingWebhookConfiguration) {
			for i := range c.Webhooks {
				defaultWebhook(&c.Webhooks[i])
			}
		}),
		Generation: kind.Changed(func(c, old *admissionv1.ValidatingWebhookConfiguration) bool {
			return !equality.Semantic.DeepEqual(c.Webhooks, old.Webhooks)
		}),
		Validate:       kind.Validate(func(c *admissionv1.ValidatingWebhookConfiguration) field.ErrorList { return validate(c, nil) }),
		ValidateUpdate: kind.ValidateUpdate(validate),
		Columns: kind.Columns{
			{Name: "Webhooks", Type: "integer", Description: webhooksText, Of: kind.Cell(func(c *admissionv1.ValidatingWebhookConfiguration) any { return int64(len(c.Webhooks)) })},
			kind.Age,
		},
		ColumnFields: []string{"webhooks.name"},
	}
}

// MutatingWebhookConfiguration names webhooks that may change what is requested.
func mutatingWebhooks(o Options) *kind.Definition {
	validate := func(c, old *admissionv1.MutatingWebhookConfiguration) field.ErrorList {
		var now, was []webhook
		for i := range c.Webhooks {
			now = append(now, asValidating(&c.Webhooks[i]))
		}
		if old != nil {
			for i := range old.Webhooks {
				was = append(was, asValidating(&old.Webhooks[i]))
			}
		}
		errs := checkWebhooks(now, was, o)
		for i, w := range c.Webhooks {
			if w.ReinvocationPolicy != nil {
				errs = append(errs, check.OneOf(*w.ReinvocationPolicy, field.NewPath("webhooks").Index(i).Child("reinvocationPolicy"),
					admissionv1.IfNeededReinvocationPolicy, admissionv1.NeverReinvocationPolicy)...)
			}
		}
		return errs
	}
	return &kind.Definition{
		Group: group, Version: "v1", Kind: "MutatingWebhookConfiguration", Plural: "mutatingwebhookconfigurations", Categories: categories,
		Scope: kind.Cluster, Verbs: kind.Standard, MustMatch: true, AnyFinalizer: true,
		New: kind.Of[admissionv1.MutatingWebhookConfiguration](),
		Default: kind.Default(func(c *admissionv1.MutatingWebhookConfiguration) {
			for i := range c.Webhooks {
				w := &c.Webhooks[i]
				filled := asValidating(w)
				defaultWebhook(&filled)
				w.FailurePolicy, w.MatchPolicy, w.TimeoutSeconds = filled.FailurePolicy, filled.MatchPolicy, filled.TimeoutSeconds
				w.NamespaceSelector, w.ObjectSelector = filled.NamespaceSelector, filled.ObjectSelector
				if w.ReinvocationPolicy == nil {
					w.ReinvocationPolicy = ptr.To(admissionv1.NeverReinvocationPolicy)
				}
			}
		}),
		Generation: kind.Changed(func(c, old *admissionv1.MutatingWebhookConfiguration) bool {
			return !equality.Semantic.DeepEqual(c.Webhooks, old.Webhooks)
		}),
		Validate:       kind.Validate(func(c *admissionv1.MutatingWebhookConfiguration) field.ErrorList { return validate(c, nil) }),
		ValidateUpdate: kind.ValidateUpdate(validate),
		Columns: kind.Columns{
			{Name: "Webhooks", Type: "integer", Description: webhooksText, Of: kind.Cell(func(c *admissionv1.MutatingWebhookConfiguration) any { return int64(len(c.Webhooks)) })},
			kind.Age,
		},
		ColumnFields: []string{"webhooks.name"},
	}
}

func defaultWebhook(w *webhook) {
	if w.FailurePolicy == nil {
		w.FailurePolicy = ptr.To(admissionv1.Fail)
	}
	if w.MatchPolicy == nil {
		w.MatchPolicy = ptr.To(admissionv1.Equivalent)
	}
	defaultSelector(&w.NamespaceSelector)
	defaultSelector(&w.ObjectSelector)
	if w.TimeoutSeconds == nil {
		w.TimeoutSeconds = ptr.To[int32](defaultTimeoutSeconds)
	}
	for i := range w.Rules {
		defaultRule(&w.Rules[i].Rule)
	}
	if s := w.ClientConfig.Service; s != nil && s.Port == nil {
		s.Port = ptr.To[int32](defaultWebhookPort)
	}
}

func checkWebhooks(webhooks, old []webhook, o Options) field.ErrorList {
	path := field.NewPath("webhooks")
	e := &expressions{Options: o, known: map[string]bool{}}
	for _, w := range old {
		for _, c := range w.MatchConditions {
			e.known[c.Expression] = true
		}
	}
	var errs field.ErrorList
	seen := map[string]bool{}
	for i := range webhooks {
		w, at := &webhooks[i], path.Index(i)
		errs = append(errs, checkWebhook(w, e, at)...)
		errs = append(errs, check.WebhookVersions(w.AdmissionReviewVersions, at.Child("admissionReviewVersions"))...)
		if seen[w.Name] && w.Name != "" {
			errs = append(errs, field.Duplicate(at.Child("name"), w.Name))
		}
		seen[w.Name] = true
	}
	return errs
}

func checkWebhook(w *webhook, e *expressions, path *field.Path) field.ErrorList {
	name := path.Child("name")
	errs := check.RequiredForm(w.Name, name, check.Subdomain)
	if len(errs) == 0 && len(strings.Split(w.Name, ".")) < minNameSegments {
		errs = append(errs, field.Invalid(name, w.Name, "should be a domain with at least three segments separated by dots"))
	}
	for i := range w.Rules {
		errs = append(errs, checkRule(&w.Rules[i], path.Child("rules").Index(i))...)
	}
	errs = append(errs, checkFailurePolicy(w.FailurePolicy, path)...)
	if w.MatchPolicy != nil {
		errs = append(errs, check.OneOf(*w.MatchPolicy, path.Child("matchPolicy"), matchPolicies...)...)
	}
	if w.SideEffects == nil {
		errs = append(errs, field.Required(path.Child("sideEffects"), "must specify one of None, NoneOnDryRun"))
	} else {
		errs = append(errs, check.OneOf(*w.SideEffects, path.Child("sideEffects"), admissionv1.SideEffectClassNone, admissionv1.SideEffectClassNoneOnDryRun)...)
	}
	if n := w.TimeoutSeconds; n != nil && (*n < 1 || *n > maxTimeoutSeconds) {
		errs = append(errs, field.Invalid(path.Child("timeoutSeconds"), *n, "the timeout value must be between 1 and 30 seconds"))
	}
	if w.NamespaceSelector != nil {
		errs = append(errs, check.Selector(w.NamespaceSelector, nil, path.Child("namespaceSelector"))...)
	}
	if w.ObjectSelector != nil {
		errs = append(errs, check.Selector(w.ObjectSelector, nil, path.Child("objectSelector"))...)
	}
	client := path.Child("clientConfig")
	switch c := &w.ClientConfig; {
	case (c.URL == nil) == (c.Service == nil):
		errs = append(errs, field.Required(client, "exactly one of url or service is required"))
	case c.URL != nil:
		errs = append(errs, check.WebhookURL(*c.URL, client.Child("url"))...)
	default:
		errs = append(errs, check.WebhookService(c.Service.Name, c.Service.Namespace, c.Service.Path, ptr.Deref(c.Service.Port, defaultWebhookPort), client.Child("service"))...)
	}
	return append(errs, checkConditions(w.MatchConditions, e, path.Child("matchConditions"))...)
}
