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

// repeatedKeys takes the error about duplicate keys apart: a warning for each.
func repeatedKeys(err error) []error {
	var each []error
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "line ") {
			each = append(each, errors.New(line))
		}
	}
	return each
}
