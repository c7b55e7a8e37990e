package node

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sort"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// configError is a mistake in what a container asks for; it is reported as
// CreateContainerConfigError and tried again when the objects change.
type configError struct{ error }

func configErrorf(format string, args ...any) error {
	return configError{fmt.Errorf(format, args...)}
}

func (e configError) Unwrap() error { return e.error }

// errNotSynced: an object's watch has not delivered yet; the worker is woken
// when it does.
var errNotSynced = errors.New("object not read yet")

// podFacts is what field references and the environment read besides the spec.
type podFacts struct {
	podIPs      []string
	hostIPs     []string
	allocatable v1.ResourceList
}

// environment builds a container's environment, in the order of its sources:
// services, envFrom, env. warn is told of keys that cannot be variables.
func environment(pod *v1.Pod, c *v1.Container, facts podFacts, services []*v1.Service, objects objectReader, files func(*v1.FileKeySelector) (string, bool, error), warn func(reason, message string)) ([]*runtimeapi.KeyValue, error) {
	env := map[string]string{}
	fromServices := serviceEnvironment(pod.Namespace, services, pod.Spec.EnableServiceLinks == nil || *pod.Spec.EnableServiceLinks)

	for i := range c.EnvFrom {
		if err := addEnvFrom(env, pod.Namespace, &c.EnvFrom[i], objects, warn); err != nil {
			return nil, err
		}
	}

	// A variable may use those before it, and the service variables.
	lookup := func(name string) (string, bool) {
		if v, ok := env[name]; ok {
			return v, true
		}
		v, ok := fromServices[name]
		return v, ok
	}
	for _, e := range c.Env {
		value := e.Value
		if value != "" {
			value = expand(value, lookup)
		} else if e.ValueFrom != nil {
			v, ok, err := valueFrom(pod, c, e, facts, objects, files)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			value = v
		}
		env[e.Name] = value
	}
	for name, value := range fromServices {
		if _, ok := env[name]; !ok {
			env[name] = value
		}
	}

	out := make([]*runtimeapi.KeyValue, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, &runtimeapi.KeyValue{Key: name, Value: []byte(env[name])})
	}
	return out, nil
}

func addEnvFrom(env map[string]string, namespace string, from *v1.EnvFromSource, objects objectReader, warn func(reason, message string)) error {
	var (
		data   map[string]string
		kind   string
		object string
	)
	switch {
	case from.ConfigMapRef != nil:
		kind, object = "ConfigMap", from.ConfigMapRef.Name
		configMap, err := objects.configMap(namespace, object)
		if isMissing(err) && isTrue(from.ConfigMapRef.Optional) {
			return nil
		}
		if err != nil {
			return configError{err}
		}
		data = configMap.Data
	case from.SecretRef != nil:
		kind, object = "Secret", from.SecretRef.Name
		secret, err := objects.secret(namespace, object)
		if isMissing(err) && isTrue(from.SecretRef.Optional) {
			return nil
		}
		if err != nil {
			return configError{err}
		}
		data = map[string]string{}
		for k, v := range secret.Data {
			data[k] = string(v)
		}
	}
	var invalid []string
	for key, value := range data {
		name := from.Prefix + key
		if len(validation.IsRelaxedEnvVarName(name)) > 0 {
			invalid = append(invalid, name)
			continue
		}
		env[name] = value
	}
	if len(invalid) > 0 {
		sort.Strings(invalid)
		warn("InvalidEnvironmentVariableNames", fmt.Sprintf("Keys [%s] from the EnvFrom %s %s/%s were skipped since they are considered invalid environment variable names.",
			strings.Join(invalid, ", "), strings.ToLower(kind[:1])+kind[1:], namespace, object))
	}
	return nil
}

func valueFrom(pod *v1.Pod, c *v1.Container, e v1.EnvVar, facts podFacts, objects objectReader, files func(*v1.FileKeySelector) (string, bool, error)) (value string, ok bool, err error) {
	from := e.ValueFrom
	switch {
	case from.FieldRef != nil:
		value, ok := fieldValue(pod, from.FieldRef.FieldPath, facts)
		if !ok {
			return "", false, configErrorf("unsupported fieldPath: %v", from.FieldRef.FieldPath)
		}
		return value, true, nil
	case from.ResourceFieldRef != nil:
		of := c
		if name := from.ResourceFieldRef.ContainerName; name != "" && name != c.Name {
			if _, of = findContainer(pod, name); of == nil {
				return "", false, configErrorf("container %s not found", name)
			}
		}
		value, ok := resourceField(of, from.ResourceFieldRef, facts.allocatable)
		if !ok {
			return "", false, configErrorf("unsupported container resource : %v", from.ResourceFieldRef.Resource)
		}
		return value, true, nil
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		configMap, err := objects.configMap(pod.Namespace, ref.Name)
		if isMissing(err) && isTrue(ref.Optional) {
			return "", false, nil
		}
		if err != nil {
			return "", false, configError{err}
		}
		value, ok := configMap.Data[ref.Key]
		if !ok && !isTrue(ref.Optional) {
			return "", false, configErrorf("couldn't find key %v in ConfigMap %v/%v", ref.Key, pod.Namespace, ref.Name)
		}
		return value, ok, nil
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		secret, err := objects.secret(pod.Namespace, ref.Name)
		if isMissing(err) && isTrue(ref.Optional) {
			return "", false, nil
		}
		if err != nil {
			return "", false, configError{err}
		}
		bytes, ok := secret.Data[ref.Key]
		if !ok && !isTrue(ref.Optional) {
			return "", false, configErrorf("couldn't find key %v in Secret %v/%v", ref.Key, pod.Namespace, ref.Name)
		}
		return string(bytes), ok, nil
	case from.FileKeyRef != nil:
		value, ok, err := files(from.FileKeyRef)
		if err != nil {
			return "", false, configError{err}
		}
		if !ok && !isTrue(from.FileKeyRef.Optional) {
			return "", false, configErrorf("environment variable key %q not found in file %q", from.FileKeyRef.Key, from.FileKeyRef.Path)
		}
		return value, ok, nil
	}
	return "", false, configErrorf("environment variable %s: unsupported valueFrom", e.Name)
}

// envFile finds one key of an env file: lines NAME='value' (KEP-3721). file
// names it in errors.
func envFile(content []byte, file, key string) (string, bool, error) {
	text := strings.ReplaceAll(string(content), "\r\n", "\n")
	value, found := "", false
	for len(text) > 0 {
		line, rest, _ := strings.Cut(text, "\n")
		trimmed := strings.TrimSpace(line)
		if trimmed == "" || strings.HasPrefix(trimmed, "#") {
			text = rest
			continue
		}
		name, after, ok := strings.Cut(text, "=")
		if !ok || strings.ContainsAny(name, "\n") || !strings.HasPrefix(after, "'") {
			return "", false, fmt.Errorf("env file %q: line %q is not of the form NAME='value'", file, trimmed)
		}
		v, rest, ok := strings.Cut(after[1:], "'")
		if !ok {
			return "", false, fmt.Errorf("env file %q: value of %s has no closing quote", file, strings.TrimSpace(name))
		}
		tail, rest, _ := strings.Cut(rest, "\n")
		if tail = strings.TrimSpace(tail); tail != "" && !strings.HasPrefix(tail, "#") {
			return "", false, fmt.Errorf("env file %q: text after the value of %s", file, strings.TrimSpace(name))
		}
		if strings.TrimSpace(name) == key {
			value, found = v, true
		}
		text = rest
	}
	return value, found, nil
}

// maxEnvFile bounds an env file, in bytes.
const maxEnvFile = 64 << 10

// fieldValue is the value of a fieldRef. For the volume kind, labels and
// annotations as a whole are formatted as key="value" lines.
func fieldValue(pod *v1.Pod, path string, facts podFacts) (string, bool) {
	if field, key, ok := subscript(path); ok {
		switch field {
		case "metadata.labels":
			return pod.Labels[key], true
		case "metadata.annotations":
			return pod.Annotations[key], true
		}
		return "", false
	}
	switch path {
	case "metadata.name":
		return pod.Name, true
	case "metadata.namespace":
		return pod.Namespace, true
	case "metadata.uid":
		return string(pod.UID), true
	case "metadata.labels":
		return formatMap(pod.Labels), true
	case "metadata.annotations":
		return formatMap(pod.Annotations), true
	case "spec.nodeName":
		return pod.Spec.NodeName, true
	case "spec.serviceAccountName":
		return pod.Spec.ServiceAccountName, true
	case "status.podIP":
		return first(facts.podIPs), true
	case "status.podIPs":
		return strings.Join(facts.podIPs, ","), true
	case "status.hostIP":
		return first(facts.hostIPs), true
	case "status.hostIPs":
		return strings.Join(facts.hostIPs, ","), true
	}
	return "", false
}

// subscript splits metadata.labels['key'].
func subscript(path string) (field, key string, ok bool) {
	field, rest, found := strings.Cut(path, "['")
	if !found {
		return "", "", false
	}
	key, ok = strings.CutSuffix(rest, "']")
	return field, key, ok
}

func formatMap(m map[string]string) string {
	var lines []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		lines = append(lines, fmt.Sprintf("%s=%q", k, m[k]))
	}
	return strings.Join(lines, "\n")
}

func first(list []string) string {
	if len(list) == 0 {
		return ""
	}
	return list[0]
}

// expand replaces $(NAME) by its value; $$(NAME) is the text $(NAME), and a
// name without value stays as it was written.
func expand(s string, lookup func(string) (string, bool)) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '$' || i+1 == len(s) {
			b.WriteByte(s[i])
			continue
		}
		switch s[i+1] {
		case '$':
			b.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(s[i+2:], ')')
			if end < 0 {
				b.WriteString("$(")
				i++
				continue
			}
			name := s[i+2 : i+2+end]
			if value, ok := lookup(name); ok {
				b.WriteString(value)
			} else {
				b.WriteString("$(" + name + ")")
			}
			i += 2 + end
		default:
			b.WriteByte('$')
		}
	}
	return b.String()
}

// serviceEnvironment is what pods of a namespace learn about services without
// DNS. The API server's own service is told everywhere; the namespace's
// services when links is set.
func serviceEnvironment(namespace string, services []*v1.Service, links bool) map[string]string {
	env := map[string]string{}
	for _, service := range services {
		master := service.Namespace == metav1.NamespaceDefault && service.Name == "kubernetes"
		if !master && (!links || service.Namespace != namespace) {
			continue
		}
		ip := service.Spec.ClusterIP
		if ip == "" || ip == v1.ClusterIPNone || len(service.Spec.Ports) == 0 {
			continue
		}
		// The namespace's own service named "kubernetes" wins over the API
		// server's, which is in default.
		if master && namespace != metav1.NamespaceDefault {
			if _, taken := env["KUBERNETES_SERVICE_HOST"]; taken {
				continue
			}
		}
		name := envName(service.Name)
		env[name+"_SERVICE_HOST"] = ip
		env[name+"_SERVICE_PORT"] = strconv.Itoa(int(service.Spec.Ports[0].Port))
		for i, port := range service.Spec.Ports {
			number := strconv.Itoa(int(port.Port))
			if port.Name != "" {
				env[name+"_SERVICE_PORT_"+envName(port.Name)] = number
			}
			protocol := string(port.Protocol)
			if protocol == "" {
				protocol = string(v1.ProtocolTCP)
			}
			url := strings.ToLower(protocol) + "://" + net.JoinHostPort(ip, number)
			if i == 0 {
				env[name+"_PORT"] = url
			}
			prefix := name + "_PORT_" + number + "_" + strings.ToUpper(protocol)
			env[prefix] = url
			env[prefix+"_PROTO"] = strings.ToLower(protocol)
			env[prefix+"_PORT"] = number
			env[prefix+"_ADDR"] = ip
		}
	}
	return env
}

func envName(name string) string {
	return strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(name))
}

func isTrue(b *bool) bool { return b != nil && *b }
