package codec

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"testing"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// shapeOfKind is the shape of a kind's Go type.
func shapeOfKind(d *kind.Definition) *shape { return shapeOf(reflect.TypeOf(d.New()).Elem()) }

// decodedJSON is what a transcoder must write: a message decoded and encoded.
func decodedJSON(d *kind.Definition, raw []byte) ([]byte, error) {
	obj := d.New()
	if err := obj.(message).Unmarshal(raw); err != nil {
		return nil, err
	}
	return json.Marshal(obj)
}

// TestTranscodingIsDecodingAndEncoding, for every kind.
func TestTranscodingIsDecodingAndEncoding(t *testing.T) {
	each(t, builtIn(), 40, func(t *testing.T, d *kind.Definition, obj object.Object) {
		s := shapeOfKind(d)
		if s == nil {
			t.Skip("it cannot be transcoded")
		}
		raw, err := obj.(message).Marshal()
		if err != nil {
			t.Fatal(err)
		}
		want, err := decodedJSON(d, raw)
		if err != nil {
			t.Fatal(err)
		}
		got, _, err := appendTranscoded(nil, s, raw)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v\ngot\n %s\nwant\n %s", err, got, want)
		}
	})
}

// TestWhatCannotBeTranscoded: only kinds with types that have no protobuf form of their own.
func TestWhatCannotBeTranscoded(t *testing.T) {
	var got []string
	for _, d := range builtIn() {
		if shapeOfKind(d) == nil {
			got = append(got, d.GroupKind().String())
		}
	}
	got = slices.Compact(slices.Sorted(slices.Values(got)))
	// The claim templates of a StatefulSet show their type; an Eviction has options that do, and is not stored.
	if want := []string{"Eviction.policy", "StatefulSet.apps"}; !slices.Equal(got, want) {
		t.Errorf("cannot be transcoded: %q, want %q", got, want)
	}
}

// FuzzTranscode: whatever bytes are stored, a transcoder answers what decoding answers, or nothing.
func FuzzTranscode(f *testing.F) {
	all := slices.DeleteFunc(builtIn(), func(d *kind.Definition) bool { return shapeOfKind(d) == nil })
	for i, d := range all {
		obj := d.New()
		filler(int64(i)).Fill(obj)
		raw, err := obj.(message).Marshal()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(i, raw)
	}
	f.Fuzz(func(t *testing.T, i int, raw []byte) {
		d := all[uint(i)%uint(len(all))]
		got, _, err := appendTranscoded(nil, shapeOfKind(d), raw)
		if err != nil {
			return
		}
		want, err := decodedJSON(d, raw)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%s: %v\ngot\n %s\nwant\n %s", d.GroupVersionKind(), err, got, want)
		}
	})
}

// FuzzText: strings, JSON text and quantities are written as encoding/json and apimachinery write them.
func FuzzText(f *testing.F) {
	for _, seed := range []string{
		"", "plain", "a\"b\\c/<d>&e\u2028\u2029é\x00\x1f\x7f\xff\xe2\x80", "\b\f\n\r\t", `{"f:a":{".":{},"f:b<":[]}}`, `{"a" : 1}`, `[{},"x",[[]]]`, `{"a":{}`, `{"a":{}}}`, "[\"\xff\"]",
		"100m", "1000m", "1024Mi", "128Mi", "0", "0Mi", "00100", "1e3", "999999T", "999999Ti", "1.5Gi", "12E", "-5", "7u", "1000000",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, s []byte) {
		check := func(what string, got []byte, ok bool, value any) {
			t.Helper()
			want, err := json.Marshal(value)
			if ok != (err == nil) || ok && !bytes.Equal(got, want) {
				t.Errorf("%s %q is %s (%v), want %s, %v", what, s, got, ok, want, err)
			}
		}
		check("text", appendText(nil, s), true, string(s))
		got, err := appendRaw(nil, s)
		check("JSON", got, err == nil, json.RawMessage(append([]byte{}, s...)))
		if q, parseErr := resource.ParseQuantity(string(s)); parseErr == nil {
			got, err = appendQuantity(nil, s)
			check("quantity", got, err == nil, q)
		} else if got, err = appendQuantity(nil, s); err == nil {
			t.Errorf("quantity %q is %s", s, got)
		}
	})
}

// TestUnusualMessages: what only decoding understands is left to it.
func TestUnusualMessages(t *testing.T) {
	s := shapeOf(reflect.TypeFor[corev1.ConfigMap]())
	for name, raw := range map[string]string{
		"metadata twice":     "\x0a\x03\x0a\x01a\x0a\x03\x0a\x01b",
		"name as a number":   "\x0a\x02\x08\x01",
		"cut short":          "\x0a\x05\x0a\x01a",
		"a key twice":        "\x12\x06\x0a\x01k\x12\x01a\x12\x06\x0a\x01k\x12\x01b",
		"a value and no key": "\x12\x03\x12\x01a",
		"a group":            "\x0b\x0c",
		"field zero":         "\x02\x00",
	} {
		if got, _, err := appendTranscoded(nil, s, []byte(raw)); err == nil {
			t.Errorf("%s: got %s", name, got)
		}
	}
	for _, raw := range []string{"", "\x0a\x00", "\xfa\x7f\x01x"} { // nothing, no metadata, an unknown field
		got, _, err := appendTranscoded(nil, s, []byte(raw))
		if err != nil || string(got) != `{"metadata":{}}` {
			t.Errorf("%q: got %s, %v", raw, got, err)
		}
	}
}

// benchmarkPod is about a pod of a Deployment with a sidecar.
func benchmarkPod() *corev1.Pod {
	var p corev1.Pod
	if err := json.Unmarshal([]byte(podText), &p); err != nil {
		panic(err)
	}
	fields := metav1.NewFieldsV1(`{"f:metadata":{"f:annotations":{".":{},"f:checksum/config":{},"f:prometheus.io/port":{},"f:prometheus.io/scrape":{}},"f:labels":{".":{},"f:app":{},"f:pod-template-hash":{},"f:release":{},"f:shard":{},"f:tier":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"3e1f7a9e-0d0c-4f0e-9f6d-5d9bbd1c7f00\"}":{}}},"f:spec":{"f:affinity":{".":{},"f:podAntiAffinity":{}},"f:containers":{"k:{\"name\":\"main\"}":{".":{},"f:args":{},"f:env":{".":{},"k:{\"name\":\"POD_IP\"}":{".":{},"f:name":{},"f:valueFrom":{".":{},"f:fieldRef":{}}}},"f:image":{},"f:name":{}}}}}`)
	p.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "bench", Operation: "Update", APIVersion: "v1", FieldsType: "FieldsV1", FieldsV1: fields}}
	return &p
}

const podText = `{"metadata":{"name":"web-1","namespace":"bench-1","uid":"3e1f7a9e-0d0c-4f0e-9f6d-5d9bbd1c7f00","creationTimestamp":"2026-11-23T00:00:00Z","labels":{"app":"app-1","tier":"backend","pod-template-hash":"6d4b75cb6d","release":"stable","shard":"s1"},"annotations":{"prometheus.io/scrape":"true","prometheus.io/port":"9090","checksum/config":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-6d4b75cb6d","uid":"3e1f7a9e-0d0c-4f0e-9f6d-5d9bbd1c7f00","controller":true,"blockOwnerDeletion":true}]},"spec":{"nodeName":"node-1","serviceAccountName":"default","serviceAccount":"default","automountServiceAccountToken":false,"restartPolicy":"Always","dnsPolicy":"ClusterFirst","schedulerName":"default-scheduler","securityContext":{},"terminationGracePeriodSeconds":30,"enableServiceLinks":true,"priority":0,"preemptionPolicy":"PreemptLowerPriority","containers":[{"name":"main","image":"registry.example.com/team/app:1.2.3","args":["--listen=:8080","--config=/etc/app/config.yaml","--log-level=info"],"ports":[{"name":"http","containerPort":8080,"protocol":"TCP"},{"name":"metrics","containerPort":9090,"protocol":"TCP"}],"env":[{"name":"POD_NAME","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.name"}}},{"name":"POD_IP","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"status.podIP"}}},{"name":"REGION","value":"eu-west-1"},{"name":"DB_PASSWORD","valueFrom":{"secretKeyRef":{"name":"db","key":"password"}}}],"resources":{"requests":{"cpu":"100m","memory":"128Mi"},"limits":{"cpu":"500m","memory":"512Mi"}},"livenessProbe":{"httpGet":{"path":"/healthz","port":"http","scheme":"HTTP"},"initialDelaySeconds":5,"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3},"readinessProbe":{"httpGet":{"path":"/readyz","port":"http","scheme":"HTTP"},"timeoutSeconds":1,"periodSeconds":5,"successThreshold":1,"failureThreshold":3},"volumeMounts":[{"name":"config","mountPath":"/etc/app"},{"name":"tmp","mountPath":"/tmp"}],"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent","securityContext":{"runAsNonRoot":true,"readOnlyRootFilesystem":true,"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}}},{"name":"sidecar","image":"registry.example.com/mesh/proxy:2.0.1","args":["proxy"],"ports":[{"containerPort":15001,"protocol":"TCP"}],"resources":{"requests":{"cpu":"10m","memory":"32Mi"}},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"IfNotPresent"}],"volumes":[{"name":"config","configMap":{"name":"app-config","defaultMode":420}},{"name":"tmp","emptyDir":{}}],"tolerations":[{"key":"dedicated","operator":"Equal","value":"web","effect":"NoSchedule"},{"key":"node.kubernetes.io/not-ready","operator":"Exists","effect":"NoExecute","tolerationSeconds":300}],"nodeSelector":{"kubernetes.io/os":"linux"},"affinity":{"podAntiAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":100,"podAffinityTerm":{"topologyKey":"kubernetes.io/hostname","labelSelector":{"matchLabels":{"app":"app-1"}}}}]}}},"status":{"phase":"Pending","qosClass":"Burstable"}}`

func BenchmarkTranscode(b *testing.B) {
	p := benchmarkPod()
	raw, err := p.Marshal()
	if err != nil {
		b.Fatal(err)
	}
	s := shapeOf(reflect.TypeFor[corev1.Pod]())
	b.Run("transcode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := appendTranscoded(nil, s, raw); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode and encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decodedJSON(pods, raw); err != nil {
				b.Fatal(err)
			}
		}
	})
}
