package admission

import (
	"context"

	"github.com/timonel/timonel/internal/authz"
	rbacv1 "k8s.io/api/rbac/v1"
)

// Grants keeps users from granting by RBAC more than they may do themselves. It is no plug-in that can be
// switched off: the server runs it, last of all checks, when RBAC authorizes.
func Grants(rbac *authz.RBAC, authorizer authz.Authorizer) Plugin {
	return Plugin{Name: "RBACGrants", Check: func(ctx context.Context, r *Request) error {
		if r.Definition.Group != rbacv1.GroupName || r.Subresource != "" || r.Operation != Create && r.Operation != Update {
			return nil
		}
		return rbac.CheckEscalation(ctx, authorizer, r.User, r.Object, r.Old)
	}}
}
