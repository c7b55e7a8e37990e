package cel

import (
	"strings"
	"testing"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

const ruled = `
type: object
properties:
  spec:
    type: object
    x-kubernetes-validations:
    - {rule: '!has(self.min) || self.min <= self.max', message: min above max}
    - {rule: '!has(self.mode) || self.mode != "x"', messageExpression: '"mode is " + self.mode', reason: FieldValueForbidden, fieldPath: .mode}
    properties:
      min: {type: integer}
      max: {type: integer}
      mode: {type: string}
      fixed: {type: string, x-kubernetes-validations: [{rule: self == oldSelf, message: fixed is immutable}]}
      url: {type: string, x-kubernetes-validations: [{rule: isURL(self)}]}
      when: {type: string, format: date-time, x-kubernetes-validations: [{rule: 'self > timestamp("2020-01-01T00:00:00Z")'}]}
      list: {type: array, items: {type: integer}, x-kubernetes-validations: [{rule: 'self.isSorted() && self.sum() < 10'}]}
      namespace: {type: string}
      escaped: {type: object, properties: {a-b: {type: integer}}, x-kubernetes-validations: [{rule: self.a__dash__b > 0}]}
      once: {type: string, x-kubernetes-validations: [{rule: '!oldSelf.hasValue() || self == oldSelf.value()', optionalOldSelf: true}]}
`

func props(t *testing.T, text string) *apiextensions.JSONSchemaProps {
	t.Helper()
	p := &apiextensions.JSONSchemaProps{}
	if err := yaml.UnmarshalStrict([]byte(text), p); err != nil {
		t.Fatal(err)
	}
	return p
}

func object(t *testing.T, text string) map[string]any {
	t.Helper()
	if text == "" {
		return nil
	}
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]any{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(raw, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestValidate(t *testing.T) {
	rules := Compile(props(t, ruled))
	if left := rules.Unchecked(); len(left) > 0 {
		t.Fatalf("not compiled: %q", left)
	}
	for name, c := range map[string]struct{ in, old, want string }{
		"holds":              {in: "spec: {min: 1, max: 2, fixed: a, url: 'https://a/b', list: [1, 2], escaped: {a-b: 1}, when: '2021-01-01T00:00:00Z'}"},
		"message":            {in: "spec: {min: 3, max: 2}", want: "spec: Invalid value: min above max"},
		"an absent field":    {in: "spec: {min: 3}", want: `spec: Invalid value: "object": no such key: max evaluating rule: min above max`},
		"message expression": {in: "spec: {mode: x}", want: "spec.mode: Forbidden: mode is x"},
		"no transition":      {in: "spec: {fixed: b}", old: "spec: {}"},
		"transition":         {in: "spec: {fixed: b}", old: "spec: {fixed: a}", want: `spec.fixed: Invalid value: "b": fixed is immutable`},
		"optional, new":      {in: "spec: {once: b}"},
		"optional, changed":  {in: "spec: {once: b}", old: "spec: {once: a}", want: `spec.once: Invalid value: "b": failed rule: !oldSelf.hasValue() || self == oldSelf.value()`},
		"url":                {in: "spec: {url: nope}", want: `spec.url: Invalid value: "nope": failed rule: isURL(self)`},
		"lists":              {in: "spec: {list: [2, 1]}", want: "spec.list: Invalid value: failed rule: self.isSorted() && self.sum() < 10"},
		"time":               {in: "spec: {when: '2019-01-01T00:00:00Z'}", want: `spec.when: Invalid value: "2019-01-01T00:00:00Z": failed rule: self > timestamp("2020-01-01T00:00:00Z")`},
		"left alone":         {in: "spec: {url: nope, mode: a}", old: "spec: {url: nope}"},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			if err := rules.Validate(object(t, c.in), object(t, c.old)).ToAggregate(); err != nil {
				got = err.Error()
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	for rule, want := range map[string]string{
		`self == ""`:                "",
		`self ==`:                   "Syntax error",
		`self`:                      "cel expression must evaluate to a bool",
		`self + 1 > 2`:              "no matching overload",
		`unheard(self)`:             "undeclared reference to 'unheard'",
		`quantity(self).sign() > 0`: "", // kept, not run
	} {
		p := &apiextensions.JSONSchemaProps{Type: "string", XValidations: apiextensions.ValidationRules{{Rule: rule}}}
		errs := Check(p, field.NewPath("schema"))
		switch {
		case want == "" && len(errs) > 0:
			t.Errorf("%s: %v", rule, errs)
		case want != "" && (len(errs) != 1 || !strings.Contains(errs[0].Error(), want) || errs[0].Field != "schema.x-kubernetes-validations[0].rule"):
			t.Errorf("%s: %v, want %q", rule, errs, want)
		}
	}
	if Compile(&apiextensions.JSONSchemaProps{Type: "object"}) != nil {
		t.Error("a schema without rules has some")
	}
}
