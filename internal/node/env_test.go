package node

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestExpand(t *testing.T) {
	values := map[string]string{"A": "1", "B": "$(A)", "EMPTY": ""}
	for in, want := range map[string]string{
		"":               "",
		"plain":          "plain",
		"$(A)":           "1",
		"x$(A)y$(A)":     "x1y1",
		"$(B)":           "$(A)", // values are not expanded again
		"$$(A)":          "$(A)",
		"$$$(A)":         "$1",
		"$(NOPE)":        "$(NOPE)",
		"$(EMPTY)":       "",
		"$(A":            "$(A",
		"$":              "$",
		"a$":             "a$",
		"$A":             "$A",
		"$()":            "$()",
		"100$$":          "100$",
		"$(A)$(NOPE)$$x": "1$(NOPE)$x",
	} {
		got := expand(in, func(name string) (string, bool) { v, ok := values[name]; return v, ok })
		if got != want {
			t.Errorf("expand(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("$(A)$$(B)$(")
	f.Fuzz(func(t *testing.T, s string) {
		// Without variables, and without escapes, a text stays as it is.
		got := expand(s, func(string) (string, bool) { return "", false })
		if !strings.Contains(s, "$$") && got != s {
			t.Errorf("expand(%q) = %q", s, got)
		}
	})
}

// objectsInMemory is an objectReader of a few objects, all in one namespace.
type objectsInMemory struct {
	configMaps map[string]*v1.ConfigMap
	secrets    map[string]*v1.Secret
	err        error
}

func (o objectsInMemory) configMap(_, name string) (*v1.ConfigMap, error) {
	if o.err != nil {
		return nil, o.err
	}
	if c := o.configMaps[name]; c != nil {
		return c, nil
	}
	return nil, apierrors.NewNotFound(v1.Resource("configmap"), name)
}

func (o objectsInMemory) secret(_, name string) (*v1.Secret, error) {
	if o.err != nil {
		return nil, o.err
	}
	if s := o.secrets[name]; s != nil {
		return s, nil
	}
	return nil, apierrors.NewNotFound(v1.Resource("secret"), name)
}

var someObjects = objectsInMemory{
	configMaps: map[string]*v1.ConfigMap{"cm": {Data: map[string]string{"k": "v", "odd=key": "x"}, BinaryData: map[string][]byte{"b": {1, 2}}}},
	secrets:    map[string]*v1.Secret{"s": {Data: map[string][]byte{"p": []byte("word")}}},
}

func TestEnvironment(t *testing.T) {
	yes := true
	ref := func(name string) v1.LocalObjectReference { return v1.LocalObjectReference{Name: name} }
	field := func(path string) *v1.EnvVarSource {
		return &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: path}}
	}
	key := func(name, key string, optional *bool) *v1.EnvVarSource {
		return &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{LocalObjectReference: ref(name), Key: key, Optional: optional}}
	}
	secretKey := func(name, key string, optional *bool) *v1.EnvVarSource {
		return &v1.EnvVarSource{SecretKeyRef: &v1.SecretKeySelector{LocalObjectReference: ref(name), Key: key, Optional: optional}}
	}
	res := func(what string, divisor string) *v1.EnvVarSource {
		s := &v1.ResourceFieldSelector{Resource: what}
		if divisor != "" {
			s.Divisor = resource.MustParse(divisor)
		}
		return &v1.EnvVarSource{ResourceFieldRef: s}
	}
	for _, x := range []struct {
		name string
		env  []v1.EnvVar
		from []v1.EnvFromSource
		want string // NAME=value joined by spaces, or the error
		warn string
	}{
		{name: "nothing"},
		{name: "literals in order", env: []v1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)2$(C)"}, {Name: "C", Value: "3"}}, want: "A=1 B=12$(C) C=3"},
		{name: "later wins", env: []v1.EnvVar{{Name: "A", Value: "1"}, {Name: "A", Value: "2"}}, want: "A=2"},
		{name: "fields", env: []v1.EnvVar{{Name: "N", ValueFrom: field("metadata.name")}, {Name: "L", ValueFrom: field("metadata.labels['app']")}, {Name: "IP", ValueFrom: field("status.podIPs")}, {Name: "H", ValueFrom: field("status.hostIP")}},
			want: "H=h1 IP=p1,p2 L=web N=pod"},
		{name: "unknown field", env: []v1.EnvVar{{Name: "N", ValueFrom: field("spec.nope")}}, want: "error: unsupported fieldPath: spec.nope"},
		{name: "resources", env: []v1.EnvVar{{Name: "C", ValueFrom: res("requests.cpu", "")}, {Name: "CM", ValueFrom: res("requests.cpu", "1m")}, {Name: "M", ValueFrom: res("limits.memory", "1Mi")}, {Name: "LC", ValueFrom: res("limits.cpu", "")}},
			want: "C=1 CM=250 LC=4 M=128"},
		{name: "config map key", env: []v1.EnvVar{{Name: "A", ValueFrom: key("cm", "k", nil)}}, want: "A=v"},
		{name: "no config map", env: []v1.EnvVar{{Name: "A", ValueFrom: key("no", "k", nil)}}, want: `error: configmap "no" not found`},
		{name: "no key", env: []v1.EnvVar{{Name: "A", ValueFrom: key("cm", "no", nil)}}, want: "error: couldn't find key no in ConfigMap ns/cm"},
		{name: "optional", env: []v1.EnvVar{{Name: "A", ValueFrom: key("no", "k", &yes)}, {Name: "B", ValueFrom: key("cm", "no", &yes)}, {Name: "C", ValueFrom: secretKey("no", "k", &yes)}}},
		{name: "secret key", env: []v1.EnvVar{{Name: "A", ValueFrom: secretKey("s", "p", nil)}}, want: "A=word"},
		{name: "no secret key", env: []v1.EnvVar{{Name: "A", ValueFrom: secretKey("s", "no", nil)}}, want: "error: couldn't find key no in Secret ns/s"},
		{name: "from config map", from: []v1.EnvFromSource{{Prefix: "X_", ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: ref("cm")}}}, want: "X_k=v",
			warn: "Keys [X_odd=key] from the EnvFrom configMap ns/cm were skipped since they are considered invalid environment variable names."},
		{name: "env wins over envFrom", env: []v1.EnvVar{{Name: "p", Value: "mine"}}, from: []v1.EnvFromSource{{SecretRef: &v1.SecretEnvSource{LocalObjectReference: ref("s")}}}, want: "p=mine"},
		{name: "from nothing", from: []v1.EnvFromSource{{SecretRef: &v1.SecretEnvSource{LocalObjectReference: ref("no")}}}, want: `error: secret "no" not found`},
		{name: "from optional nothing", from: []v1.EnvFromSource{{SecretRef: &v1.SecretEnvSource{LocalObjectReference: ref("no"), Optional: &yes}}}},
	} {
		pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "pod", Namespace: "ns", Labels: map[string]string{"app": "web"}}}
		c := v1.Container{Name: "c", Env: x.env, EnvFrom: x.from, Resources: v1.ResourceRequirements{
			Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("250m")}, Limits: v1.ResourceList{v1.ResourceMemory: resource.MustParse("128Mi")},
		}}
		pod.Spec.Containers = []v1.Container{c}
		facts := podFacts{podIPs: []string{"p1", "p2"}, hostIPs: []string{"h1"}, allocatable: v1.ResourceList{v1.ResourceCPU: resource.MustParse("4")}}
		warned := ""
		env, err := environment(pod, &c, facts, nil, someObjects, nil, func(_, message string) { warned = message })
		got := ""
		if err != nil {
			got = "error: " + err.Error()
		} else {
			var parts []string
			for _, e := range env {
				parts = append(parts, e.Key+"="+string(e.Value))
			}
			got = strings.Join(parts, " ")
		}
		if got != x.want || warned != x.warn {
			t.Errorf("%s: %q (%q), want %q (%q)", x.name, got, warned, x.want, x.warn)
		}
	}
}

func TestServiceEnvironment(t *testing.T) {
	service := func(namespace, name, ip string, ports ...v1.ServicePort) *v1.Service {
		return &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: v1.ServiceSpec{ClusterIP: ip, Ports: ports}}
	}
	services := []*v1.Service{
		service("default", "kubernetes", "10.0.0.1", v1.ServicePort{Name: "https", Port: 443, Protocol: v1.ProtocolTCP}),
		service("ns", "my-db.x", "10.0.0.2", v1.ServicePort{Port: 5432, Protocol: v1.ProtocolTCP}, v1.ServicePort{Name: "stats-p", Port: 9, Protocol: v1.ProtocolUDP}),
		service("ns", "headless", "None", v1.ServicePort{Port: 1}),
		service("other", "far", "10.0.0.3", v1.ServicePort{Port: 1}),
		service("ns", "six", "fd00::1", v1.ServicePort{Port: 80}),
	}
	show := func(env map[string]string) string {
		var lines []string
		for _, k := range slices.Sorted(maps.Keys(env)) {
			lines = append(lines, k+"="+env[k])
		}
		return strings.Join(lines, "\n")
	}
	api := `KUBERNETES_PORT=tcp://10.0.0.1:443
KUBERNETES_PORT_443_TCP=tcp://10.0.0.1:443
KUBERNETES_PORT_443_TCP_ADDR=10.0.0.1
KUBERNETES_PORT_443_TCP_PORT=443
KUBERNETES_PORT_443_TCP_PROTO=tcp
KUBERNETES_SERVICE_HOST=10.0.0.1
KUBERNETES_SERVICE_PORT=443
KUBERNETES_SERVICE_PORT_HTTPS=443`
	if got := show(serviceEnvironment("ns", services, false)); got != api {
		t.Errorf("without links:\n%s", got)
	}
	want := api + `
MY_DB_X_PORT=tcp://10.0.0.2:5432
MY_DB_X_PORT_5432_TCP=tcp://10.0.0.2:5432
MY_DB_X_PORT_5432_TCP_ADDR=10.0.0.2
MY_DB_X_PORT_5432_TCP_PORT=5432
MY_DB_X_PORT_5432_TCP_PROTO=tcp
MY_DB_X_PORT_9_UDP=udp://10.0.0.2:9
MY_DB_X_PORT_9_UDP_ADDR=10.0.0.2
MY_DB_X_PORT_9_UDP_PORT=9
MY_DB_X_PORT_9_UDP_PROTO=udp
MY_DB_X_SERVICE_HOST=10.0.0.2
MY_DB_X_SERVICE_PORT=5432
MY_DB_X_SERVICE_PORT_STATS_P=9
SIX_PORT=tcp://[fd00::1]:80
SIX_PORT_80_TCP=tcp://[fd00::1]:80
SIX_PORT_80_TCP_ADDR=fd00::1
SIX_PORT_80_TCP_PORT=80
SIX_PORT_80_TCP_PROTO=tcp
SIX_SERVICE_HOST=fd00::1
SIX_SERVICE_PORT=80`
	if got := show(serviceEnvironment("ns", services, true)); got != want {
		t.Errorf("with links:\n%s", got)
	}
}

func TestEnvFile(t *testing.T) {
	content := "# a comment\nA='1'\nB='two\nlines'\n\n  C='x'\nA='later' # wins\n"
	for _, x := range []struct{ content, key, want string }{
		{content, "A", "later"}, {content, "B", "two\nlines"}, {content, "NONE", "missing"},
		{"A=1", "A", "error"}, {"A='1", "A", "error"}, {"A='1' x", "A", "error"}, {"A = '1'", "A", "error"}, {"", "A", "missing"},
	} {
		value, ok, err := envFile([]byte(x.content), "f", x.key)
		got := value
		switch {
		case err != nil:
			got = "error"
		case !ok:
			got = "missing"
		}
		if got != x.want {
			t.Errorf("%q in %q: %q (%v), want %q", x.key, x.content, got, err, x.want)
		}
	}
}

func FuzzEnvFile(f *testing.F) {
	f.Add("A='1'\n#x\n", "A")
	f.Fuzz(func(t *testing.T, content, key string) {
		value, ok, err := envFile([]byte(content), "f", key)
		if ok && err == nil && strings.Contains(value, "'") {
			t.Errorf("a value with a quote: %q", value)
		}
	})
}

func TestFieldValueOfMaps(t *testing.T) {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"b": "2", "a": "x\"y"}}}
	got, ok := fieldValue(pod, "metadata.labels", podFacts{})
	if want := fmt.Sprintf("a=%q\nb=\"2\"", "x\"y"); !ok || got != want {
		t.Errorf("labels %q, want %q", got, want)
	}
}
