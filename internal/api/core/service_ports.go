package core

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/timonel/timonel/internal/kind"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// nodePort is a port of every node, with the protocol it is used for.
type nodePort struct {
	protocol corev1.Protocol
	port     int
}

// portBook knows which node ports are in use by other Services.
type portBook struct {
	limits PortRange
	used   map[nodePort]bool
	any    map[int]bool
	mine   map[nodePort]bool // of this Service, before and now
}

// ports fills in node ports and the health check port, and refuses those that others use.
func (a *allocator) ports(ctx context.Context, r kind.Reader, s, old *corev1.Service) error {
	if !mayHaveNodePorts(s) {
		return nil
	}
	book, err := a.book(ctx, r, s, old)
	if err != nil {
		return err
	}
	ports := specPath.Child("ports")
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.NodePort == 0 {
			continue
		}
		if err := book.claim(s, nodePort{p.Protocol, int(p.NodePort)}, ports.Index(i).Child("nodePort")); err != nil {
			return err
		}
	}
	chosen := map[int32]int32{} // by port number: TCP and UDP of one port share the node port
	for i := range s.Spec.Ports {
		p := &s.Spec.Ports[i]
		if p.NodePort != 0 {
			chosen[p.Port] = p.NodePort
		}
	}
	if wantsNodePorts(s) {
		for i := range s.Spec.Ports {
			p := &s.Spec.Ports[i]
			if p.NodePort != 0 {
				continue
			}
			if n, ok := chosen[p.Port]; ok && !book.taken(nodePort{p.Protocol, int(n)}) && !book.mine[nodePort{p.Protocol, int(n)}] {
				p.NodePort = n
				book.mine[nodePort{p.Protocol, int(n)}] = true
				continue
			}
			n, err := book.draw(p.Protocol)
			if err != nil {
				return err
			}
			p.NodePort, chosen[p.Port] = int32(n), int32(n)
		}
	}
	return book.healthPort(s, old)
}

func (b *portBook) healthPort(s, old *corev1.Service) error {
	if !wantsHealthPort(s) || old != nil && old.Spec.HealthCheckNodePort == s.Spec.HealthCheckNodePort && s.Spec.HealthCheckNodePort != 0 {
		return nil
	}
	if n := s.Spec.HealthCheckNodePort; n != 0 {
		return b.claim(s, nodePort{corev1.ProtocolTCP, int(n)}, specPath.Child("healthCheckNodePort"))
	}
	n, err := b.draw(corev1.ProtocolTCP)
	s.Spec.HealthCheckNodePort = int32(n)
	return err
}

// book lists the ports of all Services but s.
func (a *allocator) book(ctx context.Context, r kind.Reader, s, old *corev1.Service) (*portBook, error) {
	list, err := r.List(ctx, serviceResource, "")
	if err != nil {
		return nil, fmt.Errorf("list the Services: %w", err)
	}
	b := &portBook{limits: a.options.NodePorts, used: map[nodePort]bool{}, any: map[int]bool{}, mine: map[nodePort]bool{}}
	if old != nil {
		for _, n := range nodePortList(old) {
			b.mine[n] = true
		}
	}
	for _, obj := range list {
		o := obj.(*corev1.Service)
		if o.Namespace == s.Namespace && o.Name == s.Name {
			continue
		}
		for _, n := range nodePortList(o) {
			b.used[n], b.any[n.port] = true, true
		}
	}
	return b, nil
}

func nodePortList(s *corev1.Service) []nodePort {
	var list []nodePort
	for _, p := range s.Spec.Ports {
		if p.NodePort != 0 {
			list = append(list, nodePort{p.Protocol, int(p.NodePort)})
		}
	}
	if n := s.Spec.HealthCheckNodePort; n != 0 {
		list = append(list, nodePort{corev1.ProtocolTCP, int(n)})
	}
	return list
}

// taken reports whether another Service has the number, for whatever protocol.
func (b *portBook) taken(n nodePort) bool { return b.any[n.port] }

// claim takes a certain port.
func (b *portBook) claim(s *corev1.Service, n nodePort, path *field.Path) error {
	refuse := func(text string) error {
		return apierrors.NewInvalid(serviceKind, s.Name, field.ErrorList{field.Invalid(path, n.port, text)})
	}
	switch {
	case b.mine[n]:
		return nil
	case !b.limits.Contains(n.port):
		return refuse(fmt.Sprintf("provided port is not in the valid range. The range of valid ports is %d-%d", b.limits.First, b.limits.Last))
	case b.taken(n):
		return refuse("provided port is already allocated")
	}
	b.mine[n] = true
	return nil
}

// draw chooses a free port at random, from the upper part of the range while there is one.
func (b *portBook) draw(protocol corev1.Protocol) (int, error) {
	total := b.limits.Last - b.limits.First + 1
	lower := int(reservedPorts(total))
	for _, part := range [][2]int{{b.limits.First + lower, b.limits.Last}, {b.limits.First, b.limits.First + lower - 1}} {
		span := part[1] - part[0] + 1
		if span <= 0 {
			continue
		}
		start := rand.IntN(span)
		for i := range span {
			n := nodePort{protocol, part[0] + (start+i)%span}
			if !b.taken(n) && !b.uses(n.port) {
				b.mine[n] = true
				return n.port, nil
			}
		}
	}
	return 0, apierrors.NewInternalError(fmt.Errorf("failed to allocate a nodePort: range is full"))
}

func (b *portBook) uses(port int) bool {
	for n := range b.mine {
		if n.port == port {
			return true
		}
	}
	return false
}

// reservedPorts is the size of the part kept for those who ask for a certain port: a thirty-second, within bounds; nothing
// of a small range.
func reservedPorts(total int) int64 {
	if total < minReservedPorts {
		return 0
	}
	return min(max(int64(total)>>5, minReservedPorts), maxReservedPorts)
}
