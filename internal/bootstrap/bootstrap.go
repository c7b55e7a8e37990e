// Package bootstrap is what an API server puts into the store by itself when it starts:
// namespaces, the default RBAC policy, priority classes, flow control, the service through which pods reach
// it, and what extension API servers need to know.
//
// Promises: the objects are complete, as kube-apiserver stores them; [Reconcile] makes what is
// missing, repairs what must be right, keeps what administrators added or opted out of, and writes nothing
// when nothing is to be done, save for the server's own identity Lease.
//
// Does not know: how objects are stored, who renews the Lease. Start reading at Reconcile.
package bootstrap

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// Config is what differs between servers.
type Config struct {
	Catalog *kind.Catalog // objects of kinds that it lacks are left out

	ServiceRanges []netip.Prefix // of which the first address is the service's
	Port          int            // on which the API server listens
	NodePort      int            // of the service default/kubernetes; 0: none
	// Servers are the addresses of all live API servers, this one included; none: the endpoints are
	// left alone (--endpoint-reconciler-type=none).
	Servers []netip.Addr

	Authentication Authentication
	Identity       Identity
	// RBAC says that the default policy is wanted (authorization mode RBAC), ClusterAdmins that the
	// group of kubeadm's certificates is to be bound.
	RBAC          bool
	ClusterAdmins bool
	// StorageVersions says that the server publishes them, and that somebody collects those of servers that are gone.
	StorageVersions bool

	// Now is the clock; default time.Now.
	Now func() time.Time
}

// Batch is an optional ability of the objects given to [Reconcile]: to create many
// objects at once.
type Batch interface {
	// CreateAll creates those of the objects that do not exist, in as few transactions as it can. The
	// caller vouches for the objects: they are neither prepared nor validated, and keep their status; uid, creation time
	// and managed fields are filled in.
	CreateAll(ctx context.Context, seeds []kind.Seed) error
}

// Managers of the fields of what is made here.
const (
	serverManager   = "kube-apiserver"
	fairnessManager = "api-priority-and-fairness-config-producer-v1"
)

// wanted are objects of one resource and how one that exists is put right.
type wanted struct {
	resource schema.GroupResource
	objects  []object.Object
	manager  string
	// repair changes have, as far as it must, to be like want, and reports whether it did. nil:
	// what exists is left alone.
	repair func(have, want object.Object) bool
	// vouched: repairs are not validated. A server that listens on loopback alone has endpoints that no client may write.
	vouched bool
	// stale tells an object that a server made and that is no longer wanted, among all of the resource.
	stale func(have object.Object) bool
}

// Reconcile makes and repairs all bootstrap objects.
func Reconcile(ctx context.Context, objects kind.Objects, config Config) error {
	if config.Now == nil {
		config.Now = time.Now
	}
	if err := reconcileAll(ctx, objects, config.Catalog, config.wanted()); err != nil {
		return err
	}
	return config.reconcileService(ctx, objects)
}

// reconcileAll makes and repairs what is wanted of the kinds that the catalogue has.
func reconcileAll(ctx context.Context, objects kind.Objects, catalog *kind.Catalog, all []wanted) error {
	var create []kind.Seed
	for _, w := range all {
		if catalog.Hub(w.resource) == nil {
			continue
		}
		for _, want := range w.objects {
			missing, err := w.reconcile(ctx, objects, want)
			if err != nil {
				return err
			}
			if missing {
				create = append(create, kind.Seed{Resource: w.resource, Object: want, Manager: w.manager})
			}
		}
		if w.stale != nil {
			if err := w.removeStale(ctx, objects); err != nil {
				return err
			}
		}
	}
	return createAll(ctx, objects, create)
}

// reconcile puts an existing object right; it reports whether there is none.
func (w *wanted) reconcile(ctx context.Context, objects kind.Objects, want object.Object) (missing bool, err error) {
	have, err := objects.Get(ctx, w.resource, want.GetNamespace(), want.GetName())
	switch {
	case apierrors.IsNotFound(err):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("read %s %s: %w", w.resource, want.GetName(), err)
	case w.repair == nil || !w.repair(have, want):
		return false, nil
	}
	if replaced, ok := have.(*rbacv1.ClusterRoleBinding); ok && replaced.RoleRef != want.(*rbacv1.ClusterRoleBinding).RoleRef {
		return true, w.remove(ctx, objects, have) // a role reference cannot be changed
	}
	if replaced, ok := have.(*rbacv1.RoleBinding); ok && replaced.RoleRef != want.(*rbacv1.RoleBinding).RoleRef {
		return true, w.remove(ctx, objects, have)
	}
	_, err = objects.Change(ctx, w.resource, want.GetNamespace(), want.GetName(), func(have object.Object) error {
		w.repair(have, want)
		return nil
	}, kind.ChangeOptions{Raw: w.vouched})
	if err != nil && !apierrors.IsNotFound(err) {
		return false, fmt.Errorf("repair %s %s: %w", w.resource, want.GetName(), err)
	}
	return false, nil
}

func (w *wanted) removeStale(ctx context.Context, objects kind.Objects) error {
	all, err := objects.List(ctx, w.resource, "")
	if err != nil {
		return fmt.Errorf("list %s: %w", w.resource, err)
	}
	for _, have := range all {
		if !w.stale(have) || slices.ContainsFunc(w.objects, func(o object.Object) bool { return o.GetName() == have.GetName() }) {
			continue
		}
		if err := w.remove(ctx, objects, have); err != nil {
			return err
		}
	}
	return nil
}

func (w *wanted) remove(ctx context.Context, objects kind.Objects, have object.Object) error {
	uid := have.GetUID()
	err := objects.Delete(ctx, w.resource, have.GetNamespace(), have.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("remove %s %s: %w", w.resource, have.GetName(), err)
	}
	return nil
}

// createAll creates objects in one transaction if it can, else one after the other.
func createAll(ctx context.Context, objects kind.Objects, seeds []kind.Seed) error {
	if len(seeds) == 0 {
		return nil
	}
	if batch, ok := objects.(Batch); ok {
		if err := batch.CreateAll(ctx, seeds); err != nil {
			return fmt.Errorf("create bootstrap objects: %w", err)
		}
		return nil
	}
	for _, seed := range seeds {
		if err := create(ctx, objects, seed); err != nil {
			return err
		}
	}
	return nil
}

// create creates one object; that someone else made it meanwhile is fine.
func create(ctx context.Context, objects kind.Objects, seed kind.Seed) error {
	if _, err := objects.Create(ctx, seed.Resource, seed.Object); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create %s %s: %w", seed.Resource, object.Key(seed.Object.GetNamespace(), seed.Object.GetName()), err)
	}
	return nil
}

// wanted lists everything but the service and its address, namespaces first.
func (c *Config) wanted() []wanted {
	now := c.Now()
	core := func(resource string) schema.GroupResource { return schema.GroupResource{Resource: resource} }
	in := func(group, resource string) schema.GroupResource {
		return schema.GroupResource{Group: group, Resource: resource}
	}
	all := []wanted{
		{resource: core("namespaces"), objects: Namespaces()},
		{resource: in("scheduling.k8s.io", "priorityclasses"), objects: PriorityClasses()},
		{resource: in("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations"), objects: PriorityLevels(), manager: fairnessManager,
			repair: repairFlow, stale: staleFlow},
		{resource: in("flowcontrol.apiserver.k8s.io", "flowschemas"), objects: FlowSchemas(now), manager: fairnessManager,
			repair: repairFlow, stale: staleFlow},
		{resource: core("configmaps"), objects: []object.Object{LegacyTokenTracking(now)}},
		{resource: core("configmaps"), objects: []object.Object{c.Authentication.configMap()}, repair: repairAuthentication},
	}
	if c.Identity.Hostname != "" {
		all = append(all, wanted{resource: in("coordination.k8s.io", "leases"), objects: []object.Object{c.Identity.Lease(now)}, repair: repairLease})
	}
	if len(c.ServiceRanges) > 0 {
		all = append(all, wanted{resource: in("networking.k8s.io", "servicecidrs"), objects: []object.Object{ServiceCIDR(c.ServiceRanges, now)}})
	}
	if len(c.Servers) > 0 {
		all = append(all, wantedServers(c.Servers, c.Port)...)
	}
	var services []object.Object
	for _, v := range LocalVersions {
		if c.Catalog.Has(v.Group, v.Version) {
			services = append(services, APIService(v, now))
		}
	}
	all = append(all, wanted{resource: in("apiregistration.k8s.io", "apiservices"), objects: services, repair: repairAPIService})
	if c.RBAC {
		policy := Policy()
		if c.ClusterAdmins {
			policy = append(policy, ClusterAdmins())
		}
		if c.StorageVersions {
			policy = append(policy, storageVersionPolicy()...)
		}
		for _, obj := range policy {
			w := wanted{objects: []object.Object{obj}}
			switch obj.(type) {
			case *rbacv1.ClusterRole:
				w.resource, w.repair = in(rbacv1.GroupName, "clusterroles"), repairClusterRole
			case *rbacv1.Role:
				w.resource, w.repair = in(rbacv1.GroupName, "roles"), repairRole
			case *rbacv1.ClusterRoleBinding:
				w.resource, w.repair = in(rbacv1.GroupName, "clusterrolebindings"), repairBinding
			case *rbacv1.RoleBinding:
				w.resource, w.repair = in(rbacv1.GroupName, "rolebindings"), repairBinding
			}
			all = append(all, w)
		}
	}
	for i := range all {
		if all[i].manager == "" {
			all[i].manager = serverManager
		}
	}
	return all
}

// wantedServers are the endpoints of the API servers.
func wantedServers(servers []netip.Addr, port int) []wanted {
	return []wanted{
		{resource: schema.GroupResource{Resource: "endpoints"}, objects: []object.Object{Endpoints(servers, port)},
			manager: serverManager, repair: repairEndpoints, vouched: true},
		{resource: schema.GroupResource{Group: "discovery.k8s.io", Resource: "endpointslices"}, objects: []object.Object{EndpointSlice(servers, port)},
			manager: serverManager, repair: repairEndpointSlice, vouched: true},
	}
}

// ReconcileServers makes and repairs the endpoints of the API servers alone, of which there is at least one.
func ReconcileServers(ctx context.Context, objects kind.Objects, catalog *kind.Catalog, servers []netip.Addr, port int) error {
	return reconcileAll(ctx, objects, catalog, wantedServers(servers, port))
}

// reconcileService makes or repairs the service default/kubernetes. It comes last: to take its address the ServiceCIDR
// must be there.
func (c *Config) reconcileService(ctx context.Context, objects kind.Objects) error {
	services := schema.GroupResource{Resource: "services"}
	definition := c.Catalog.Hub(services)
	if definition == nil || len(c.ServiceRanges) == 0 {
		return nil
	}
	ip := c.ServiceRanges[0].Masked().Addr().Next()
	w := wanted{resource: services, repair: repairService}
	service := Service(ip, c.Port, c.NodePort)
	missing, err := w.reconcile(ctx, objects, service)
	if err != nil || !missing {
		return err
	}
	if definition.Reserve != nil {
		// Whoever reserves the address fills these in, and they are then nobody's fields.
		service.Spec.ClusterIPs, service.Spec.IPFamilies = nil, nil
	}
	if err := create(ctx, objects, kind.Seed{Resource: services, Object: service, Manager: serverManager}); err != nil {
		return err
	}
	addresses := schema.GroupResource{Group: "networking.k8s.io", Resource: "ipaddresses"}
	if definition.Reserve != nil || c.Catalog.Hub(addresses) == nil {
		return nil
	}
	return create(ctx, objects, kind.Seed{Resource: addresses, Object: IPAddress(ip), Manager: serverManager})
}

// optedOut reports whether an administrator took over an object of the RBAC policy.
func optedOut(have object.Object) bool { return have.GetAnnotations()[autoupdateRBAC] == "false" }

// addMissing adds entries whose keys are absent.
func addMissing(have, want map[string]string) (map[string]string, bool) {
	changed := false
	for key, value := range want {
		if _, ok := have[key]; ok {
			continue
		}
		if have == nil {
			have = map[string]string{}
		}
		have[key], changed = value, true
	}
	return have, changed
}

func repairMeta(have, want object.Object) bool {
	labels, a := addMissing(have.GetLabels(), want.GetLabels())
	annotations, b := addMissing(have.GetAnnotations(), want.GetAnnotations())
	if a {
		have.SetLabels(labels)
	}
	if b {
		have.SetAnnotations(annotations)
	}
	return a || b
}

func repairRules(have *[]rbacv1.PolicyRule, want []rbacv1.PolicyRule) bool {
	missing := authz.Uncovered(*have, want)
	*have = append(*have, missing...)
	return len(missing) > 0
}

func repairClusterRole(h, w object.Object) bool {
	have, want := h.(*rbacv1.ClusterRole), w.(*rbacv1.ClusterRole)
	if optedOut(have) {
		return false
	}
	changed := repairMeta(have, want)
	if want.AggregationRule == nil {
		return repairRules(&have.Rules, want.Rules) || changed
	}
	if have.AggregationRule == nil {
		have.AggregationRule = &rbacv1.AggregationRule{}
	}
	for _, selector := range want.AggregationRule.ClusterRoleSelectors {
		same := func(s metav1.LabelSelector) bool { return reflect.DeepEqual(s, selector) }
		if !slices.ContainsFunc(have.AggregationRule.ClusterRoleSelectors, same) {
			have.AggregationRule.ClusterRoleSelectors = append(have.AggregationRule.ClusterRoleSelectors, selector)
			changed = true
		}
	}
	return changed
}

func repairRole(h, w object.Object) bool {
	have, want := h.(*rbacv1.Role), w.(*rbacv1.Role)
	if optedOut(have) {
		return false
	}
	changed := repairMeta(have, want)
	return repairRules(&have.Rules, want.Rules) || changed
}

// repairBinding adds subjects. It reports true for another role reference too, which the caller replaces.
func repairBinding(h, w object.Object) bool {
	if optedOut(h) {
		return false
	}
	changed := repairMeta(h, w)
	add := func(have *[]rbacv1.Subject, want []rbacv1.Subject) {
		for _, s := range want {
			if !slices.Contains(*have, s) {
				*have, changed = append(*have, s), true
			}
		}
	}
	switch have := h.(type) {
	case *rbacv1.ClusterRoleBinding:
		want := w.(*rbacv1.ClusterRoleBinding)
		add(&have.Subjects, want.Subjects)
		changed = changed || have.RoleRef != want.RoleRef
	case *rbacv1.RoleBinding:
		want := w.(*rbacv1.RoleBinding)
		add(&have.Subjects, want.Subjects)
		changed = changed || have.RoleRef != want.RoleRef
	}
	return changed
}

// staleFlow reports whether a flow control object was made by a server, by an older one perhaps.
func staleFlow(have object.Object) bool { return have.GetAnnotations()[autoupdateSpec] == "true" }

// mandatory flow control objects are repaired even when an administrator took them over.
func mandatory(name string) bool { return name == "exempt" || name == "catch-all" }

func repairFlow(h, w object.Object) bool {
	_, annotated := h.GetAnnotations()[autoupdateSpec]
	changed := false
	if mandatory(h.GetName()) && !annotated {
		_ = repairMeta(h, w)
		changed = true
	}
	if !mandatory(h.GetName()) && !staleFlow(h) {
		return false
	}
	switch have := h.(type) {
	case *flowcontrolv1.FlowSchema:
		want := w.(*flowcontrolv1.FlowSchema)
		if !reflect.DeepEqual(have.Spec, want.Spec) {
			have.Spec, changed = *want.Spec.DeepCopy(), true
		}
	case *flowcontrolv1.PriorityLevelConfiguration:
		want := w.(*flowcontrolv1.PriorityLevelConfiguration).Spec.DeepCopy()
		if !staleFlow(h) && have.Spec.Exempt != nil && want.Exempt != nil {
			want.Exempt = have.Spec.Exempt // the exempt level's shares may be changed
		}
		if !reflect.DeepEqual(have.Spec, *want) {
			have.Spec, changed = *want, true
		}
	}
	return changed
}

func repairLease(h, w object.Object) bool {
	have, want := h.(*coordinationv1.Lease), w.(*coordinationv1.Lease)
	have.Spec = *want.Spec.DeepCopy()
	have.Labels = want.Labels
	if len(want.Annotations) > 0 || len(have.Annotations) > 0 {
		have.Annotations = want.Annotations
	}
	return true
}

func repairEndpoints(h, w object.Object) bool {
	have, want := h.(*corev1.Endpoints), w.(*corev1.Endpoints)
	changed := repairMeta(have, want)
	if !reflect.DeepEqual(have.Subsets, want.Subsets) {
		have.Subsets, changed = want.Subsets, true
	}
	return changed
}

func repairEndpointSlice(h, w object.Object) bool {
	have, want := h.(*discoveryv1.EndpointSlice), w.(*discoveryv1.EndpointSlice)
	changed := repairMeta(have, want)
	if !reflect.DeepEqual(have.Endpoints, want.Endpoints) || !reflect.DeepEqual(have.Ports, want.Ports) {
		have.Endpoints, have.Ports, changed = want.Endpoints, want.Ports, true
	}
	return changed
}

func repairService(h, w object.Object) bool {
	have, want := h.(*corev1.Service), w.(*corev1.Service)
	if reflect.DeepEqual(have.Spec.Ports, want.Spec.Ports) && have.Spec.Type == want.Spec.Type {
		return false
	}
	have.Spec.Ports, have.Spec.Type = want.Spec.Ports, want.Spec.Type
	return true
}

func repairAPIService(h, w object.Object) bool {
	have, want := h.(*apiregistrationv1.APIService), w.(*apiregistrationv1.APIService)
	if have.Labels[automanaged] == "" || reflect.DeepEqual(have.Spec, want.Spec) && have.Labels[automanaged] == want.Labels[automanaged] {
		return false
	}
	have.Spec = want.Spec
	have.Labels[automanaged] = want.Labels[automanaged]
	return true
}
