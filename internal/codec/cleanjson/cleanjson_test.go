package cleanjson

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	kjson "sigs.k8s.io/json"
)

// targets are what documents are read into, empty ones.
var targets = []func() any{
	func() any { return new(corev1.Pod) },
	func() any { return new(corev1.ConfigMap) },
	func() any { return new(corev1.Secret) },
	func() any { return new(coordinationv1.Lease) },
	func() any { return new(appsv1.Deployment) },
	func() any { return new(networkingv1.Ingress) },
	func() any { return new(apiextensions.CustomResourceDefinition) },
	func() any { return new(map[string]any) },
}

// checkSame wants a document that is clean to be read as the strict reader does.
func checkSame(t *testing.T, doc string) (clean int) {
	t.Helper()
	for _, target := range targets {
		got, want := target(), target()
		if !Decode([]byte(doc), got) {
			continue
		}
		clean++
		strict, err := kjson.UnmarshalStrict([]byte(doc), want)
		if err != nil || len(strict) > 0 {
			t.Errorf("%T: clean, but %v %v: %s", want, err, strict, doc)
		} else if !reflect.DeepEqual(got, want) {
			t.Errorf("%T: %#v, want %#v: %s", want, got, want, doc)
		}
	}
	return clean
}

const pod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-1","creationTimestamp":null,"labels":{"app":"a\"\\\/\u00e9\ud83d\ude00b","b":null},
 "managedFields":[{"manager":"m","time":"2026-01-02T03:04:05Z","fieldsV1":{"f:metadata": {"f:labels":{}}}}]},
 "spec":{"terminationGracePeriodSeconds":30,"hostUsers":false,"containers":[{"name":"a","args":[],"ports":[{"containerPort":8080}],
  "resources":{"limits":{"cpu":"100m","memory":1024,"x.y/z":"0.1"}},"readinessProbe":{"httpGet":{"port":"http"},"periodSeconds":5}},{"name":"ß","livenessProbe":{"tcpSocket":{"port":80}}}],
  "volumes":[{"name":"a","emptyDir":{}},{"name":"b","configMap":{"name":"c","optional":true}}],"affinity":null,"overhead":{}},
 "status":{"startTime":"2026-01-02T03:04:05Z","phase":"Running"}}`

var documents = []string{
	pod,
	`{"kind":"Lease","metadata":{"name":"n"},"spec":{"renewTime":"2026-11-23T00:00:00.000000Z","leaseDurationSeconds":40}}`,
	`{"data":{"a":"AQID","b":""},"stringData":{},"immutable":true}`,
	`{"data":{"a":"one\ntwo"},"binaryData":{"b":"/+8="}}`,
	`{"spec":{"replicas":3,"strategy":{"rollingUpdate":{"maxSurge":"25%","maxUnavailable":1}},"selector":{"matchExpressions":[{"key":"a","operator":"In","values":["b","c"]}]}}}`,
	`{"spec":{"rules":[{"host":"h","http":{"paths":[{"path":"/","pathType":"Exact","backend":{"service":{"name":"s","port":{"number":80}}}}]}}]}}`,
	`{"spec":{"versions":[{"name":"v1","schema":{"openAPIV3Schema":{"type":"object","properties":{"a":{"type":"integer","minimum":1.5,"default":3,"enum":[1,{"a":null}]},"b":{"items":{"type":"string"},"additionalProperties":false}}}}}]}}`,
	`{"a":[1,-0,0.5,1e3,-2.5E-3,9223372036854775807,9223372036854775808,true,false,null,{},[],"",{"b":{"c":[[]]}}]}`,
	`{"metadata":{"creationTimestamp":"2026-01-02T03:04:05.678+02:00"},"spec":{"acquireTime":null,"renewTime":"2026-01-02T03:04:05.678901-07:00"}}`,
	` {} `,
}

func TestReadsAsTheStrictReaderDoes(t *testing.T) {
	for _, doc := range documents {
		if checkSame(t, doc) == 0 {
			t.Errorf("found clean by nobody: %s", doc)
		}
	}
}

func TestHandsBackWhatIsNotClean(t *testing.T) {
	for _, doc := range []string{
		``, `null`, `[]`, `{`, `{"metadata":{}`, `{"metadata":{}} x`, `{"metadata":{},}`, `{"metadata" {}}`, `{metadata:{}}`,
		`{"metadata":{},"metadata":{}}`, `{"metadata":{"labels":{"a":"b","a":"b"}}}`, // given twice
		`{"unknown":1}`, `{"Metadata":{}}`, `{"spec":{"Containers":[]}}`, // unknown
		`{"spec":{"priority":1.5}}`, `{"spec":{"priority":4294967296}}`, `{"spec":{"priority":"1"}}`, `{"spec":{"priority":01}}`, `{"spec":{"priority":-}}`, `{"spec":{"priority":1.}}`, `{"spec":{"priority":1e}}`,
		`{"spec":{"hostUsers":tru}}`, `{"spec":{"hostUsers":1}}`, `{"spec":{"containers":{}}}`, `{"spec":{"containers":[{}`, `{"spec":{"containers":[{},]}}`,
		"{\"kind\":\"a\nb\"}", "{\"kind\":\"\xff\"}", `{"kind":"\x"}`, `{"kind":"\u12"}`, `{"kind":"\ud800"}`, `{"kind":"\ud800\u0041"}`, `{"kind":"a`, `{"kind":"a\`,
		`{"metadata":{"creationTimestamp":"yesterday"}}`, `{"spec":{"overhead":{"cpu":"1x"}}}`, `{"spec":{"overhead":{"cpu":{]}}}`,
		`{"metadata":{"managedFields":[{"fieldsV1":` + strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1) + `}]}}`,
	} {
		if Decode([]byte(doc), new(corev1.Pod)) {
			t.Errorf("found clean: %s", doc)
		}
	}
}

func FuzzReadsAsTheStrictReaderDoes(f *testing.F) {
	for _, doc := range documents {
		f.Add(doc)
	}
	f.Fuzz(func(t *testing.T, doc string) { checkSame(t, doc) })
}

// What a plan does not understand it must not read: all fields that clients can send are found, in the types at hand.
func TestEveryTypeHasAPlan(t *testing.T) {
	for _, target := range targets {
		seen := map[reflect.Type]bool{}
		checkPlanned(t, reflect.TypeOf(target()).Elem(), seen)
	}
}

func checkPlanned(t *testing.T, typ reflect.Type, seen map[reflect.Type]bool) {
	if seen[typ] || reflect.PointerTo(typ).Implements(unmarshaler) {
		return
	}
	seen[typ] = true
	switch typ.Kind() {
	case reflect.Struct:
		s := structPlan{of: typ}
		if s.compile(); s.fields == nil {
			t.Errorf("%s has no plan", typ)
		}
		for f := range typ.Fields() {
			if f.Tag.Get("json") != "-" {
				checkPlanned(t, f.Type, seen)
			}
		}
	case reflect.Pointer, reflect.Slice, reflect.Map:
		checkPlanned(t, typ.Elem(), seen)
	}
}

func BenchmarkDecode(b *testing.B) {
	doc := []byte(pod)
	b.Run("clean", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if !Decode(doc, new(corev1.Pod)) {
				b.Fatal("not clean")
			}
		}
	})
	b.Run("strict", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var meta struct{ APIVersion, Kind string }
			if err := json.Unmarshal(doc, &meta); err != nil {
				b.Fatal(err)
			}
			if _, err := kjson.UnmarshalStrict(doc, new(corev1.Pod)); err != nil {
				b.Fatal(err)
			}
		}
	})
}
