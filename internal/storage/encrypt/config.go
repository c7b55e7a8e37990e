package encrypt

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// configuration is an EncryptionConfiguration (apiserver.config.k8s.io/v1).
type configuration struct {
	metav1.TypeMeta `json:",inline"`
	Resources       []resourceConfiguration `json:"resources"`
}

type resourceConfiguration struct {
	Resources []string                `json:"resources"`
	Providers []providerConfiguration `json:"providers"`
}

// providerConfiguration has exactly one field.
type providerConfiguration struct {
	AESGCM    *keys      `json:"aesgcm,omitempty"`
	AESCBC    *keys      `json:"aescbc,omitempty"`
	Secretbox *keys      `json:"secretbox,omitempty"`
	Identity  *struct{}  `json:"identity,omitempty"`
	KMS       *kmsConfig `json:"kms,omitempty"`
}

type keys struct {
	Keys []key `json:"keys"`
}

type key struct {
	Name   string `json:"name"`
	Secret string `json:"secret"` // base64
}

type kmsConfig struct {
	APIVersion string           `json:"apiVersion,omitempty"` // "v1" if empty
	Name       string           `json:"name"`
	CacheSize  *int32           `json:"cachesize,omitempty"` // of v1
	Endpoint   string           `json:"endpoint"`            // unix:///path
	Timeout    *metav1.Duration `json:"timeout,omitempty"`
}

const (
	apiVersion = "apiserver.config.k8s.io/v1"
	kindName   = "EncryptionConfiguration"

	// defaultTimeout of a call of a plug-in.
	defaultTimeout = 3 * time.Second
)

var (
	aesKeySizes       = []int{16, 24, 32}
	secretBoxKeySizes = []int{secretBoxKey}
)

// parse reads a configuration in YAML or JSON, refusing fields that are unknown or there twice, and checks it. Errors
// show no secrets.
func parse(data []byte) (*configuration, error) {
	text, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, err
	}
	var meta metav1.TypeMeta
	if err := json.Unmarshal(text, &meta); err != nil {
		return nil, errors.New("it is not an object")
	}
	switch {
	case meta.Kind == "":
		return nil, errors.New("Object 'Kind' is missing")
	case meta.APIVersion != apiVersion || meta.Kind != kindName:
		return nil, fmt.Errorf("no kind %q is registered for version %q", meta.Kind, meta.APIVersion)
	}
	c := &configuration{}
	strict, err := kjson.UnmarshalStrict(text, c)
	if err != nil {
		return nil, err
	}
	if len(strict) > 0 {
		texts := make([]string, len(strict))
		for i, e := range strict {
			texts[i] = e.Error()
		}
		return nil, errors.New("strict decoding error: " + strings.Join(texts, ", "))
	}
	c.setDefaults()
	return c, c.validate().ToAggregate()
}

func (c *configuration) setDefaults() {
	for _, r := range c.Resources {
		for _, p := range r.Providers {
			if k := p.KMS; k != nil {
				if k.APIVersion == "" {
					k.APIVersion = "v1"
				}
				if k.Timeout == nil {
					k.Timeout = &metav1.Duration{Duration: defaultTimeout}
				}
			}
		}
	}
}

func (c *configuration) validate() (errs field.ErrorList) {
	root := field.NewPath("resources")
	if len(c.Resources) == 0 {
		return field.ErrorList{field.Required(root, "at least one resource is required")}
	}
	plugins := sets.New[string]()
	var earlier []string
	for i, r := range c.Resources {
		at := root.Index(i)
		if len(r.Resources) == 0 {
			errs = append(errs, field.Required(at.Child("resources"), "at least one resource is required"))
		}
		errs = append(errs, validateNames(r.Resources, at.Child("resources"))...)
		errs = append(errs, validateMasks(r.Resources, earlier, at.Child("resources"))...)
		earlier = append(earlier, r.Resources...)
		if len(r.Providers) == 0 {
			errs = append(errs, field.Required(at.Child("providers"), "at least one provider is required"))
		}
		for j := range r.Providers {
			errs = append(errs, r.Providers[j].validate(at.Child("providers").Index(j), plugins)...)
		}
	}
	return errs
}

// unserved are stored like resources of the core group, but no API shows them.
var unserved = []string{"serviceipallocations", "servicenodeportallocations", "apiserveripinfo"}

// validateNames checks the names of one list.
func validateNames(names []string, at *field.Path) (errs field.ErrorList) {
	bad := func(i int, why string) { errs = append(errs, field.Invalid(at.Index(i), names[i], why)) }
	for i, name := range names {
		group := ParseResource(name).Group
		switch {
		case name == "":
			errs = append(errs, field.Required(at.Index(i), "resource name must not be empty"))
		case strings.ToLower(name) != name:
			bad(i, "resource name should not contain capital letters")
		case name == "*":
			bad(i, "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources")
		case strings.HasPrefix(name, "*.") && strings.Contains(name[2:], "*") && name != "*.*",
			!strings.HasPrefix(name, "*.") && strings.Contains(name, "*"):
			bad(i, "encrypting the same resource across groups is not supported")
		case slices.Contains(unserved, name):
			bad(i, "resources which do not have REST API/s cannot be encrypted")
		case group == "events.k8s.io":
			bad(i, fmt.Sprintf("'%s' objects are stored using the 'events' API group in etcd. Use 'events' instead in the config file", name))
		case group == "extensions":
			bad(i, "'extensions' group has been removed and cannot be used for encryption")
		case slices.Contains(names[:i], name):
			errs = append(errs, field.Invalid(at.Index(i), name, "the same resource cannot be specified multiple times"))
		}
	}
	for i, name := range names {
		for j, wide := range names {
			if i != j && name != wide && covers(wide, name) {
				return append(errs, field.Invalid(at, names, "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed as they will be masked"))
			}
		}
	}
	return errs
}

// validateMasks refuses names that can have no effect: a wildcard in an earlier list takes all that they mean.
func validateMasks(names, earlier []string, at *field.Path) (errs field.ErrorList) {
	for i, name := range names {
		for _, wide := range earlier {
			if strings.HasPrefix(wide, "*.") && covers(wide, name) {
				errs = append(errs, field.Invalid(at.Index(i), name, fmt.Sprintf("resource %q is masked by earlier rule %q", name, wide)))
				break
			}
		}
	}
	return errs
}

// covers reports whether what narrow means is part of what wide means.
func covers(wide, narrow string) bool {
	if wide == "*.*" || wide == narrow {
		return true
	}
	group, isWide := strings.CutPrefix(wide, "*.")
	return isWide && narrow != "*.*" && ParseResource(narrow).Group == group
}

func (p *providerConfiguration) validate(at *field.Path, plugins sets.Set[string]) (errs field.ErrorList) {
	found := 0
	for _, one := range []struct {
		name  string
		keys  *keys
		sizes []int
	}{
		{"aesgcm", p.AESGCM, aesKeySizes}, {"aescbc", p.AESCBC, aesKeySizes}, {"secretbox", p.Secretbox, secretBoxKeySizes},
	} {
		if one.keys != nil {
			found++
			errs = append(errs, one.keys.validate(at.Child(one.name, "keys"), one.sizes)...)
		}
	}
	if p.KMS != nil {
		found++
		errs = append(errs, p.KMS.validate(at.Child("kms"), plugins)...)
	}
	if p.Identity != nil {
		found++
	}
	switch {
	case found == 0:
		return append(errs, field.Invalid(at, "{}", "provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, Identity"))
	case found > 1:
		return append(errs, field.Invalid(at, "REDACTED", "more than one provider specified in a single element, should split into different list elements"))
	}
	return errs
}

func (k *keys) validate(at *field.Path, sizes []int) (errs field.ErrorList) {
	if len(k.Keys) == 0 {
		return field.ErrorList{field.Required(at, "at least one key is required")}
	}
	for i, one := range k.Keys {
		at := at.Index(i)
		if one.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), "name is a mandatory field for a key"))
		}
		if one.Secret == "" {
			errs = append(errs, field.Required(at.Child("secret"), "secret is a mandatory field for a key"))
			continue
		}
		secret, err := base64.StdEncoding.DecodeString(one.Secret)
		if err != nil {
			errs = append(errs, field.Invalid(at.Child("secret"), "REDACTED", "secrets must be base64 encoded"))
		} else if !slices.Contains(sizes, len(secret)) {
			errs = append(errs, field.Invalid(at.Child("secret"), "REDACTED", fmt.Sprintf("secret is not of the expected length, got %d, expected one of %v", len(secret), sizes)))
		}
	}
	return errs
}

func (k *kmsConfig) validate(at *field.Path, plugins sets.Set[string]) (errs field.ErrorList) {
	switch {
	case k.Name == "":
		errs = append(errs, field.Required(at.Child("name"), "name is a mandatory field for a provider"))
	case k.APIVersion != "v1" && strings.Contains(k.Name, ":"):
		errs = append(errs, field.Invalid(at.Child("name"), k.Name, fmt.Sprintf("invalid KMS provider name %s, must not contain ':'", k.Name)))
	case k.APIVersion != "v1" && plugins.Has(k.Name):
		errs = append(errs, field.Invalid(at.Child("name"), k.Name, fmt.Sprintf("duplicate KMS provider name %s, names must be unique", k.Name)))
	}
	plugins.Insert(k.Name)
	if k.Timeout.Duration <= 0 {
		errs = append(errs, field.Invalid(at.Child("timeout"), k.Timeout.Duration.String(), "timeout should be a positive value"))
	}
	if _, err := dialTarget(k.Endpoint); k.Endpoint == "" {
		errs = append(errs, field.Invalid(at.Child("endpoint"), "", "endpoint is a mandatory field for a provider"))
	} else if err != nil {
		errs = append(errs, field.Invalid(at.Child("endpoint"), k.Endpoint, err.Error()))
	}
	switch k.APIVersion {
	case "v1":
		errs = append(errs, field.Forbidden(at, "KMSv1 is deprecated and will only receive security updates going forward. Use KMSv2 instead.  Set --feature-gates=KMSv1=true to use the deprecated KMSv1 feature."))
	case "v2":
		if k.CacheSize != nil {
			errs = append(errs, field.Invalid(at.Child("cachesize"), *k.CacheSize, "cachesize is not supported in v2"))
		}
	default:
		errs = append(errs, field.Invalid(at.Child("apiVersion"), k.APIVersion, fmt.Sprintf("unsupported apiVersion %s for KMS provider, only v1 and v2 are supported", k.APIVersion)))
	}
	return errs
}

// dialTarget is a plug-in's endpoint as gRPC names it: unix:///path, or unix:///@name in the abstract name space.
func dialTarget(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil:
		return "", fmt.Errorf("invalid endpoint for kms provider, error: %w", err)
	case u.Scheme != "unix":
		return "", fmt.Errorf("unsupported scheme %q for KMS provider, only unix is supported", u.Scheme)
	case u.Host+u.Path == "":
		return "", errors.New("invalid endpoint for kms provider, error: no path")
	}
	if name, abstract := strings.CutPrefix(strings.TrimPrefix(u.Path, "/"), "@"); abstract {
		return "unix-abstract:" + name, nil
	}
	return "unix:" + u.Host + u.Path, nil
}
