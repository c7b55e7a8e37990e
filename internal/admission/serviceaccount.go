package admission

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/utils/ptr"
)

const (
	defaultServiceAccount = "default"
	// tokenMount is where a container finds its token (Kubernetes documentation, "Managing Service Accounts").
	tokenMount         = "/var/run/secrets/kubernetes.io/serviceaccount"
	tokenVolumePrefix  = "kube-api-access-"
	tokenSeconds       = 60*60 + 7 // the odd seconds let token requests of this kind be told from others
	rootCAConfigMap    = "kube-root-ca.crt"
	mountableSecrets   = "kubernetes.io/enforce-mountable-secrets"
	accountTries       = 20
	accountRetry       = 100 * time.Millisecond
	tokenSuffixLetters = 5
)

// serviceAccount gives a pod its identity: a service account that exists, with its pull secrets and
// a volume with a token. Mirror pods have none.
func (c *cluster) serviceAccount() Plugin {
	return Plugin{
		Name: "ServiceAccount",
		Change: func(ctx context.Context, r *Request) error {
			if r.Operation != Create {
				return nil
			}
			p := podOf(r)
			if p == nil {
				return nil
			}
			if isMirror(p) {
				return checkMirror(r, p)
			}
			if p.Spec.ServiceAccountName == "" {
				p.Spec.ServiceAccountName = defaultServiceAccount
			}
			p.Spec.DeprecatedServiceAccount = p.Spec.ServiceAccountName
			account, err := c.account(ctx, r, p)
			if err != nil {
				return err
			}
			if automount(account, p) {
				mountToken(&p.Spec)
			}
			if len(p.Spec.ImagePullSecrets) == 0 && len(account.ImagePullSecrets) > 0 {
				p.Spec.ImagePullSecrets = slices.Clone(account.ImagePullSecrets)
			}
			return nil
		},
		Check: func(ctx context.Context, r *Request) error {
			if r.Operation != Create && !(r.Operation == Update && r.Subresource == "ephemeralcontainers") {
				return nil
			}
			p := podOf(r, "ephemeralcontainers")
			if p == nil {
				return nil
			}
			if isMirror(p) {
				return checkMirror(r, p)
			}
			account, err := c.account(ctx, r, p)
			if err != nil {
				return err
			}
			if limited, _ := strconv.ParseBool(account.Annotations[mountableSecrets]); !limited {
				return nil
			}
			if problem := unmountable(account, p, r.Subresource != ""); problem != "" {
				return r.Forbidden("%s", problem)
			}
			return nil
		},
	}
}

// account returns the pod's service account. Controllers make the default one soon after its namespace, and others may
// be made together with their pods: a new pod waits up to two seconds. It is shared: do not change it.
func (c *cluster) account(ctx context.Context, r *Request, p *corev1.Pod) (*corev1.ServiceAccount, error) {
	name := p.Spec.ServiceAccountName
	if a := r.found.account; a != nil && a.Name == name {
		return a, nil
	}
	for try := 1; ; try++ {
		a, err := get[*corev1.ServiceAccount](ctx, c.shared(), serviceAccounts, r.Namespace, name)
		switch {
		case err == nil:
			r.found.account = a
			return a, nil
		case !apierrors.IsNotFound(err):
			return nil, r.Forbidden("error looking up service account %s/%s: %w", r.Namespace, name, err)
		case try == accountTries:
			absent := apierrors.NewNotFound(schema.GroupResource{Resource: "serviceaccount"}, name)
			return nil, r.Forbidden("error looking up service account %s/%s: %w", r.Namespace, name, absent)
		}
		if err := sleep(ctx, accountRetry); err != nil {
			return nil, err
		}
	}
}

// sleep waits, or says that the request ended first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return apierrors.NewTimeoutError("the request ended while admission waited", 1)
	}
}

// checkMirror keeps secrets from a pod that a node made from a file and only shows to the server.
func checkMirror(r *Request, p *corev1.Pod) error {
	if p.Spec.ServiceAccountName != "" {
		return r.Forbidden("a mirror pod may not reference service accounts")
	}
	uses := slices.ContainsFunc(p.Spec.Volumes, driverSecret)
	eachSecret(&p.Spec, func(secretUse) bool { uses = true; return false })
	if uses {
		return r.Forbidden("a mirror pod may not reference secrets")
	}
	for i := range p.Spec.Volumes {
		if projected := p.Spec.Volumes[i].Projected; projected != nil {
			for j := range projected.Sources {
				if projected.Sources[j].ServiceAccountToken != nil {
					return r.Forbidden("a mirror pod may not use ServiceAccountToken volume projections")
				}
			}
		}
	}
	return nil
}

// driverSecret reports whether a volume's driver gets a secret.
func driverSecret(v corev1.Volume) bool {
	switch {
	case v.AzureFile != nil:
		return true
	case v.CephFS != nil:
		return v.CephFS.SecretRef != nil
	case v.Cinder != nil:
		return v.Cinder.SecretRef != nil
	case v.CSI != nil:
		return v.CSI.NodePublishSecretRef != nil
	case v.FlexVolume != nil:
		return v.FlexVolume.SecretRef != nil
	case v.ISCSI != nil:
		return v.ISCSI.SecretRef != nil
	case v.RBD != nil:
		return v.RBD.SecretRef != nil
	case v.ScaleIO != nil:
		return v.ScaleIO.SecretRef != nil
	case v.StorageOS != nil:
		return v.StorageOS.SecretRef != nil
	}
	return false
}

func automount(a *corev1.ServiceAccount, p *corev1.Pod) bool {
	if p.Spec.AutomountServiceAccountToken != nil {
		return *p.Spec.AutomountServiceAccountToken
	}
	return ptr.Deref(a.AutomountServiceAccountToken, true)
}

// mountToken mounts the token's volume into every container that has nothing at its place.
func mountToken(s *corev1.PodSpec) {
	name, exists := "", false
	for i := range s.Volumes {
		if strings.HasPrefix(s.Volumes[i].Name, tokenVolumePrefix) {
			name, exists = s.Volumes[i].Name, true
			break
		}
	}
	if !exists {
		name = tokenVolumePrefix + rand.String(tokenSuffixLetters)
	}
	needed := false
	for _, containers := range [][]corev1.Container{s.InitContainers, s.Containers} {
		for i := range containers {
			at := &containers[i]
			if slices.ContainsFunc(at.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == tokenMount }) {
				continue
			}
			needed = true
			at.VolumeMounts = append(at.VolumeMounts, corev1.VolumeMount{Name: name, ReadOnly: true, MountPath: tokenMount})
		}
	}
	if needed && !exists {
		s.Volumes = append(s.Volumes, corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{Projected: tokenSources()}})
	}
}

// tokenSources is what the token's volume holds: token, the API's certificate authority, and namespace.
func tokenSources() *corev1.ProjectedVolumeSource {
	return &corev1.ProjectedVolumeSource{
		DefaultMode: ptr.To(corev1.ProjectedVolumeSourceDefaultMode),
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: corev1.ServiceAccountTokenKey, ExpirationSeconds: ptr.To[int64](tokenSeconds)}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: rootCAConfigMap},
				Items:                []corev1.KeyToPath{{Key: corev1.ServiceAccountRootCAKey, Path: corev1.ServiceAccountRootCAKey}},
			}},
			{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{
				Path: corev1.ServiceAccountNamespaceKey, FieldRef: &corev1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"},
			}}}},
		},
	}
}

// secretUse is one way in which a pod uses a secret.
type secretUse struct {
	secret string
	pull   bool   // as a pull secret
	new    bool   // by an ephemeral container
	text   string // up to the name of the secret, for messages
}

// eachSecret calls f with every use of a secret until f returns false.
func eachSecret(s *corev1.PodSpec, f func(secretUse) bool) {
	for i := range s.Volumes {
		v := &s.Volumes[i]
		if v.Secret != nil && !f(secretUse{secret: v.Secret.SecretName, text: "volume with secret.secretName"}) {
			return
		}
		if v.Projected == nil {
			continue
		}
		for j := range v.Projected.Sources {
			if secret := v.Projected.Sources[j].Secret; secret != nil && !f(secretUse{secret: secret.Name, text: "volume with secret.secretName"}) {
				return
			}
		}
	}
	container := func(what, name string, env []corev1.EnvVar, from []corev1.EnvFromSource, ephemeral bool) bool {
		for i := range env {
			if v := env[i].ValueFrom; v != nil && v.SecretKeyRef != nil {
				if !f(secretUse{secret: v.SecretKeyRef.Name, new: ephemeral, text: fmt.Sprintf("%s %s with envVar %s referencing secret.secretName", what, name, env[i].Name)}) {
					return false
				}
			}
		}
		for i := range from {
			if ref := from[i].SecretRef; ref != nil {
				if !f(secretUse{secret: ref.Name, new: ephemeral, text: fmt.Sprintf("%s %s with envFrom referencing secret.secretName", what, name)}) {
					return false
				}
			}
		}
		return true
	}
	for i := range s.InitContainers {
		if x := &s.InitContainers[i]; !container("init container", x.Name, x.Env, x.EnvFrom, false) {
			return
		}
	}
	for i := range s.Containers {
		if x := &s.Containers[i]; !container("container", x.Name, x.Env, x.EnvFrom, false) {
			return
		}
	}
	for i := range s.EphemeralContainers {
		if x := &s.EphemeralContainers[i]; !container("ephemeral container", x.Name, x.Env, x.EnvFrom, true) {
			return
		}
	}
	for i := range s.ImagePullSecrets {
		if !f(secretUse{secret: s.ImagePullSecrets[i].Name, pull: true, text: fmt.Sprintf("imagePullSecrets[%d].name", i)}) {
			return
		}
	}
}

// unmountable says which secret the pod uses although its account does not list it (annotation
// kubernetes.io/enforce-mountable-secrets); "" if none. With ephemeral, only ephemeral containers are looked at.
func unmountable(a *corev1.ServiceAccount, p *corev1.Pod, ephemeral bool) (problem string) {
	eachSecret(&p.Spec, func(use secretUse) bool {
		if ephemeral && !use.new {
			return true
		}
		what, listed := "secret", false
		if use.pull {
			what = "imagePullSecret"
			listed = slices.Contains(a.ImagePullSecrets, corev1.LocalObjectReference{Name: use.secret})
		} else {
			listed = slices.ContainsFunc(a.Secrets, func(s corev1.ObjectReference) bool { return s.Name == use.secret })
		}
		if !listed {
			problem = fmt.Sprintf("%s=%q is not allowed because service account %s does not reference that %s", use.text, use.secret, a.Name, what)
		}
		return listed
	})
	return problem
}
