package core

import (
	"crypto/tls"
	"encoding/json"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/kind"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

// Secret is confidential data for pods and the cluster. Its type says which keys it must have.
func secret() *kind.Definition {
	doc := corev1.Secret{}.SwaggerDoc()
	return &kind.Definition{
		Version: "v1", Kind: "Secret", Plural: "secrets",
		Scope: kind.Namespaced, Verbs: kind.Standard,
		New:            kind.Of[corev1.Secret](),
		Default:        kind.Default(defaultSecret),
		Validate:       kind.Validate(validateSecret),
		ValidateUpdate: kind.ValidateUpdate(validateSecretUpdate),
		Warnings:       kind.Warn(warnSecret),
		Fields:         []kind.Field{{Label: "type"}},
		FieldsUnknown:  labelNotSupported,
		Columns: kind.Columns{
			{Name: "Type", Description: doc["type"], Of: kind.Cell(func(s *corev1.Secret) any { return string(s.Type) })},
			{Name: "Data", Description: doc["data"], Of: kind.Cell(func(s *corev1.Secret) any { return int64(len(s.Data)) })},
			kind.Age,
		},
		ColumnFields: []string{"type", "data.key", "stringData.key"},
	}
}

// defaultSecret also moves stringData, which is write-only, into data.
func defaultSecret(s *corev1.Secret) {
	if s.Type == "" {
		s.Type = corev1.SecretTypeOpaque
	}
	if len(s.StringData) > 0 && s.Data == nil {
		s.Data = make(map[string][]byte, len(s.StringData))
	}
	for k, v := range s.StringData {
		s.Data[k] = []byte(v)
	}
	s.StringData = nil
}

const redacted = "<secret contents redacted>"

func validateSecret(s *corev1.Secret) field.ErrorList {
	var errs field.ErrorList
	data := field.NewPath("data")
	size := 0
	for _, k := range check.Sorted(s.Data) {
		errs = append(errs, check.Each(data.Key(k), k, validation.IsConfigMapKey(k))...)
		size += len(s.Data[k])
	}
	if size > corev1.MaxSecretSize {
		errs = append(errs, field.TooLong(data, "", corev1.MaxSecretSize))
	}
	return append(errs, validateSecretType(s, data)...)
}

func validateSecretType(s *corev1.Secret, data *field.Path) field.ErrorList {
	var errs field.ErrorList
	need := func(key string) bool {
		if _, ok := s.Data[key]; ok {
			return true
		}
		errs = append(errs, field.Required(data.Key(key), ""))
		return false
	}
	needJSON := func(key string) {
		if !need(key) {
			return
		}
		if err := json.Unmarshal(s.Data[key], &map[string]any{}); err != nil {
			errs = append(errs, field.Invalid(data.Key(key), redacted, err.Error()))
		}
	}
	switch s.Type {
	case corev1.SecretTypeServiceAccountToken:
		if s.Annotations[corev1.ServiceAccountNameKey] == "" {
			errs = append(errs, field.Required(field.NewPath("metadata", "annotations").Key(corev1.ServiceAccountNameKey), ""))
		}
	case corev1.SecretTypeDockercfg:
		needJSON(corev1.DockerConfigKey)
	case corev1.SecretTypeDockerConfigJson:
		needJSON(corev1.DockerConfigJsonKey)
	case corev1.SecretTypeBasicAuth:
		_, user := s.Data[corev1.BasicAuthUsernameKey]
		_, password := s.Data[corev1.BasicAuthPasswordKey]
		if !user && !password {
			need(corev1.BasicAuthUsernameKey)
			need(corev1.BasicAuthPasswordKey)
		}
	case corev1.SecretTypeSSHAuth:
		if len(s.Data[corev1.SSHAuthPrivateKey]) == 0 {
			errs = append(errs, field.Required(data.Key(corev1.SSHAuthPrivateKey), ""))
		}
	case corev1.SecretTypeTLS:
		need(corev1.TLSCertKey)
		need(corev1.TLSPrivateKeyKey)
	}
	return errs
}

func validateSecretUpdate(s, old *corev1.Secret) field.ErrorList {
	errs := check.Immutable(s.Type, old.Type, field.NewPath("type"))
	if ptr.Deref(old.Immutable, false) {
		errs = append(errs, keepImmutable(s.Immutable)...)
		errs = append(errs, keepWhenImmutable(s.Data, old.Data, field.NewPath("data"))...)
	}
	return append(errs, validateSecret(s)...)
}

// warnSecret tells of a TLS key pair that TLS cannot use.
func warnSecret(s, _ *corev1.Secret) []string {
	if s.Type != corev1.SecretTypeTLS {
		return nil
	}
	if _, err := tls.X509KeyPair(s.Data[corev1.TLSCertKey], s.Data[corev1.TLSPrivateKeyKey]); err != nil {
		return []string{err.Error()}
	}
	return nil
}
