package authz

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"sync"
	"sync/atomic"

	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	rbacv1 "k8s.io/api/rbac/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
)

// Feed keeps an authorizer's picture of the cluster up to date. Reset replaces
// the picture by these objects; Upsert and Remove change it by one. The calls come from one goroutine or many, while
// requests are being authorized; objects are not changed by either side afterwards. Kinds that
// do not concern the authorizer are ignored.
type Feed interface {
	Reset(objects []object.Object)
	Upsert(obj object.Object)
	Remove(obj object.Object)
}

// RBAC is role-based access control (docs: "Using RBAC Authorization").
//
// How it works. A role is compiled once into an index and put in a cell; a binding becomes one grant for
// each of its subjects, and a grant points to the cell. Grants are found by subject and namespace in tables that are
// split into shards; a shard is an immutable map behind an atomic pointer. So a question takes no lock and
// looks only at what is granted to this user and to each of its groups; a changed role is one pointer; a changed binding
// copies the shards of its subjects.
type RBAC struct {
	seed  maphash.Seed
	table [shards]atomic.Pointer[map[subject][]*grant]

	mu struct {
		sync.Mutex
		cells    map[roleKey]*cell
		bindings map[bindingKey]*binding
	}
}

// shards is how many parts the table of grants has: a change copies one of them.
const shards = 64

// subject is a user or group inside a namespace; namespace "" is the whole cluster.
type subject struct {
	namespace, name string
	group           bool
}

type roleKey struct{ namespace, name string } // namespace "": a cluster role

type bindingKey struct{ namespace, name string } // namespace "": a cluster role binding

// binding is what a binding put into the table.
type binding struct {
	role   roleKey
	cell   *cell // nil: it refers to nothing that could be bound
	grants []*grant
}

// grant is one subject of one binding.
type grant struct {
	subject subject
	cell    *cell
	binding *rbacv1.Subject
	source  bindingKey
	reason  atomic.Pointer[string] // made when first needed
}

// NewRBAC returns an authorizer that knows no roles.
func NewRBAC() *RBAC {
	r := &RBAC{seed: maphash.MakeSeed()}
	r.clear()
	return r
}

func (r *RBAC) clear() {
	r.mu.cells = map[roleKey]*cell{}
	r.mu.bindings = map[bindingKey]*binding{}
	empty := map[subject][]*grant{}
	for i := range r.table {
		r.table[i].Store(&empty)
	}
}

// Authorize implements Authorizer.
func (r *RBAC) Authorize(_ context.Context, a *Attributes) (Decision, string, error) {
	q := ask(a)
	// Names of what was not found on the way; nearly always empty.
	var missing []*cell
	if g := r.find(&q, "", &missing); g != nil {
		return Allow, g.allowed(), nil
	}
	if a.Namespace != "" && a.IsResource() {
		if g := r.find(&q, a.Namespace, &missing); g != nil {
			return Allow, g.allowed(), nil
		}
	}
	if len(missing) == 0 {
		return NoOpinion, "", nil
	}
	return NoOpinion, "RBAC: " + notFound(missing).Error(), nil
}

// find returns a grant in the namespace that allows what is asked.
func (r *RBAC) find(q *question, namespace string, missing *[]*cell) *grant {
	if g := search(r.grants(subject{namespace, q.User.Name, false}), q, missing); g != nil {
		return g
	}
	for _, group := range q.User.Groups {
		if g := search(r.grants(subject{namespace, group, true}), q, missing); g != nil {
			return g
		}
	}
	return nil
}

func search(grants []*grant, q *question, missing *[]*cell) *grant {
	for _, g := range grants {
		switch role := g.cell.role.Load(); {
		case role == nil:
			*missing = append(*missing, g.cell)
		case role.allows(q):
			return g
		}
	}
	return nil
}

func (r *RBAC) shard(s subject) *atomic.Pointer[map[subject][]*grant] {
	return &r.table[maphash.String(r.seed, s.name)%shards]
}

func (r *RBAC) grants(s subject) []*grant { return (*r.shard(s).Load())[s] }

// allowed is the reason that is told when the grant allows a request.
func (g *grant) allowed() string {
	if text := g.reason.Load(); text != nil {
		return *text
	}
	bindingKind, bindingName := "ClusterRoleBinding", g.source.name
	if g.source.namespace != "" {
		bindingKind, bindingName = "RoleBinding", g.source.name+"/"+g.source.namespace
	}
	roleKind := "ClusterRole"
	if g.cell.kind == "role" {
		roleKind = "Role"
	}
	subjectName := g.binding.Name
	if g.binding.Kind == rbacv1.ServiceAccountKind {
		subjectName += "/" + g.serviceAccountNamespace()
	}
	text := fmt.Sprintf("RBAC: allowed by %s %q of %s %q to %s %q", bindingKind, bindingName, roleKind, g.cell.name, g.binding.Kind, subjectName)
	g.reason.Store(&text)
	return text
}

func (g *grant) serviceAccountNamespace() string {
	if g.binding.Namespace != "" {
		return g.binding.Namespace
	}
	return g.source.namespace
}

// notFound tells which roles are bound but absent.
func notFound(missing []*cell) error {
	var all []error
	for _, c := range missing {
		all = append(all, c.notFound())
	}
	return utilerrors.NewAggregate(all)
}

func (c *cell) notFound() error {
	return fmt.Errorf("%s.rbac.authorization.k8s.io %q not found", c.kind, c.name)
}

// Reset implements Feed.
func (r *RBAC) Reset(objects []object.Object) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Built aside: until the end, questions are answered from the old picture.
	next := NewRBAC()
	next.seed = r.seed
	tables := [shards]map[subject][]*grant{}
	for i := range tables {
		tables[i] = map[subject][]*grant{}
	}
	for _, obj := range objects {
		if key, rules, ok := rulesOf(obj); ok {
			next.cell(key).role.Store(compile(rules))
			continue
		}
		key, ref, subjects, ok := bindingOf(obj)
		if !ok {
			continue
		}
		b := next.bind(key, ref, subjects)
		next.mu.bindings[key] = b
		for _, g := range b.grants {
			m := tables[maphash.String(r.seed, g.subject.name)%shards]
			m[g.subject] = append(m[g.subject], g)
		}
	}
	r.mu.cells, r.mu.bindings = next.mu.cells, next.mu.bindings
	for i := range tables {
		r.table[i].Store(&tables[i])
	}
}

// Upsert implements Feed.
func (r *RBAC) Upsert(obj object.Object) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if key, rules, ok := rulesOf(obj); ok {
		r.cell(key).role.Store(compile(rules))
		return
	}
	if key, ref, subjects, ok := bindingOf(obj); ok {
		r.replace(key, r.bind(key, ref, subjects))
	}
}

// Remove implements Feed.
func (r *RBAC) Remove(obj object.Object) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if key, _, ok := rulesOf(obj); ok {
		c := r.cell(key)
		c.role.Store(nil)
		r.drop(key, c)
		return
	}
	if key, _, _, ok := bindingOf(obj); ok {
		r.replace(key, nil)
	}
}

// cell returns the cell of a role, which may be empty. r.mu is held.
func (r *RBAC) cell(key roleKey) *cell {
	c := r.mu.cells[key]
	if c == nil {
		c = &cell{kind: "clusterrole", name: key.name}
		if key.namespace != "" {
			c.kind = "role"
		}
		r.mu.cells[key] = c
	}
	return c
}

// drop forgets a cell that is empty and that no binding refers to. r.mu is held.
func (r *RBAC) drop(key roleKey, c *cell) {
	if c.bindings == 0 && c.role.Load() == nil {
		delete(r.mu.cells, key)
	}
}

// bind makes the grants of a binding. r.mu is held.
func (r *RBAC) bind(key bindingKey, ref rbacv1.RoleRef, subjects []rbacv1.Subject) *binding {
	b := &binding{role: roleKey{name: ref.Name}}
	switch {
	case ref.Kind == "Role" && key.namespace != "":
		b.role.namespace = key.namespace
	case ref.Kind != "ClusterRole":
		return b
	}
	c := r.cell(b.role)
	c.bindings++
	b.cell = c
	for i := range subjects {
		if s, ok := subjectOf(key.namespace, &subjects[i]); ok {
			b.grants = append(b.grants, &grant{subject: s, cell: c, binding: &subjects[i], source: key})
		}
	}
	return b
}

// subjectOf is the key under which a binding's subject is found.
func subjectOf(namespace string, s *rbacv1.Subject) (subject, bool) {
	switch s.Kind {
	case rbacv1.UserKind:
		return subject{namespace, s.Name, false}, true
	case rbacv1.GroupKind:
		return subject{namespace, s.Name, true}, true
	case rbacv1.ServiceAccountKind:
		of := s.Namespace
		if of == "" {
			of = namespace
		}
		if of == "" {
			return subject{}, false
		}
		return subject{namespace, user.ServiceAccountPrefix + of + ":" + s.Name, false}, true
	}
	return subject{}, false
}

// replace puts a binding's new grants in place of its old ones; next nil removes it. Each subject sees one
// change, from the old grants to the new. r.mu is held.
func (r *RBAC) replace(key bindingKey, next *binding) {
	affected := map[subject]bool{}
	old := r.mu.bindings[key]
	if old != nil {
		for _, g := range old.grants {
			affected[g.subject] = true
		}
		if old.cell != nil {
			old.cell.bindings--
			r.drop(old.role, old.cell)
		}
	}
	if next == nil {
		delete(r.mu.bindings, key)
	} else {
		r.mu.bindings[key] = next
		for _, g := range next.grants {
			affected[g.subject] = true
		}
	}
	changed := map[*atomic.Pointer[map[subject][]*grant]][]subject{}
	for s := range affected {
		changed[r.shard(s)] = append(changed[r.shard(s)], s)
	}
	for shard, subjects := range changed {
		was := *shard.Load()
		table := make(map[subject][]*grant, len(was)+len(subjects))
		maps.Copy(table, was)
		for _, s := range subjects {
			var grants []*grant
			for _, g := range was[s] {
				if g.source != key {
					grants = append(grants, g)
				}
			}
			if next != nil {
				for _, g := range next.grants {
					if g.subject == s {
						grants = append(grants, g)
					}
				}
			}
			if len(grants) == 0 {
				delete(table, s)
			} else {
				table[s] = grants
			}
		}
		shard.Store(&table)
	}
}

// rulesOf returns the rules of a Role or ClusterRole.
func rulesOf(obj object.Object) (roleKey, []rbacv1.PolicyRule, bool) {
	switch o := obj.(type) {
	case *rbacv1.Role:
		return roleKey{o.Namespace, o.Name}, o.Rules, true
	case *rbacv1.ClusterRole:
		return roleKey{"", o.Name}, o.Rules, true
	}
	return roleKey{}, nil, false
}

// bindingOf returns the content of a RoleBinding or ClusterRoleBinding.
func bindingOf(obj object.Object) (bindingKey, rbacv1.RoleRef, []rbacv1.Subject, bool) {
	switch o := obj.(type) {
	case *rbacv1.RoleBinding:
		return bindingKey{o.Namespace, o.Name}, o.RoleRef, o.Subjects, true
	case *rbacv1.ClusterRoleBinding:
		return bindingKey{"", o.Name}, o.RoleRef, o.Subjects, true
	}
	return bindingKey{}, rbacv1.RoleRef{}, nil, false
}

// RulesFor returns all rules granted to a user in a namespace, "" being the cluster alone. The error names bound
// roles that are absent; the rules are still all that there are.
func (r *RBAC) RulesFor(u *user.Info, namespace string) ([]rbacv1.PolicyRule, error) {
	var rules []rbacv1.PolicyRule
	var missing []*cell
	collect := func(s subject) {
		for _, g := range r.grants(s) {
			if role := g.cell.role.Load(); role != nil {
				rules = append(rules, role.source...)
			} else {
				missing = append(missing, g.cell)
			}
		}
	}
	for _, ns := range []string{"", namespace} {
		collect(subject{ns, u.Name, false})
		for _, group := range u.Groups {
			collect(subject{ns, group, true})
		}
		if namespace == "" {
			break
		}
	}
	if len(missing) > 0 {
		return rules, notFound(missing)
	}
	return rules, nil
}

// errRoleNotFound is answered by roleRules.
var errRoleNotFound = errors.New("role not found")

// roleRules returns the rules of the role that a binding in a namespace refers to.
func (r *RBAC) roleRules(ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	key := roleKey{name: ref.Name}
	switch {
	case ref.Kind == "Role":
		key.namespace = namespace
	case ref.Kind != "ClusterRole":
		return nil, fmt.Errorf("unsupported role reference kind: %q", ref.Kind)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.mu.cells[key]
	if c == nil {
		return nil, errRoleNotFound
	}
	role := c.role.Load()
	if role == nil {
		return nil, errRoleNotFound
	}
	return role.source, nil
}
