package server

import (
	"context"

	"github.com/timonel/timonel/internal/election"
	coordinationv1 "k8s.io/api/coordination/v1"
	coordinationv1beta1 "k8s.io/api/coordination/v1beta1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// coordinateElections elects the holders of coordinated Leases until ctx is done.
func (s *Server) coordinateElections(ctx context.Context) {
	of := func(resource string) schema.GroupResource {
		return schema.GroupResource{Group: coordinationv1.GroupName, Resource: resource}
	}
	lease, candidate := s.Catalog.Catalog().Hub(of("leases")), s.Catalog.Catalog().Hub(of("leasecandidates"))
	if candidate == nil || candidate.Version != coordinationv1beta1.SchemeGroupVersion.Version {
		s.Log.Warn("leader elections are not coordinated: coordination.k8s.io/v1beta1 is not served (--runtime-config)")
		return
	}
	c := &election.Coordinator{
		Objects: s.Engine.Objects(), Leases: s.Engine.View(lease), Candidates: s.Engine.View(candidate), Candidate: candidate,
		Identity: *s.identity.Lease(s.started).Spec.HolderIdentity, Log: s.Log,
	}
	c.Run(ctx)
}
