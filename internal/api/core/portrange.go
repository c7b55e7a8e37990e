package core

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"

	"github.com/timonel/timonel/internal/kind"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// The node ports in use are the bits of one RangeAllocation, /registry/ranges/servicenodeports, as kube-apiserver keeps
// them: bit n of the number in its data (most significant byte first, no leading zeros) is the n-th port of the range. A Service is stored in one
// transaction with the allocation that its ports make, so that two servers cannot give a port away twice, and no port
// is lost when a server dies between two writes.

// portAllocation is the name of the allocation of node ports. It is that of its key; the object bears none.
const portAllocation = "servicenodeports"

var rangeResource = schema.GroupResource{Resource: "ranges"}

// RangeAllocation is a range of numbers and which of them are in use. It is private: no path serves it.
func RangeAllocation() *kind.Definition {
	return &kind.Definition{
		Version: "v1", Kind: "RangeAllocation", Plural: rangeResource.Resource, Scope: kind.Cluster, Private: true,
		New: kind.Of[corev1.RangeAllocation](),
	}
}

// String is how an allocation names its range: "30000-32767".
func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

// Size is how many ports there are.
func (r PortRange) Size() int { return r.Last - r.First + 1 }

// portSet is a set of ports of a range.
type portSet struct {
	limits PortRange
	bits   *big.Int
}

func newPortSet(limits PortRange) *portSet { return &portSet{limits, new(big.Int)} }

// portsIn reads an allocation; false if it is one of another range.
func portsIn(a *corev1.RangeAllocation, limits PortRange) (*portSet, bool) {
	if a.Range != limits.String() {
		return nil, false
	}
	s := &portSet{limits, new(big.Int).SetBytes(a.Data)}
	return s, s.bits.BitLen() <= limits.Size()
}

func (s *portSet) has(port int) bool {
	return s.limits.Contains(port) && s.bits.Bit(port-s.limits.First) == 1
}

// add and remove leave ports outside of the range alone.
func (s *portSet) add(port int)    { s.set(port, 1) }
func (s *portSet) remove(port int) { s.set(port, 0) }

func (s *portSet) set(port int, bit uint) {
	if s.limits.Contains(port) {
		s.bits.SetBit(s.bits, port-s.limits.First, bit)
	}
}

func (s *portSet) data() []byte { return s.bits.Bytes() }

// without are the ports of s that are not in t.
func (s *portSet) without(t *portSet) *portSet {
	return &portSet{s.limits, new(big.Int).AndNot(s.bits, t.bits)}
}

// list are the ports in ascending order.
func (s *portSet) list() []int {
	var ports []int
	for i := range s.bits.BitLen() {
		if s.bits.Bit(i) == 1 {
			ports = append(ports, s.limits.First+i)
		}
	}
	return ports
}

// draw takes a free port at random, from the upper part of the range while there is one (KEP-3668).
func (s *portSet) draw() (int, error) {
	lower := int(reservedPorts(s.limits.Size()))
	for _, part := range [][2]int{{s.limits.First + lower, s.limits.Last}, {s.limits.First, s.limits.First + lower - 1}} {
		span := part[1] - part[0] + 1
		if span <= 0 {
			continue
		}
		start := rand.IntN(span)
		for i := range span {
			if port := part[0] + (start+i)%span; !s.has(port) {
				s.add(port)
				return port, nil
			}
		}
	}
	return 0, errors.New("range is full")
}

// reservedPorts is the size of the part kept for those who ask for a certain port: a thirty-second, within bounds; nothing
// of a small range.
func reservedPorts(total int) int64 {
	if total < minReservedPorts {
		return 0
	}
	return min(max(int64(total)>>5, minReservedPorts), maxReservedPorts)
}

// portsOfServices are the ports that Services have, by the Services themselves.
func portsOfServices(ctx context.Context, r kind.Reader, limits PortRange) (*portSet, error) {
	list, err := r.List(ctx, serviceResource, "")
	if err != nil {
		return nil, fmt.Errorf("list the Services: %w", err)
	}
	s := newPortSet(limits)
	for _, obj := range list {
		for _, port := range portNumbers(obj.(*corev1.Service)) {
			s.add(port)
		}
	}
	return s, nil
}

// portNumbers are all node ports of a Service, that of its health check included.
func portNumbers(s *corev1.Service) []int {
	if s == nil {
		return nil
	}
	var all []int
	for _, p := range s.Spec.Ports {
		if p.NodePort != 0 {
			all = append(all, int(p.NodePort))
		}
	}
	if n := s.Spec.HealthCheckNodePort; n != 0 {
		all = append(all, int(n))
	}
	return all
}

// readPorts reads the allocation and its version. If there is none, or one of another range, it is made from the Services.
func readPorts(ctx context.Context, r kind.Reader, limits PortRange) (ports *portSet, stored *corev1.RangeAllocation, err error) {
	obj, err := r.Get(ctx, rangeResource, "", portAllocation)
	switch {
	case apierrors.IsNotFound(err):
		stored = &corev1.RangeAllocation{}
	case err != nil:
		return nil, nil, fmt.Errorf("read the allocation of node ports: %w", err)
	default:
		stored = obj.(*corev1.RangeAllocation)
		if ports, ok := portsIn(stored, limits); ok {
			return ports, stored, nil
		}
	}
	ports, err = portsOfServices(ctx, r, limits)
	return ports, stored, err
}
