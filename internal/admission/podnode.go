package admission

import (
	"context"
	"fmt"
	"strings"

	"github.com/timonel/timonel/internal/api/podspec"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/version"
	declared "k8s.io/component-helpers/nodedeclaredfeatures"
)

// topologyLabels are the labels of a node that its pods get too (KEP-4742).
var topologyLabels = [...]string{corev1.LabelTopologyZone, corev1.LabelTopologyRegion}

// podTopologyLabels tells a pod, in labels, in which zone and region it runs: when it is bound, or when it is
// made for a node.
func (c *cluster) podTopologyLabels() Plugin {
	return Plugin{Name: "PodTopologyLabels", Change: func(ctx context.Context, r *Request) error {
		if r.Operation != Create || r.Definition.Group != "" || r.Definition.Plural != "pods" {
			return nil
		}
		switch obj := r.Object.(type) {
		case *corev1.Binding:
			if r.Subresource == "binding" && (obj.Target.Kind == "Node" || obj.Target.Kind == "") {
				return c.labelFrom(ctx, obj.Target.Name, &obj.ObjectMeta)
			}
		case *corev1.Pod:
			if r.Subresource == "" {
				return c.labelFrom(ctx, obj.Spec.NodeName, &obj.ObjectMeta)
			}
		}
		return nil
	}}
}

// labelFrom adds the topology labels of a node that are not there yet.
func (c *cluster) labelFrom(ctx context.Context, node string, to *metav1.ObjectMeta) error {
	if node == "" {
		return nil
	}
	n, err := get[*corev1.Node](ctx, c.Reader, nodes, "", node)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, key := range topologyLabels {
		value, known := n.Labels[key]
		if _, given := to.Labels[key]; known && !given {
			metav1.SetMetaDataLabel(to, key, value)
		}
	}
	return nil
}

// featureVersion is the version of Kubernetes whose pods' needs are known.
var featureVersion = version.MustParseSemantic("1.37.0")

// nodeDeclaredFeatureValidator refuses an update of a running pod that needs a feature which its node does
// not have (KEP-5328).
func (c *cluster) nodeDeclaredFeatureValidator() Plugin {
	return Plugin{Name: "NodeDeclaredFeatureValidator", Check: func(ctx context.Context, r *Request) error {
		if r.Operation != Update {
			return nil
		}
		p := podOf(r, "resize", "ephemeralcontainers")
		old, ok := r.Old.(*corev1.Pod)
		if p == nil || !ok || p.Spec.NodeName == "" {
			return nil
		}
		needs, err := declared.DefaultFramework.InferForPodUpdate(&declared.PodInfo{Spec: &old.Spec, Status: &old.Status}, &declared.PodInfo{Spec: &p.Spec, Status: &p.Status}, featureVersion)
		if err != nil {
			return fmt.Errorf("find out which features pod %q needs: %w", p.Name, err)
		}
		if needs.IsEmpty() {
			return nil
		}
		n, err := get[*corev1.Node](ctx, c.Reader, nodes, "", p.Spec.NodeName)
		if apierrors.IsNotFound(err) {
			return r.Forbidden("node %q not found", p.Spec.NodeName)
		}
		if err != nil {
			return err
		}
		match, err := declared.DefaultFramework.MatchNode(needs, n)
		if err != nil {
			return fmt.Errorf("compare what pod %q needs with node %q: %w", p.Name, n.Name, err)
		}
		if !match.IsMatch {
			return r.Forbidden("pod update requires features %s which are not available on node %q", strings.Join(match.UnsatisfiedRequirements, ", "), n.Name)
		}
		return nil
	}}
}

// podResizeValidator refuses at once a resize that the pod's node could never do: more than it has to give,
// or on a system that cannot resize.
func (c *cluster) podResizeValidator() Plugin {
	return Plugin{Name: "PodResizeValidator", Check: func(ctx context.Context, r *Request) error {
		if r.Operation != Update || r.Subresource != "resize" {
			return nil
		}
		p := podOf(r, "resize")
		if p == nil || p.Spec.NodeName == "" {
			return nil
		}
		n, err := get[*corev1.Node](ctx, c.Reader, nodes, "", p.Spec.NodeName)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if os := n.Labels[corev1.LabelOSStable]; os != "" && os != string(corev1.Linux) {
			return r.Forbidden("pod resize is not supported on nodes with operating system %q", os)
		}
		old, _ := r.Old.(*corev1.Pod)
		asked := wholeRequests(&p.Spec)
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			has, known := n.Status.Allocatable[name]
			want := asked[name]
			if !known || want.Cmp(has) <= 0 {
				continue
			}
			if old != nil {
				if had := wholeRequests(&old.Spec)[name]; want.Cmp(had) <= 0 {
					continue // it is not this resize that asks for too much
				}
			}
			return r.Forbidden("node %q does not have enough allocatable %s: requested %s, allocatable %s", n.Name, name, want.String(), has.String())
		}
		return nil
	}}
}

// wholeRequests is what a pod requests together, its own requests as a whole before those of its containers.
func wholeRequests(s *corev1.PodSpec) corev1.ResourceList {
	total := podspec.Requests(s)
	if s.Resources != nil {
		for name, q := range s.Resources.Requests {
			total[name] = q
		}
	}
	for name, q := range s.Overhead {
		sum := total[name]
		sum.Add(q)
		total[name] = sum
	}
	return total
}

const (
	nodeSelectorAnnotation = "scheduler.alpha.kubernetes.io/node-selector"
	clusterDefaultSelector = "clusterDefaultNodeSelector"
)

// podNodeSelector keeps the pods of a namespace on the nodes that the namespace's annotation, or the cluster's
// default, selects.
func (c *cluster) podNodeSelector() Plugin {
	return Plugin{
		Name: "PodNodeSelector",
		Change: func(ctx context.Context, r *Request) error {
			p := podOf(r)
			if p == nil || r.Operation != Create {
				return nil
			}
			wanted, err := c.namespaceSelector(ctx, r)
			if err != nil {
				return err
			}
			if labels.Conflicts(wanted, p.Spec.NodeSelector) {
				return r.Forbidden("pod node label selector conflicts with its namespace node label selector")
			}
			if len(wanted) > 0 || len(p.Spec.NodeSelector) > 0 {
				p.Spec.NodeSelector = labels.Merge(wanted, p.Spec.NodeSelector)
			}
			return nil
		},
		Check: func(ctx context.Context, r *Request) error {
			p := podOf(r)
			if p == nil || r.Operation != Create {
				return nil
			}
			wanted, err := c.namespaceSelector(ctx, r)
			if err != nil {
				return err
			}
			if labels.Conflicts(wanted, p.Spec.NodeSelector) {
				return r.Forbidden("pod node label selector conflicts with its namespace node label selector")
			}
			allowed, err := labels.ConvertSelectorToLabelsMap(c.NodeSelectors[r.Namespace])
			if err != nil {
				return err
			}
			if len(allowed) > 0 {
				for key, value := range p.Spec.NodeSelector {
					if have, ok := allowed[key]; !ok || have != value {
						return r.Forbidden("pod node label selector labels conflict with its namespace whitelist")
					}
				}
			}
			return nil
		},
	}
}

func (c *cluster) namespaceSelector(ctx context.Context, r *Request) (labels.Set, error) {
	n, err := c.namespace(ctx, r)
	if err != nil {
		return nil, err
	}
	if text, ok := n.Annotations[nodeSelectorAnnotation]; ok {
		return labels.ConvertSelectorToLabelsMap(text)
	}
	return labels.ConvertSelectorToLabelsMap(c.NodeSelectors[clusterDefaultSelector])
}
