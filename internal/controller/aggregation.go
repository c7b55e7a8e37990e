package controller

import (
	"context"

	"github.com/timonel/timonel/internal/authz"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// addAggregation fills the rules of cluster roles that are made of others (docs:
// "Aggregated ClusterRoles"): admin, edit, view and those of users.
func (c *Controllers) addAggregation() {
	roles := c.informers.Rbac().V1().ClusterRoles()
	p := c.add("cluster role aggregation", "clusterrole-aggregation-controller")
	follow(p, roles.Informer(), func(*rbacv1.ClusterRole) {
		all, err := roles.Lister().List(labels.Everything())
		if err != nil {
			return // a lister of an informer does not fail
		}
		for _, role := range all {
			if role.AggregationRule != nil {
				p.queue.Add(role.Name)
			}
		}
	})
	p.work(1, func(ctx context.Context, name string) error {
		role, err := roles.Lister().Get(name)
		if err != nil || role.AggregationRule == nil {
			return nil //nolint:nilerr // gone
		}
		all, err := roles.Lister().List(labels.Everything())
		if err != nil {
			return err
		}
		rules, err := authz.Aggregate(role, all)
		if err != nil || equality.Semantic.DeepEqual(rules, role.Rules) {
			return err
		}
		role = role.DeepCopy()
		role.Rules = rules
		_, err = p.client.RbacV1().ClusterRoles().Update(ctx, role, metav1.UpdateOptions{})
		return gone(err)
	})
}
