package admission

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/timonel/timonel/internal/object"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	nodev1 "k8s.io/api/node/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

// as reads an object from YAML.
func as[T any](t *testing.T, text string) *T {
	t.Helper()
	obj := new(T)
	if err := yaml.UnmarshalStrict([]byte(strings.ReplaceAll(text, "\t", "  ")), obj); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return obj
}

// pod makes a pod "p" in "ns" from the YAML of its spec in flow form.
func pod(t *testing.T, spec string) *corev1.Pod {
	t.Helper()
	p := as[corev1.Pod](t, "spec: {"+spec+"}")
	p.Namespace, p.Name = "ns", "p"
	return p
}

// specOf is the YAML, in flow form, of what a pod's spec is.
func specOf(t *testing.T, p *corev1.Pod) string {
	t.Helper()
	text, err := yaml.Marshal(p.Spec)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// change is a plug-in's effect on a pod: what a new pod becomes, or why it is refused.
type change struct{ name, spec, want, refused string }

func checkChanges(t *testing.T, p Plugin, changes []change) {
	t.Helper()
	for _, test := range changes {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				obj := pod(t, test.spec)
				refused := admit(t, p, on(Create, "pods", obj, nil))
				same(t, "refusal", refused, test.refused)
				if test.refused == "" {
					same(t, "spec", specOf(t, obj), specOf(t, pod(t, test.want)))
				}
			})
		})
	}
}

const (
	tokenVolume = `{name: kube-api-access-x, projected: {defaultMode: 420, sources: [{serviceAccountToken: {expirationSeconds: 3607, path: token}}, {configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}}, {downwardAPI: {items: [{path: namespace, fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}]}}]}}`
	tokenAt     = `{name: kube-api-access-x, readOnly: true, mountPath: /var/run/secrets/kubernetes.io/serviceaccount}`
)

func TestServiceAccount(t *testing.T) {
	account := func(name, more string) *corev1.ServiceAccount {
		return as[corev1.ServiceAccount](t, "{metadata: {namespace: ns, name: "+name+"}, "+more+"}")
	}
	s := newStore(map[schema.GroupResource][]object.Object{serviceAccounts: {
		account("default", ""),
		account("quiet", "automountServiceAccountToken: false, imagePullSecrets: [{name: pull}]"),
		as[corev1.ServiceAccount](t, `{metadata: {namespace: ns, name: strict, annotations: {kubernetes.io/enforce-mountable-secrets: "true"}}, automountServiceAccountToken: false, secrets: [{name: mine}], imagePullSecrets: [{name: pull}]}`),
	}})
	p := (&cluster{Reader: s}).serviceAccount()
	plain := p.Change
	suffix := regexp.MustCompile(`^kube-api-access-[a-z0-9]{5}$`)
	// The generated name of the volume is written as kube-api-access-x.
	fixed := Plugin{Name: p.Name, Check: p.Check}
	fixed.Change = func(ctx context.Context, r *Request) error {
		err := plain(ctx, r)
		spec := &r.Object.(*corev1.Pod).Spec
		for i := range spec.Volumes {
			if v := &spec.Volumes[i]; suffix.MatchString(v.Name) {
				for _, all := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
					for j := range all {
						for k := range all[j].VolumeMounts {
							if m := &all[j].VolumeMounts[k]; m.Name == v.Name {
								m.Name = "kube-api-access-x"
							}
						}
					}
				}
				v.Name = "kube-api-access-x"
			}
		}
		return err
	}
	checkChanges(t, fixed, []change{
		{name: "default", spec: "containers: [{name: c}], initContainers: [{name: i}]",
			want: "serviceAccountName: default, serviceAccount: default, containers: [{name: c, volumeMounts: [" + tokenAt + "]}], initContainers: [{name: i, volumeMounts: [" + tokenAt + "]}], volumes: [" + tokenVolume + "]"},
		{name: "quiet", spec: "serviceAccountName: quiet, containers: [{name: c}]",
			want: "serviceAccountName: quiet, serviceAccount: quiet, imagePullSecrets: [{name: pull}], containers: [{name: c}]"},
		{name: "quiet but asked", spec: "serviceAccountName: quiet, automountServiceAccountToken: true, imagePullSecrets: [{name: own}], containers: [{name: c}]",
			want: "serviceAccountName: quiet, serviceAccount: quiet, automountServiceAccountToken: true, imagePullSecrets: [{name: own}], containers: [{name: c, volumeMounts: [" + tokenAt + "]}], volumes: [" + tokenVolume + "]"},
		{name: "own mount", spec: "containers: [{name: c, volumeMounts: [{name: v, mountPath: /var/run/secrets/kubernetes.io/serviceaccount}]}], volumes: [{name: v, emptyDir: {}}]",
			want: "serviceAccountName: default, serviceAccount: default, containers: [{name: c, volumeMounts: [{name: v, mountPath: /var/run/secrets/kubernetes.io/serviceaccount}]}], volumes: [{name: v, emptyDir: {}}]"},
		{name: "absent", spec: "serviceAccountName: absent, containers: [{name: c}]",
			refused: `pods "p" is forbidden: error looking up service account ns/absent: serviceaccount "absent" not found`},
		{name: "strict, listed", spec: "serviceAccountName: strict, containers: [{name: c}], volumes: [{name: v, secret: {secretName: mine}}]",
			want: "serviceAccountName: strict, serviceAccount: strict, imagePullSecrets: [{name: pull}], containers: [{name: c}], volumes: [{name: v, secret: {secretName: mine}}]"},
		{name: "strict, volume", spec: "serviceAccountName: strict, containers: [{name: c}], volumes: [{name: v, secret: {secretName: other}}]",
			refused: `pods "p" is forbidden: volume with secret.secretName="other" is not allowed because service account strict does not reference that secret`},
		{name: "strict, variable", spec: "serviceAccountName: strict, containers: [{name: c, env: [{name: A, valueFrom: {secretKeyRef: {name: other, key: k}}}]}]",
			refused: `pods "p" is forbidden: container c with envVar A referencing secret.secretName="other" is not allowed because service account strict does not reference that secret`},
		{name: "strict, variables", spec: "serviceAccountName: strict, containers: [{name: c}], initContainers: [{name: i, envFrom: [{secretRef: {name: other}}]}]",
			refused: `pods "p" is forbidden: init container i with envFrom referencing secret.secretName="other" is not allowed because service account strict does not reference that secret`},
		{name: "strict, pull", spec: "serviceAccountName: strict, imagePullSecrets: [{name: other}], containers: [{name: c}]",
			refused: `pods "p" is forbidden: imagePullSecrets[0].name="other" is not allowed because service account strict does not reference that imagePullSecret`},
	})
}

func TestMirrorPods(t *testing.T) {
	p := (&cluster{Reader: newStore(nil)}).serviceAccount()
	for spec, want := range map[string]string{
		"containers: [{name: c}]":       "",
		"serviceAccountName: a":         `pods "p" is forbidden: a mirror pod may not reference service accounts`,
		"imagePullSecrets: [{name: s}]": `pods "p" is forbidden: a mirror pod may not reference secrets`,
		"volumes: [{name: v, rbd: {monitors: [m], image: i, secretRef: {name: s}}}]":                    `pods "p" is forbidden: a mirror pod may not reference secrets`,
		"volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t}}]}}]":                `pods "p" is forbidden: a mirror pod may not use ServiceAccountToken volume projections`,
		"volumes: [{name: v, projected: {sources: [{configMap: {name: m}}]}}], containers: [{name: c}]": "",
	} {
		obj := pod(t, spec)
		obj.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "x"}
		same(t, spec, admit(t, p, on(Create, "pods", obj, nil)), want)
	}
}

// TestServiceAccountComesLater is that a pod waits for an account that is made at the same time.
func TestServiceAccountComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStore(nil)
		tries := 0
		s.missing = func(k string) {
			if tries++; tries == 3 {
				s.objects[k] = as[corev1.ServiceAccount](t, "{metadata: {namespace: ns, name: default}}")
			}
		}
		began := time.Now()
		same(t, "refusal", admit(t, (&cluster{Reader: s}).serviceAccount(), on(Create, "pods", pod(t, ""), nil)), "")
		same(t, "waited", time.Since(began), 3*accountRetry)
		same(t, "reads", s.reads, 4) // none for the second phase

		s.missing = nil
		began = time.Now()
		same(t, "never comes", admit(t, (&cluster{Reader: newStore(nil)}).serviceAccount(), on(Create, "pods", pod(t, ""), nil)),
			`pods "p" is forbidden: error looking up service account ns/default: serviceaccount "default" not found`)
		same(t, "waited in vain", time.Since(began), (accountTries-1)*accountRetry)
	})
}

func TestTolerations(t *testing.T) {
	const notReady, unreachable = "{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 300}", "{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 300}"
	checkChanges(t, (&cluster{}).defaultTolerationSeconds(), []change{
		{name: "none", want: "tolerations: [" + notReady + ", " + unreachable + "]"},
		{name: "all", spec: "tolerations: [{operator: Exists}]", want: "tolerations: [{operator: Exists}]"},
		{name: "one", spec: "tolerations: [{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 9}]",
			want: "tolerations: [{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 9}, " + unreachable + "]"},
		{name: "other effect", spec: "tolerations: [{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoSchedule}]",
			want: "tolerations: [{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoSchedule}, " + notReady + ", " + unreachable + "]"},
	})
	checkChanges(t, extendedResourceToleration(), []change{
		{name: "native", spec: "containers: [{name: c, resources: {requests: {cpu: 1, hugepages-2Mi: 2Mi, kubernetes.io/x: 1}}}]", want: "containers: [{name: c, resources: {requests: {cpu: 1, hugepages-2Mi: 2Mi, kubernetes.io/x: 1}}}]"},
		{name: "extended", spec: "containers: [{name: c, resources: {requests: {b.com/x: 1, a.com/x: 1}}}]",
			want: "containers: [{name: c, resources: {requests: {b.com/x: 1, a.com/x: 1}}}], tolerations: [{key: a.com/x, operator: Exists, effect: NoSchedule}, {key: b.com/x, operator: Exists, effect: NoSchedule}]"},
	})
	n := &corev1.Node{}
	for range 2 {
		same(t, "node", admit(t, taintNodesByCondition(), on(Create, "nodes", n, nil)), "")
		same(t, "taints", n.Spec.Taints, []corev1.Taint{{Key: "node.kubernetes.io/not-ready", Effect: "NoSchedule"}})
	}
}

func TestMergeTolerations(t *testing.T) {
	for _, test := range []struct{ a, b, want string }{
		{"{key: a, operator: Exists}", "{key: b, operator: Exists}", "{key: a, operator: Exists}, {key: b, operator: Exists}"},
		{"{key: a, operator: Exists}", "{key: a, operator: Exists}", "{key: a, operator: Exists}"},
		{"{key: a, value: x, effect: NoSchedule}", "{key: a, operator: Exists}", "{key: a, operator: Exists}"},
		{"{operator: Exists}", "{key: a, operator: Exists, effect: NoExecute}", "{operator: Exists}"},
		{"{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 5}", "{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 9}", "{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 9}"},
		{"{key: a, value: x}", "{key: a, value: y}", "{key: a, value: x}, {key: a, value: y}"},
	} {
		of := func(s string) []corev1.Toleration { return pod(t, "tolerations: ["+s+"]").Spec.Tolerations }
		same(t, test.a+" + "+test.b, mergeTolerations(of(test.a), of(test.b)), of(test.want))
	}
}

func TestPriority(t *testing.T) {
	class := func(text string) *schedulingv1.PriorityClass { return as[schedulingv1.PriorityClass](t, text) }
	s := newStore(map[schema.GroupResource][]object.Object{priorityClasses: {class("{metadata: {name: high}, value: 7, preemptionPolicy: Never}")}})
	p := (&cluster{Reader: s}).priority()
	checkChanges(t, p, []change{
		{name: "none", want: "priority: 0, preemptionPolicy: PreemptLowerPriority"},
		{name: "high", spec: "priorityClassName: high", want: "priorityClassName: high, priority: 7, preemptionPolicy: Never"},
		{name: "same number", spec: "priorityClassName: high, priority: 7", want: "priorityClassName: high, priority: 7, preemptionPolicy: Never"},
		{name: "other number", spec: "priorityClassName: high, priority: 9", refused: `pods "p" is forbidden: the integer value of priority (9) must not be provided in pod spec; priority admission controller computed 7 from the given PriorityClass name`},
		{name: "other policy", spec: "priorityClassName: high, preemptionPolicy: PreemptLowerPriority", refused: `pods "p" is forbidden: the string value of PreemptionPolicy (PreemptLowerPriority) must not be provided in pod spec; priority admission controller computed Never from the given PriorityClass name`},
		{name: "absent", spec: "priorityClassName: nope", refused: `pods "p" is forbidden: no PriorityClass with name nope was found`},
	})
	global := class("{metadata: {name: g}, value: 3, globalDefault: true, preemptionPolicy: PreemptLowerPriority}")
	same(t, "first default", admit(t, p, on(Create, "scheduling.k8s.io:priorityclasses", global, nil)), "")
	s.objects[key(priorityClasses, "", "g")] = global
	checkChanges(t, p, []change{{name: "default", want: "priorityClassName: g, priority: 3, preemptionPolicy: PreemptLowerPriority"}})
	same(t, "update of it", admit(t, p, on(Update, "scheduling.k8s.io:priorityclasses", global, global)), "")
	second := class("{metadata: {name: h}, value: 3, globalDefault: true}")
	same(t, "second default", admit(t, p, on(Create, "scheduling.k8s.io:priorityclasses", second, nil)), `priorityclasses.scheduling.k8s.io "h" is forbidden: PriorityClass g is already marked as default. Only one default can exist`)
	same(t, "delete", admit(t, p, on(Delete, "scheduling.k8s.io:priorityclasses", nil, global)), "")
	same(t, "delete a system's", admit(t, p, on(Delete, "scheduling.k8s.io:priorityclasses", nil, class("{metadata: {name: system-node-critical}}"))), `priorityclasses.scheduling.k8s.io "system-node-critical" is forbidden: this is a system priority class and cannot be deleted`)
	now, old := pod(t, ""), pod(t, "priority: 5, preemptionPolicy: Never")
	same(t, "update", admit(t, p, on(Update, "pods", now, old)), "")
	same(t, "kept", specOf(t, now), specOf(t, old))
}

func TestRuntimeClass(t *testing.T) {
	s := newStore(map[schema.GroupResource][]object.Object{runtimeClasses: {
		as[nodev1.RuntimeClass](t, "{metadata: {name: r}, handler: h, overhead: {podFixed: {cpu: 100m}}, scheduling: {nodeSelector: {rc: one}, tolerations: [{key: rc, operator: Exists}]}}"),
		as[nodev1.RuntimeClass](t, "{metadata: {name: bare}, handler: h}"),
	}})
	checkChanges(t, (&cluster{Reader: s}).runtimeClass(), []change{
		{name: "none"},
		{name: "bare", spec: "runtimeClassName: bare", want: "runtimeClassName: bare"},
		{name: "all", spec: "runtimeClassName: r", want: "runtimeClassName: r, overhead: {cpu: 100m}, nodeSelector: {rc: one}, tolerations: [{key: rc, operator: Exists}]"},
		{name: "same overhead", spec: "runtimeClassName: r, overhead: {cpu: 0.1}", want: "runtimeClassName: r, overhead: {cpu: 100m}, nodeSelector: {rc: one}, tolerations: [{key: rc, operator: Exists}]"},
		{name: "selector", spec: "runtimeClassName: r, nodeSelector: {rc: two}", refused: `pods "p" is forbidden: conflict: runtimeClass.scheduling.nodeSelector[rc] = one; pod.spec.nodeSelector[rc] = two`},
		{name: "overhead", spec: "runtimeClassName: r, overhead: {cpu: 1}", refused: `pods "p" is forbidden: pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead`},
		{name: "absent", spec: "runtimeClassName: zz", refused: `pods "p" is forbidden: pod rejected: RuntimeClass "zz" not found`},
		{name: "overhead without a class", spec: "overhead: {cpu: 1}", refused: `pods "p" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead`},
		{name: "overhead with a bare class", spec: "runtimeClassName: bare, overhead: {cpu: 1}", refused: `pods "p" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead`},
	})
}

func TestDefaultClasses(t *testing.T) {
	storageClass := func(name, made, more string) *storagev1.StorageClass {
		return as[storagev1.StorageClass](t, "{metadata: {name: "+name+", creationTimestamp: '"+made+"', annotations: {"+more+"}}, provisioner: p}")
	}
	const is = `storageclass.kubernetes.io/is-default-class: "true"`
	s := newStore(map[schema.GroupResource][]object.Object{
		storageClasses: {
			storageClass("other", "2026-01-09T00:00:00Z", ""), storageClass("old", "2026-01-01T00:00:00Z", is),
			storageClass("new-b", "2026-01-02T00:00:00Z", is), storageClass("new-a", "2026-01-02T00:00:00Z", `storageclass.beta.kubernetes.io/is-default-class: "true"`),
		},
		ingressClasses: {as[networkingv1.IngressClass](t, `{metadata: {name: i, annotations: {ingressclass.kubernetes.io/is-default-class: "true"}}}`)},
	})
	c := &cluster{Reader: s}
	claim := func(text string) string {
		obj := as[corev1.PersistentVolumeClaim](t, text)
		same(t, text, admit(t, c.defaultStorageClass(), on(Create, "persistentvolumeclaims", obj, nil)), "")
		if obj.Spec.StorageClassName == nil {
			return "nil"
		}
		return *obj.Spec.StorageClassName
	}
	same(t, "newest, then by name", claim("{}"), "new-a")
	same(t, "explicitly none", claim(`{spec: {storageClassName: ""}}`), "")
	same(t, "old annotation", claim(`{metadata: {annotations: {volume.beta.kubernetes.io/storage-class: x}}}`), "nil")
	ingress := func(text string) string {
		obj := as[networkingv1.Ingress](t, text)
		same(t, text, admit(t, c.defaultIngressClass(), on(Create, "networking.k8s.io:ingresses", obj, nil)), "")
		if obj.Spec.IngressClassName == nil {
			return "nil"
		}
		return *obj.Spec.IngressClassName
	}
	same(t, "ingress", ingress("{}"), "i")
	same(t, "ingress with annotation", ingress("{metadata: {annotations: {kubernetes.io/ingress.class: x}}}"), "nil")
}

func TestStorage(t *testing.T) {
	for resource, want := range map[string][]string{
		"persistentvolumeclaims": {"kubernetes.io/pvc-protection"}, "persistentvolumes": {"kubernetes.io/pv-protection"},
		"storage.k8s.io:volumeattributesclasses": {"kubernetes.io/vac-protection"}, "secrets": nil,
	} {
		obj := &corev1.PersistentVolumeClaim{}
		for range 2 {
			same(t, resource, admit(t, storageObjectInUseProtection(), on(Create, resource, obj, nil)), "")
		}
		same(t, resource, obj.Finalizers, want)
	}
	s := newStore(map[schema.GroupResource][]object.Object{storageClasses: {
		as[storagev1.StorageClass](t, "{metadata: {name: grows}, allowVolumeExpansion: true}"), as[storagev1.StorageClass](t, "{metadata: {name: fixed}}"),
	}})
	claim := func(class, size string) *corev1.PersistentVolumeClaim {
		return as[corev1.PersistentVolumeClaim](t, "{metadata: {name: c}, spec: {storageClassName: "+class+", resources: {requests: {storage: "+size+"}}}}")
	}
	const refused = `persistentvolumeclaims "c" is forbidden: only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize`
	for class, want := range map[string]string{"grows": "", "fixed": refused, "absent": refused, `""`: refused} {
		same(t, class, admit(t, (&cluster{Reader: s}).persistentVolumeClaimResize(), on(Update, "persistentvolumeclaims", claim(class, "2Gi"), claim(class, "1Gi"))), want)
		same(t, class+" kept", admit(t, (&cluster{Reader: s}).persistentVolumeClaimResize(), on(Update, "persistentvolumeclaims", claim(class, "1Gi"), claim(class, "1024Mi"))), "")
	}
}
