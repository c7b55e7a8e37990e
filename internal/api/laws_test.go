package api

import (
	"context"
	"encoding/json"
	"math/rand"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage/watchcache"
	batchv1 "k8s.io/api/batch/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metafuzzer "k8s.io/apimachinery/pkg/apis/meta/fuzzer"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/intstr"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/randfill"
)

// rounds is how many random objects each kind is tried with.
const rounds = 60

// filler fills objects with random values that could have been decoded.
func filler(seed int64) *randfill.Filler {
	own := func(serializer.CodecFactory) []any {
		return []any{
			func(q *resource.Quantity, c randfill.Continue) {
				*q = *resource.NewMilliQuantity(c.Int63n(1<<40)-1<<20, resource.DecimalSI)
			},
			func(i *intstr.IntOrString, c randfill.Continue) {
				if c.Bool() {
					*i = intstr.FromInt32(c.Int31())
				} else {
					*i = intstr.FromString(c.String(5))
				}
			},
			func(r *runtime.RawExtension, c randfill.Continue) { r.Raw, r.Object = []byte(`{"a":1}`), nil },
			func(v *corev1.PodOS, c randfill.Continue) {
				v.Name = []corev1.OSName{corev1.Linux, corev1.Windows, "x"}[c.Intn(3)]
			},
			func(t *corev1.ServiceType, c randfill.Continue) {
				*t = []corev1.ServiceType{"", corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer, corev1.ServiceTypeExternalName}[c.Intn(5)]
			},
			func(t *corev1.LimitType, c randfill.Continue) {
				*t = []corev1.LimitType{corev1.LimitTypeContainer, corev1.LimitTypePod}[c.Intn(2)]
			},
			func(s *apiextensionsv1.JSONSchemaProps, c randfill.Continue) { *s = randomSchema(c, 3) },
			func(s *corev1.Container, c randfill.Continue) {
				c.FillNoCustom(s)
				s.Name = []string{"a", "b", s.Name}[c.Intn(3)]
			},
			perhaps[metav1.Time], perhaps[metav1.MicroTime], // which the filler would leave out
			func(s *corev1.PodCondition, c randfill.Continue) {
				ofTypes[corev1.PodCondition]("Initialized", "Ready", "PodScheduled")(s, c)
				s.Reason = []string{corev1.PodReasonSchedulingGated, s.Reason}[c.Intn(2)]
			},
			ofTypes[metav1.Condition]("PodGroupInitiallyScheduled", "Issued", "Failed", "Succeeded", "Running", "TargetEvicted"),
			ofTypes[corev1.NodeCondition]("Ready", "MemoryPressure"),
			ofTypes[batchv1.JobCondition]("Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet"),
			ofTypes[certificatesv1.CertificateSigningRequestCondition]("Approved", "Denied", "Failed"),
			ofTypes[flowcontrolv1.FlowSchemaCondition]("Dangling", "x"),
			ofTypes[apiextensionsv1.CustomResourceDefinitionCondition]("Established", "NamesAccepted"),
			ofTypes[apiregistrationv1.APIServiceCondition]("Available", "x"),
			func(g *corev1.PodReadinessGate, c randfill.Continue) {
				g.ConditionType = []corev1.PodConditionType{corev1.PodInitialized, corev1.PodReady}[c.Intn(2)]
			},
			func(s *corev1.ContainerStatus, c randfill.Continue) {
				c.FillNoCustom(s)
				s.Name = []string{"a", "b", s.Name}[c.Intn(3)]
			},
			func(p **corev1.ContainerRestartPolicy, c randfill.Continue) {
				if c.Bool() {
					*p = ptr.To(corev1.ContainerRestartPolicyAlways)
				}
			},
		}
	}
	return fuzzer.FuzzerFor(fuzzer.MergeFuzzerFuncs(metafuzzer.Funcs, own), rand.NewSource(seed), serializer.NewCodecFactory(runtime.NewScheme())).NilChance(0.4).NumElements(0, 3)
}

// perhaps fills a pointer or leaves it nil.
func perhaps[T any](p **T, c randfill.Continue) {
	if c.Bool() {
		*p = new(T)
		c.Fill(*p)
	}
}

// ofTypes fills conditions with types that somebody looks at, and a status.
func ofTypes[C any](types ...string) func(*C, randfill.Continue) {
	return func(condition *C, c randfill.Continue) {
		c.FillNoCustom(condition)
		v := reflect.ValueOf(condition).Elem()
		v.FieldByName("Type").SetString(types[c.Intn(len(types))])
		v.FieldByName("Status").SetString([]string{"True", "False"}[c.Intn(2)])
	}
}

// randomSchema is a schema of at most depth levels: left to itself, the filler would not come to an end.
func randomSchema(c randfill.Continue, depth int) apiextensionsv1.JSONSchemaProps {
	s := apiextensionsv1.JSONSchemaProps{
		Type: []string{"", "object", "array", "string", "integer", "null"}[c.Intn(6)], Pattern: []string{"", "^a$", "["}[c.Intn(3)],
		Nullable: c.Bool(), XIntOrString: c.Bool(), XEmbeddedResource: c.Bool(), Required: []string{c.String(3)}, XListMapKeys: []string{"a"},
	}
	c.Fill(&s.XPreserveUnknownFields)
	c.Fill(&s.XListType)
	c.Fill(&s.XMapType)
	c.Fill(&s.XValidations)
	if c.Bool() {
		s.Default = &apiextensionsv1.JSON{Raw: []byte([]string{`{"a":{"b":1}}`, `[1]`, `null`, `"x"`}[c.Intn(4)])}
	}
	if depth == 0 {
		return s
	}
	part := func() *apiextensionsv1.JSONSchemaProps { p := randomSchema(c, depth-1); return &p }
	s.Properties = map[string]apiextensionsv1.JSONSchemaProps{"a": *part(), "metadata": *part()}
	s.Items = &apiextensionsv1.JSONSchemaPropsOrArray{Schema: part()}
	switch c.Intn(6) {
	case 0:
		s.AnyOf = []apiextensionsv1.JSONSchemaProps{*part(), *part()}
	case 1:
		s.AllOf = []apiextensionsv1.JSONSchemaProps{*part()}
	case 2:
		s.Not = part()
	case 3:
		s.AdditionalProperties = &apiextensionsv1.JSONSchemaPropsOrBool{Allows: c.Bool(), Schema: part()}
	}
	return s
}

// each calls f with random objects of every kind. A failure names the seed that replays it.
func each(t *testing.T, f func(t *testing.T, d *kind.Definition, fill func() object.Object)) {
	for _, d := range kind.NewCatalog(Groups(testOptions())...).All() {
		t.Run(d.Resource().String(), func(t *testing.T) {
			for seed := range int64(rounds) {
				random := filler(seed)
				fill := func() object.Object {
					obj := d.New()
					random.Fill(obj)
					return obj
				}
				if f(t, d, fill); t.Failed() {
					t.Fatalf("with seed %d", seed)
				}
			}
		})
	}
}

func TestDefaultingTwiceIsDefaultingOnce(t *testing.T) {
	each(t, func(t *testing.T, d *kind.Definition, fill func() object.Object) {
		if d.Default == nil {
			return
		}
		once := fill()
		d.Default(once)
		twice := object.Copy(once)
		d.Default(twice)
		if !equality.Semantic.DeepEqual(once, twice) {
			t.Error(cmp.Diff(once, twice))
		}
	})
}

// TestTranscodedIsDecoded: the JSON that is made of stored bytes alone is that of the object in them, with its defaults; and it is
// made that way for what was stored with its defaults.
func TestTranscodedIsDecoded(t *testing.T) {
	each(t, func(t *testing.T, d *kind.Definition, fill func() object.Object) {
		if d.Convert != nil || !d.Persistent() || d.Stored.Encoding != kind.Protobuf {
			return
		}
		for _, settled := range []bool{true, false} {
			obj := fill()
			if d.Default != nil && settled {
				d.Default(obj)
			}
			written, v := write(t, d, obj)
			want, err := codec.DecodeStored(d, written.Value, 7)
			if err != nil {
				t.Fatal(err)
			}
			codec.SetKind(want, schema.GroupVersionKind{})
			text, err := json.Marshal(want)
			if err != nil {
				t.Fatal(err)
			}
			known := v.Defaulted.Load()
			item := codec.Item{Definition: d, Version: v}
			for _, pass := range []string{"first", "second"} {
				got, err := item.JSON()
				if err != nil || string(got) != string(text) {
					t.Fatalf("%s answer, stored with its defaults: %v: %v: %s", pass, v.Defaulted.Load(), err, cmp.Diff(string(text), string(got)))
				}
				v.Derived.Store(nil) // and once more, with what was learnt
			}
			if settled && d.Default != nil && !d.Stored.TellsEmpty && d.Kind != "StatefulSet" && !known { // whose claim templates show their type
				t.Error("it was stored with its defaults, but that is not known")
			}
		}
	})
}

// write returns an object as it is stored, and as the watch cache has it then.
func write(t testing.TB, d *kind.Definition, obj object.Object) (codec.Written, *watchcache.Version) {
	t.Helper()
	written, err := codec.Write(d, obj)
	if err != nil {
		t.Fatal(err)
	}
	v, err := written.Version(7)
	if err != nil {
		t.Fatal(err)
	}
	return written, v
}

// TestConversionSettles: there and back may say something in another way (annotations of autoscaling/v1), but only once.
func TestConversionSettles(t *testing.T) {
	each(t, func(t *testing.T, d *kind.Definition, fill func() object.Object) {
		if d.Convert == nil {
			return
		}
		thereAndBack := func(obj object.Object) object.Object {
			hub, err := d.Convert.ToHub(object.Copy(obj))
			if err != nil {
				t.Fatal(err)
			}
			back, err := d.Convert.FromHub(hub)
			if err != nil {
				t.Fatal(err)
			}
			return back
		}
		once := thereAndBack(fill())
		if twice := thereAndBack(once); !equality.Semantic.DeepEqual(once, twice) {
			t.Error(cmp.Diff(once, twice))
		}
	})
}

// noLongerUsed are fields of an older version that the hub does not have any more.
var noLongerUsed = map[string]bool{
	"podcertificaterequests.Spec.PKIXPublicKey": true, "podcertificaterequests.Spec.ProofOfPossession": true,
}

// TestVersionsHaveTheSameFields: what is said to differ in the version's name alone has the same fields, under the same names and numbers.
func TestVersionsHaveTheSameFields(t *testing.T) {
	checked := 0
	for _, d := range kind.NewCatalog(Groups(testOptions())...).All() {
		if d.Convert != nil && d.Convert.SameMessage {
			checked++
			sameFields(t, d.Plural, reflect.TypeOf(d.New()), reflect.TypeOf(d.Hub().New()), map[reflect.Type]bool{})
		}
	}
	if checked < 16 {
		t.Errorf("only %d versions are said to be the same", checked)
	}
}

func sameFields(t *testing.T, path string, a, b reflect.Type, seen map[reflect.Type]bool) {
	if a == b || seen[a] {
		return
	}
	seen[a] = true
	if a.Kind() != b.Kind() {
		t.Errorf("%s: %s and %s", path, a, b)
		return
	}
	switch a.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		sameFields(t, path, a.Elem(), b.Elem(), seen)
	case reflect.Struct:
		if b.NumField() > a.NumField() {
			t.Errorf("%s: the hub has more fields", path)
		}
		for i := range a.NumField() {
			f := a.Field(i)
			at := path + "." + f.Name
			g, found := b.FieldByName(f.Name)
			number := func(f reflect.StructField) string { n, _, _ := strings.Cut(f.Tag.Get("protobuf"), ",name="); return n }
			switch {
			case !found && noLongerUsed[at]:
			case !found:
				t.Errorf("%s: the hub has no such field", at)
			case f.Tag.Get("json") != g.Tag.Get("json") || number(f) != number(g):
				t.Errorf("%s: %s and %s", at, f.Tag, g.Tag)
			default:
				sameFields(t, at, f.Type, g.Type, seen)
			}
		}
	}
}

// TestNothingPanics: whatever a client sends, a kind has an answer.
func TestNothingPanics(t *testing.T) {
	ctx := context.Background()
	each(t, func(t *testing.T, d *kind.Definition, fill func() object.Object) {
		hub := d.Hub()
		make := func() object.Object {
			obj := fill()
			if d.Default != nil {
				d.Default(obj)
			}
			if d.Convert != nil {
				obj, _ = d.Convert.ToHub(obj)
			}
			return obj
		}
		obj, old := make(), make()
		if hub.PrepareCreate != nil {
			hub.PrepareCreate(ctx, old)
		}
		valid := true // warnings are for valid objects
		if d.Validate != nil {
			valid = len(d.Validate(ctx, old)) == 0
		}
		if hub.Warnings != nil && valid {
			hub.Warnings(ctx, old, nil)
		}
		for _, s := range hub.Subresources {
			if s.View == nil {
				continue
			}
			updated := object.Copy(obj)
			if s.View.Prepare != nil {
				s.View.Prepare(ctx, updated, object.Copy(old))
			}
			if s.View.Validate != nil {
				s.View.Validate(ctx, updated, old)
			}
		}
		if hub.PrepareUpdate != nil {
			hub.PrepareUpdate(ctx, obj, object.Copy(old))
		}
		if d.ValidateUpdate != nil {
			valid = len(d.ValidateUpdate(ctx, obj, old)) == 0
		}
		if hub.Warnings != nil && valid {
			hub.Warnings(ctx, obj, old)
		}
		if hub.Generation != nil {
			hub.Generation(obj, old)
		}
		for _, c := range d.Columns.All() {
			if dated, ok := c.Of(obj).(kind.Dated); ok {
				dated.At(time.Now())
			}
		}
	})
}
