package schema

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/sets"
)

// knownFormats are those that are checked; others are remarks ("Extend your API: formats").
var knownFormats = sets.New(
	"bsonobjectid", "uri", "email", "hostname", "ipv4", "ipv6", "cidr", "mac", "uuid", "uuid3", "uuid4", "uuid5", "isbn", "isbn10", "isbn13",
	"creditcard", "ssn", "hexcolor", "rgbcolor", "byte", "password", "date", "duration", "datetime", "date-time", "int32", "int64", "float", "double",
	"k8s-short-name", "k8s-long-name",
)

func known(format string) bool { return knownFormats.Has(strings.ReplaceAll(format, "_", "-")) }

// Warnings tells the author of a schema of formats of texts that nobody checks.
func Warnings(root *apiextensions.JSONSchemaProps) []string {
	unknown := sets.New[string]()
	unknownFormats(root, unknown)
	var texts []string
	for _, format := range sets.List(unknown) {
		texts = append(texts, fmt.Sprintf("unrecognized format %q", format))
	}
	return texts
}

func unknownFormats(s *apiextensions.JSONSchemaProps, into sets.Set[string]) {
	if s.Type == "string" && s.Format != "" && !known(s.Format) {
		into.Insert(s.Format)
	}
	for _, name := range slices.Sorted(maps.Keys(s.Properties)) {
		property := s.Properties[name]
		unknownFormats(&property, into)
	}
	if s.Items != nil && s.Items.Schema != nil {
		unknownFormats(s.Items.Schema, into)
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		unknownFormats(s.AdditionalProperties.Schema, into)
	}
}
