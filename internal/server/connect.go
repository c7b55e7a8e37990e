package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"

	"github.com/timonel/timonel/internal/admission"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/proxy"
	"github.com/timonel/timonel/internal/route"
	"github.com/timonel/timonel/internal/user"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	podsResource            = schema.GroupResource{Resource: "pods"}
	nodesResource           = schema.GroupResource{Resource: "nodes"}
	serviceAccountsResource = schema.GroupResource{Resource: "serviceaccounts"}
	servicesResource        = schema.GroupResource{Resource: "services"}
	slicesResource          = schema.GroupResource{Group: discoveryv1.GroupName, Resource: "endpointslices"}
)

// connector answers the connect verbs through the proxy.
type connector struct {
	reader    kind.Reader
	proxy     *proxy.Server
	admission *admission.Gate
}

func (s *Server) connector(gate *admission.Gate) *connector {
	reader := s.Engine.Objects() // a pod is reached as soon as any server has shown it
	config := proxy.Config{Lookup: lookup{reader}}
	for _, t := range s.KubeletPreferredAddressTypes {
		config.AddressTypes = append(config.AddressTypes, corev1.NodeAddressType(t))
	}
	config.KubeletTLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if c := s.Credentials; c.kubelet != nil {
		config.KubeletTLS.Certificates = []tls.Certificate{*c.kubelet}
	}
	if s.Credentials.kubeletCA != nil {
		config.KubeletTLS.RootCAs = s.Credentials.kubeletCA
	} else {
		config.KubeletTLS.InsecureSkipVerify = true // as kube-apiserver does without --kubelet-certificate-authority
	}
	return &connector{reader: reader, proxy: proxy.New(config), admission: gate}
}

// lookup reads what the proxy asks for.
type lookup struct{ kind.Reader }

func (l lookup) Node(ctx context.Context, name string) (*corev1.Node, error) {
	return read[*corev1.Node](ctx, l.Reader, nodesResource, "", name)
}

func (l lookup) EndpointSlices(ctx context.Context, namespace, service string) ([]*discoveryv1.EndpointSlice, error) {
	all, err := l.List(ctx, slicesResource, namespace)
	if err != nil {
		return nil, err
	}
	var of []*discoveryv1.EndpointSlice
	for _, obj := range all {
		if slice, ok := obj.(*discoveryv1.EndpointSlice); ok && slice.Labels[discoveryv1.LabelServiceName] == service {
			of = append(of, slice)
		}
	}
	return of, nil
}

// read gets an object of a known type.
func read[T any](ctx context.Context, r kind.Reader, resource schema.GroupResource, namespace, name string) (t T, err error) {
	obj, err := r.Get(ctx, resource, namespace, name)
	if err != nil {
		return t, err
	}
	t, ok := obj.(T)
	if !ok {
		return t, fmt.Errorf("read %s %s: it is a %T", resource, name, obj)
	}
	return t, nil
}

// Connect implements httpapi.Connector.
func (c *connector) Connect(w http.ResponseWriter, r *http.Request, q *route.Request) error {
	if q.Subresource != "log" {
		if len(q.Query["dryRun"]) > 0 {
			return apierrors.NewBadRequest("dryRun is not supported")
		}
		if err := c.admit(r.Context(), q); err != nil {
			return err
		}
	}
	if q.Subresource == "proxy" {
		return c.pass(w, r, q)
	}
	pod, err := read[*corev1.Pod](r.Context(), c.reader, podsResource, q.Namespace, q.Name)
	if err != nil {
		return err
	}
	switch q.Subresource {
	case "log":
		return c.proxy.Log(w, r, pod)
	case "exec":
		return c.proxy.Exec(w, r, pod)
	case "attach":
		return c.proxy.Attach(w, r, pod)
	case "portforward":
		return c.proxy.PortForward(w, r, pod)
	}
	return route.MethodNotAllowed()
}

// admit asks admission about a connection (operation CONNECT).
func (c *connector) admit(ctx context.Context, q *route.Request) error {
	request := &admission.Request{
		Operation: admission.Connect, Definition: q.Definition, Subresource: q.Subresource,
		Namespace: q.Namespace, Name: q.Name, User: user.From(ctx),
	}
	if err := c.admission.Chain().Change(ctx, request); err != nil {
		return err
	}
	return c.admission.Chain().Check(ctx, request)
}

// pass answers the proxy subresources of pods, services and nodes.
func (c *connector) pass(w http.ResponseWriter, r *http.Request, q *route.Request) error {
	name, err := proxy.ParseName(q.Resource, q.Name)
	if err != nil {
		return err
	}
	ctx := r.Context()
	switch q.Resource {
	case "pods":
		pod, err := read[*corev1.Pod](ctx, c.reader, podsResource, q.Namespace, name.Name)
		if err != nil {
			return err
		}
		return c.proxy.Pod(w, r, pod, name, q.Tail)
	case "services":
		service, err := read[*corev1.Service](ctx, c.reader, servicesResource, q.Namespace, name.Name)
		if err != nil {
			return err
		}
		return c.proxy.Service(w, r, service, name, q.Tail)
	}
	node, err := read[*corev1.Node](ctx, c.reader, nodesResource, "", name.Name)
	if err != nil {
		return err
	}
	return c.proxy.Node(w, r, node, name, q.Tail)
}
