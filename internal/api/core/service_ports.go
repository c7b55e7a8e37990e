package core

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/timonel/timonel/internal/kind"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// portBook gives node ports to one Service and takes them back.
type portBook struct {
	ports *portSet
	was   []int // what the Service had before
	mine  []int // what it has got since
}

// ports fills in node ports and the health check port, and gives back those that the Service no longer has. The allocation
// that changes with it is returned; nil: none does.
func (a *allocator) ports(ctx context.Context, r kind.Reader, s, old *corev1.Service) (*kind.Companion, error) {
	was := portNumbers(old)
	if len(was) == 0 && (s == nil || !mayHaveNodePorts(s)) {
		return nil, nil
	}
	ports, stored, err := readPorts(ctx, r, a.options.NodePorts)
	if err != nil {
		return nil, err
	}
	book := &portBook{ports: ports, was: was}
	if s != nil && mayHaveNodePorts(s) {
		if err := book.fill(s, old == nil); err != nil {
			return nil, err
		}
		if err := book.healthPort(s); err != nil {
			return nil, err
		}
	}
	kept := portNumbers(s)
	for _, port := range was {
		if !slices.Contains(kept, port) {
			ports.remove(port)
		}
	}
	if stored.Range == ports.limits.String() && slices.Equal(stored.Data, ports.data()) {
		return nil, nil
	}
	next := stored.DeepCopy()
	next.Range, next.Data = ports.limits.String(), ports.data()
	return &kind.Companion{Definition: a.options.Ranges, Object: next, Name: portAllocation, Replaces: stored.ResourceVersion}, nil
}

// fill gives the ports of a Service their node ports. Ports of one number, TCP and UDP, share the node port that is chosen for a new
// Service.
func (b *portBook) fill(s *corev1.Service, share bool) error {
	at := specPath.Child("ports")
	chosen := map[int32]int32{} // by port number
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.NodePort == 0 {
			continue
		}
		if !slices.Contains(b.mine, int(p.NodePort)) || share && chosen[p.Port] != p.NodePort {
			if err := b.claim(int(p.NodePort)); err != nil {
				return apierrors.NewInvalid(serviceKind, s.Name, field.ErrorList{field.Invalid(at.Index(i).Child("nodePort"), p.NodePort, err.Error())})
			}
		}
		if chosen[p.Port] == 0 {
			chosen[p.Port] = p.NodePort
		}
	}
	if !wantsNodePorts(s) {
		return nil
	}
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.NodePort != 0 {
			continue
		}
		if share && chosen[p.Port] != 0 {
			p.NodePort = chosen[p.Port]
			continue
		}
		n, err := b.draw()
		if err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: %w", err))
		}
		p.NodePort, chosen[p.Port] = int32(n), int32(n)
	}
	return nil
}

func (b *portBook) healthPort(s *corev1.Service) error {
	if !wantsHealthPort(s) {
		return nil
	}
	if n := int(s.Spec.HealthCheckNodePort); n != 0 {
		if err := b.claim(n); err != nil {
			return apierrors.NewInternalError(fmt.Errorf("failed to allocate requested HealthCheck NodePort %d: %w", n, err))
		}
		return nil
	}
	n, err := b.draw()
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("failed to allocate a HealthCheck NodePort %d: %w", n, err))
	}
	s.Spec.HealthCheckNodePort = int32(n)
	return nil
}

// claim takes a certain port, which the Service may have had before.
func (b *portBook) claim(port int) error {
	limits := b.ports.limits
	switch {
	case slices.Contains(b.was, port):
		return nil
	case !limits.Contains(port):
		return fmt.Errorf("provided port is not in the valid range. The range of valid ports is %s", limits)
	case b.ports.has(port):
		return errors.New("provided port is already allocated")
	}
	b.ports.add(port)
	b.mine = append(b.mine, port)
	return nil
}

func (b *portBook) draw() (int, error) {
	port, err := b.ports.draw()
	b.mine = append(b.mine, port)
	return port, err
}
