package bootstrap

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/authz"
	"github.com/timonel/timonel/internal/object"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

//go:embed policy.txt
var policyText string

const (
	autoupdateRBAC = "rbac.authorization.kubernetes.io/autoupdate"
	bootstrapLabel = "kubernetes.io/bootstrapping"
)

// Policy returns the default RBAC roles and bindings: cluster roles, roles,
// cluster role bindings, role bindings, in that order.
func Policy() []object.Object {
	objects, err := parsePolicy(policyText)
	if err != nil {
		panic("bootstrap: policy.txt: " + err.Error()) // a test reads it
	}
	for _, obj := range objects {
		if role, ok := obj.(*rbacv1.ClusterRole); ok && role.Name == "system:node" {
			role.Rules = slices.Clone(authz.NodeRules)
		}
	}
	return objects
}

// storageVersionPolicy is for the controller that collects StorageVersions, which are not there by default.
func storageVersionPolicy() []object.Object {
	objects, err := parsePolicy(`ClusterRole system:controller:storage-version-garbage-collector
  coordination.k8s.io leases : get,list,watch
  internal.apiserver.k8s.io storageversions : delete,get,list,watch
  internal.apiserver.k8s.io storageversions/status : update
ClusterRoleBinding system:controller:storage-version-garbage-collector
  role ClusterRole/system:controller:storage-version-garbage-collector
  sa kube-system/storage-version-garbage-collector
`)
	if err != nil {
		panic("bootstrap: " + err.Error()) // a test reads it
	}
	return objects
}

// parsePolicy reads the notation that policy.txt describes.
func parsePolicy(text string) ([]object.Object, error) {
	var objects []object.Object
	number := 0
	for line := range strings.SplitSeq(text, "\n") {
		number++
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		var err error
		if detail, indented := strings.CutPrefix(line, "  "); !indented {
			var obj object.Object
			if obj, err = beginObject(line); err == nil {
				objects = append(objects, obj)
			}
		} else if len(objects) == 0 {
			err = fmt.Errorf("no object begun")
		} else {
			err = addDetail(objects[len(objects)-1], detail)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
	}
	return objects, nil
}

func beginObject(line string) (object.Object, error) {
	kind, name, ok := strings.Cut(line, " ")
	if !ok {
		return nil, fmt.Errorf("%q: want kind and name", line)
	}
	namespace, inNamespace, ok := strings.Cut(name, "/")
	if ok {
		name = inNamespace
	} else {
		namespace = ""
	}
	meta := metav1.ObjectMeta{Name: name, Namespace: namespace,
		Labels:      map[string]string{bootstrapLabel: "rbac-defaults"},
		Annotations: map[string]string{autoupdateRBAC: "true"}}
	switch kind {
	case "ClusterRole":
		return &rbacv1.ClusterRole{ObjectMeta: meta}, nil
	case "Role":
		return &rbacv1.Role{ObjectMeta: meta}, nil
	case "ClusterRoleBinding":
		return &rbacv1.ClusterRoleBinding{ObjectMeta: meta}, nil
	case "RoleBinding":
		return &rbacv1.RoleBinding{ObjectMeta: meta}, nil
	}
	return nil, fmt.Errorf("unknown kind %q", kind)
}

func addDetail(obj object.Object, line string) error {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "label":
		key, value, _ := strings.Cut(rest, "=")
		obj.GetLabels()[key] = value
		return nil
	case "aggregate":
		role, ok := obj.(*rbacv1.ClusterRole)
		if !ok {
			return fmt.Errorf("aggregate outside a ClusterRole")
		}
		key, value, _ := strings.Cut(rest, "=")
		if role.AggregationRule == nil {
			role.AggregationRule = &rbacv1.AggregationRule{}
		}
		role.AggregationRule.ClusterRoleSelectors = append(role.AggregationRule.ClusterRoleSelectors,
			metav1.LabelSelector{MatchLabels: map[string]string{key: value}})
		return nil
	}
	switch o := obj.(type) {
	case *rbacv1.ClusterRole:
		return addRule(&o.Rules, line)
	case *rbacv1.Role:
		return addRule(&o.Rules, line)
	case *rbacv1.ClusterRoleBinding:
		return addBinding(&o.RoleRef, &o.Subjects, word, rest)
	case *rbacv1.RoleBinding:
		return addBinding(&o.RoleRef, &o.Subjects, word, rest)
	}
	return nil
}

func addRule(rules *[]rbacv1.PolicyRule, line string) error {
	what, verbs, ok := strings.Cut(line, " : ")
	words := strings.Fields(what)
	if !ok || len(words) < 2 || len(words) > 3 {
		return fmt.Errorf("%q: want <groups> <resources> [<names>] : <verbs>", line)
	}
	rule := rbacv1.PolicyRule{Verbs: strings.Split(verbs, ",")}
	if words[0] == "urls" {
		rule.NonResourceURLs = strings.Split(words[1], ",")
	} else {
		rule.APIGroups = strings.Split(words[0], ",")
		for i, group := range rule.APIGroups {
			if group == "core" {
				rule.APIGroups[i] = ""
			}
		}
		rule.Resources = strings.Split(words[1], ",")
	}
	if len(words) == 3 {
		rule.ResourceNames = strings.Split(strings.Trim(words[2], "[]"), ",")
	}
	*rules = append(*rules, rule)
	return nil
}

func addBinding(ref *rbacv1.RoleRef, subjects *[]rbacv1.Subject, word, rest string) error {
	switch word {
	case "role":
		kind, name, _ := strings.Cut(rest, "/")
		*ref = rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
	case "group":
		*subjects = append(*subjects, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: rest})
	case "user":
		*subjects = append(*subjects, rbacv1.Subject{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: rest})
	case "sa":
		namespace, name, _ := strings.Cut(rest, "/")
		*subjects = append(*subjects, rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: name})
	default:
		return fmt.Errorf("unknown word %q", word)
	}
	return nil
}

// ClusterAdmins binds the group kubeadm:cluster-admins, which the API server's
// kubelet client certificate names, to cluster-admin; kubeadm makes the same binding. It is for
// control planes whose certificates are made by package pki.
func ClusterAdmins() object.Object {
	return &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "kubeadm:cluster-admins"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.GroupKind, Name: "kubeadm:cluster-admins"}},
	}
}
