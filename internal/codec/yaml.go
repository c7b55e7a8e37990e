package codec

import (
	"errors"
	"strings"
)

// trimYAML takes the library's prefixes off an error, so that they are not doubled.
func trimYAML(err error) error {
	text := err.Error()
	for _, prefix := range []string{"error converting YAML to JSON: ", "yaml: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return errors.New(text)
}

// trimStrictYAML is trimYAML for duplicate keys.
func trimStrictYAML(err error) error {
	return errors.New(strings.TrimPrefix(err.Error(), "error converting YAML to JSON: "))
}
