package check

import (
	"fmt"
	"net/url"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const desiredURL = "; desired format: https://host[/path]"

// WebhookURL wants the URL of a webhook: https, a host, no user, query or fragment.
func WebhookURL(text string, path *field.Path) field.ErrorList {
	u, err := url.Parse(text)
	if err != nil {
		return field.ErrorList{field.Required(path, "url must be a valid URL: "+err.Error()+desiredURL)}
	}
	var errs field.ErrorList
	if u.Scheme != "https" {
		errs = append(errs, field.Invalid(path, u.Scheme, "'https' is the only allowed URL scheme"+desiredURL))
	}
	if u.Host == "" {
		errs = append(errs, field.Invalid(path, u.Host, "host must be specified"+desiredURL))
	}
	if u.User != nil {
		errs = append(errs, field.Invalid(path, u.User.String(), "user information is not permitted in the URL"))
	}
	if u.Fragment != "" {
		errs = append(errs, field.Invalid(path, u.Fragment, "fragments are not permitted in the URL"))
	}
	if u.RawQuery != "" {
		errs = append(errs, field.Invalid(path, u.RawQuery, "query parameters are not permitted in the URL"))
	}
	return errs
}

// WebhookService wants the service that a webhook is behind.
func WebhookService(name, namespace string, urlPath *string, port int32, path *field.Path) field.ErrorList {
	errs := Required(name, path.Child("name"))
	errs = append(errs, Required(namespace, path.Child("namespace"))...)
	for _, m := range validation.IsValidPortNum(int(port)) {
		errs = append(errs, field.Invalid(path.Child("port"), port, "port is not valid: "+m))
	}
	if urlPath == nil {
		return errs
	}
	at, text := path.Child("path"), *urlPath
	switch {
	case text == "/" || text == "":
		return errs
	case text == "//":
		return append(errs, field.Invalid(at, text, "segment[0] may not be empty"))
	case !strings.HasPrefix(text, "/"):
		errs = append(errs, field.Invalid(at, text, "must start with a '/'"))
	}
	for i, step := range strings.Split(strings.TrimSuffix(text[1:], "/"), "/") {
		if step == "" {
			errs = append(errs, field.Invalid(at, text, fmt.Sprintf("segment[%d] may not be empty", i)))
			continue
		}
		for _, m := range validation.IsDNS1123Subdomain(step) {
			errs = append(errs, field.Invalid(at, text, fmt.Sprintf("segment[%d]: %v", i, m)))
		}
	}
	return errs
}

// WebhookVersions wants the versions of the review that a webhook understands: each once, and one that the server sends.
func WebhookVersions(versions []string, path *field.Path) field.ErrorList {
	if len(versions) == 0 {
		return field.ErrorList{field.Required(path, "must specify one of v1, v1beta1")}
	}
	var errs field.ErrorList
	known := false
	seen := map[string]bool{}
	for i, v := range versions {
		if seen[v] {
			errs = append(errs, field.Invalid(path.Index(i), v, "duplicate version"))
			continue
		}
		seen[v] = true
		errs = append(errs, Each(path.Index(i), v, validation.IsDNS1035Label(v))...)
		known = known || v == "v1" || v == "v1beta1"
	}
	if !known {
		errs = append(errs, field.Invalid(path, versions, "must include at least one of v1, v1beta1"))
	}
	return errs
}
