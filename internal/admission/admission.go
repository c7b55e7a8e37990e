// Package admission is the contract between the engine and the plug-ins that may
// change or refuse a write, and the order in which they run.
//
// Mutating plug-ins see the object after it was decoded and defaulted (Change);
// validating ones see it as it will be stored (Check). A plug-in answers with an API
// Status error to refuse; any other error becomes an internal error.
//
// Does not know: HTTP, storage. The built-in plug-ins are one file each; start
// reading at plugins.go.
package admission

import (
	"context"
	"fmt"
	"sync"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
)

// Operation is what a request does to an object (admission.k8s.io/v1 Operation).
type Operation string

const (
	Create  Operation = "CREATE"
	Update  Operation = "UPDATE"
	Delete  Operation = "DELETE"
	Connect Operation = "CONNECT"
)

// Request is what a plug-in is told.
type Request struct {
	Operation       Operation
	Definition      *kind.Definition // of the resource, in the version of the request
	Subresource     string
	Namespace, Name string         // Name is empty on create with generateName until it is generated
	Object          object.Object  // nil on delete; what was posted, for a subresource with a kind of its own
	Old             object.Object  // nil on create and connect
	Options         runtime.Object // the verb's options, e.g. *metav1.CreateOptions
	User            *user.Info
	DryRun          bool

	// Premises are what the decision on a new object rests on.
	Premises []kind.Premise

	found found // what plug-ins have read already; only the goroutine of the request uses it

	mu          sync.Mutex
	warnings    []string
	annotations map[string]string
}

// Warn adds a text to the Warning headers of the answer.
func (r *Request) Warn(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.warnings = append(r.warnings, fmt.Sprintf(format, args...))
}

// Warnings returns what was warned about so far.
func (r *Request) Warnings() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.warnings
}

// Annotate adds an annotation to the audit record of the request.
func (r *Request) Annotate(key, value string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.annotations == nil {
		r.annotations = map[string]string{}
	}
	r.annotations[key] = value
}

// Forbidden is the usual refusal: 403 `pods "web" is forbidden: <text>`.
func (r *Request) Forbidden(format string, args ...any) error {
	name := r.Name
	if name == "" && r.Object != nil {
		if name = r.Object.GetName(); name == "" && r.Object.GetGenerateName() != "" {
			name = r.Object.GetGenerateName()
		}
	}
	return apierrors.NewForbidden(r.Definition.GroupResource(), name, fmt.Errorf(format, args...))
}

// Is reports whether the request is about the resource itself (not a
// subresource) of the given group and plural.
func (r *Request) Is(group, plural string) bool {
	return r.Subresource == "" && r.Definition.Group == group && r.Definition.Plural == plural
}

// Plugin is an admission plug-in: a name, as in --enable-admission-plugins, and one or
// both phases.
type Plugin struct {
	Name string
	// Change may edit Request.Object. nil: the plug-in does not mutate.
	Change func(ctx context.Context, r *Request) error
	// Check sees the final object and must not edit it. nil: it does not validate.
	Check func(ctx context.Context, r *Request) error
}

// Chain runs plug-ins in order.
type Chain []Plugin

// Change runs the mutating phase.
func (c Chain) Change(ctx context.Context, r *Request) error {
	return c.run(ctx, r, func(p *Plugin) func(context.Context, *Request) error { return p.Change })
}

// Check runs the validating phase.
func (c Chain) Check(ctx context.Context, r *Request) error {
	return c.run(ctx, r, func(p *Plugin) func(context.Context, *Request) error { return p.Check })
}

func (c Chain) run(ctx context.Context, r *Request, phase func(*Plugin) func(context.Context, *Request) error) error {
	for i := range c {
		if f := phase(&c[i]); f != nil {
			if err := f(ctx, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// Gate holds the chain that is in force. The engine is made before the plug-ins
// that read through it; the server closes that circle with Set, before the first request.
type Gate struct{ chain Chain }

// Set puts a chain in force.
func (g *Gate) Set(c Chain) { g.chain = c }

// Chain returns the chain in force.
func (g *Gate) Chain() Chain {
	if g == nil {
		return nil
	}
	return g.chain
}
