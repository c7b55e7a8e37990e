package admission

import (
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// store is stored objects in memory.
type store struct {
	objects map[string]object.Object
	reads   int
	missing func(key string) // called when an object is not there
}

func newStore(objects map[schema.GroupResource][]object.Object) *store {
	s := &store{objects: map[string]object.Object{}}
	for resource, all := range objects {
		for _, o := range all {
			s.objects[key(resource, o.GetNamespace(), o.GetName())] = o
		}
	}
	return s
}

func key(r schema.GroupResource, namespace, name string) string {
	return r.String() + "|" + object.Key(namespace, name)
}

func (s *store) Get(_ context.Context, r schema.GroupResource, namespace, name string) (object.Object, error) {
	s.reads++
	k := key(r, namespace, name)
	if o := s.objects[k]; o != nil {
		return object.Copy(o), nil
	}
	if s.missing != nil {
		s.missing(k)
	}
	return nil, apierrors.NewNotFound(r, name)
}

func (s *store) List(_ context.Context, r schema.GroupResource, namespace string) ([]object.Object, error) {
	s.reads++
	var found []object.Object
	for _, k := range slices.Sorted(maps.Keys(s.objects)) {
		if o := s.objects[k]; strings.HasPrefix(k, r.String()+"|") && (namespace == "" || o.GetNamespace() == namespace) {
			found = append(found, object.Copy(o))
		}
	}
	return found, nil
}

func (s *store) Change(ctx context.Context, r schema.GroupResource, namespace, name string, change func(object.Object) error, options kind.ChangeOptions) (object.Object, error) {
	o, err := s.Get(ctx, r, namespace, name)
	if err != nil {
		return nil, err
	}
	if err := change(o); err != nil {
		return nil, err
	}
	if !options.DryRun {
		s.objects[key(r, namespace, name)] = o
	}
	return o, nil
}

func (s *store) Create(_ context.Context, r schema.GroupResource, o object.Object) (object.Object, error) {
	s.objects[key(r, o.GetNamespace(), o.GetName())] = o
	return o, nil
}

func (s *store) Delete(context.Context, schema.GroupResource, string, string, metav1.DeleteOptions) error {
	return errors.New("no plug-in deletes anything")
}

// allow lets users do what is listed as "verb resource name".
type allow []string

func (a allow) Authorize(_ context.Context, q *authz.Attributes) (authz.Decision, string, error) {
	resource := q.Resource
	if q.Subresource != "" {
		resource += "/" + q.Subresource
	}
	if slices.Contains(a, q.Verb+" "+resource+" "+q.Name) {
		return authz.Allow, "", nil
	}
	return authz.NoOpinion, "no rule", nil
}

// definitions are the kinds of the requests in tests: "group/plural" or "plural", then the kind.
func definition(resource string) *kind.Definition {
	group, plural, found := strings.Cut(resource, "/")
	if !found {
		group, plural = "", resource
	}
	return &kind.Definition{Group: group, Version: "v1", Plural: plural}
}

// on makes a request about an object: "pods", "pods/binding" for a subresource, "apps:deployments" in a group.
func on(operation Operation, resource string, obj, old object.Object) *Request {
	group, rest, found := strings.Cut(resource, ":")
	if !found {
		group, rest = "", resource
	}
	plural, subresource, _ := strings.Cut(rest, "/")
	r := &Request{
		Operation: operation, Definition: definition(group + "/" + plural), Subresource: subresource,
		User: &user.Info{Name: "jane"}, Object: obj, Old: old,
	}
	for _, o := range []object.Object{obj, old} {
		if o != nil {
			r.Namespace, r.Name = o.GetNamespace(), o.GetName()
		}
	}
	return r
}

// admit runs a plug-in, both phases, and returns the text of its refusal.
func admit(t *testing.T, p Plugin, r *Request) string {
	t.Helper()
	err := Chain{p}.Change(t.Context(), r)
	if err == nil {
		err = Chain{p}.Check(t.Context(), r)
	}
	if err == nil {
		return ""
	}
	return err.Error()
}

func same(t *testing.T, name string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %#v\nwant %#v", name, got, want)
	}
}

func TestSelect(t *testing.T) {
	all := Builtin(newStore(nil), BuiltinOptions{
		Objects: newStore(nil), Authorizer: allow{}, Catalog: kind.NewLive(kind.NewCatalog()),
		Others: []Plugin{{Name: "ValidatingAdmissionWebhook"}, {Name: "NodeRestriction"}, {Name: "RBACGrants"}},
	})
	for _, test := range []struct {
		name            string
		enable, disable string
		has, lacks      string
		err             string
	}{
		{name: "defaults", has: "NamespaceLifecycle,LimitRanger,ServiceAccount,TaintNodesByCondition,PodSecurity,Priority,DefaultTolerationSeconds,DefaultStorageClass,StorageObjectInUseProtection,PersistentVolumeClaimResize,RuntimeClass,CertificateApproval,CertificateSigning,ClusterTrustBundleAttest,CertificateSubjectRestriction,DefaultIngressClass,PodTopologyLabels,NodeDeclaredFeatureValidator,PodResizeValidator,ValidatingAdmissionWebhook,ResourceQuota,RBACGrants", lacks: "NodeRestriction,AlwaysDeny,AlwaysPullImages"},
		{name: "enable", enable: "NodeRestriction,AlwaysPullImages,LimitRanger", has: "NodeRestriction,AlwaysPullImages,LimitRanger"},
		{name: "disable one that is not there", disable: "MutatingAdmissionWebhook,ServiceAccount", has: "Priority", lacks: "ServiceAccount"},
		{name: "enable one that is not there", enable: "ImagePolicyWebhook", err: `enable-admission-plugins plugin "ImagePolicyWebhook" is not supported: this server does not call webhooks or evaluate policies of that kind`},
		{name: "not configured", enable: "EventRateLimit", err: `enable-admission-plugins plugin "EventRateLimit" is not supported: no limits are configured`},
		{name: "unknown", enable: "Foo", disable: "Bar", err: "enable-admission-plugins plugin \"Foo\" is unknown\ndisable-admission-plugins plugin \"Bar\" is unknown"},
		{name: "both", enable: "LimitRanger", disable: "LimitRanger", err: "[LimitRanger] in enable-admission-plugins and disable-admission-plugins overlapped"},
	} {
		t.Run(test.name, func(t *testing.T) {
			split := func(s string) []string {
				return strings.FieldsFunc(s, func(r rune) bool { return r == ',' })
			}
			chain, err := Select(all, split(test.enable), split(test.disable))
			text := ""
			if err != nil {
				text = err.Error()
			}
			same(t, "error", text, test.err)
			var names []string
			at := -1
			for _, p := range chain {
				names = append(names, p.Name)
				if place(p.Name) < at {
					t.Errorf("%s stands at the wrong place", p.Name)
				}
				at = place(p.Name)
			}
			for _, n := range split(test.has) {
				if !slices.Contains(names, n) {
					t.Errorf("%s is not in force", n)
				}
			}
			for _, n := range split(test.lacks) {
				if slices.Contains(names, n) {
					t.Errorf("%s is in force", n)
				}
			}
		})
	}
}

// TestUnconcerned is that plug-ins neither read nor allocate for a request that is none of their business.
func TestUnconcerned(t *testing.T) {
	s := newStore(nil)
	chain, err := Select(Builtin(s, BuiltinOptions{Objects: s, Authorizer: allow{}}), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	cluster := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "x"}}
	r := on(Update, "example.com:things", cluster, cluster)
	n := testing.AllocsPerRun(10, func() {
		if err := errors.Join(chain.Change(t.Context(), r), chain.Check(t.Context(), r)); err != nil {
			t.Fatal(err)
		}
	})
	same(t, "allocations", n, 0.0)
	same(t, "reads", s.reads, 0)
}
