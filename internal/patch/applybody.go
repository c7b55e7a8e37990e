package patch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// ParseApply reads the body of an apply, YAML or JSON. strict are its repeated
// keys: warnings, or under fieldValidation Strict the error of StrictApply. Errors are 400.
// Unknown fields are no warnings: Ownership.Apply refuses them.
func ParseApply(body []byte) (applied *unstructured.Unstructured, strict []error, err error) {
	applied = &unstructured.Unstructured{}
	// Most bodies are JSON, which need not be read as YAML.
	if trimmed := bytes.TrimLeft(body, " \t\r\n"); len(trimmed) > 0 && trimmed[0] == '{' && json.Valid(body) {
		if repeated, err := kjson.UnmarshalStrict(body, &applied.Object); err == nil && len(repeated) == 0 {
			return applied, nil, nil
		}
		applied.Object = nil
	}
	text, err := yaml.YAMLToJSON(body)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest("error encoding patch: " + err.Error())
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, &applied.Object); err != nil {
		return nil, nil, errUndecodable("error unmarshaling JSON: while decoding JSON: " + err.Error())
	}
	if applied.Object == nil {
		applied.Object = map[string]any{}
	}
	if _, err := yaml.YAMLToJSONStrict(body); err != nil {
		// The first line says that it is an error, each further one names a key.
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "line ") {
				strict = append(strict, errors.New(line))
			}
		}
	}
	return applied, strict, nil
}

// StrictApply is the error for an apply with repeated keys under fieldValidation Strict.
func StrictApply(strict []error) error {
	lines := make([]string, len(strict))
	for i, err := range strict {
		lines[i] = "  " + err.Error()
	}
	return apierrors.NewBadRequest(fmt.Sprintf("error strict decoding patch: error converting YAML to JSON: yaml: unmarshal errors:\n%s", strings.Join(lines, "\n")))
}
