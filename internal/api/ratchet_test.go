package api

import (
	"context"
	"strings"
	"testing"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/user"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"sigs.k8s.io/yaml"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestStoredMayStay: a rule that came after objects were stored, or that clients cannot help breaking, is not held against an update
// that leaves what it is about alone; a new object is refused.
func TestStoredMayStay(t *testing.T) {
	ctx := user.With(context.Background(), &user.Info{Name: "admin"})
	catalog := kind.NewCatalog(Groups(testOptions())...)
	errorsOf := func(d *kind.Definition, obj, old object.Object) field.ErrorList {
		if old == nil {
			if d.PrepareCreate != nil {
				d.PrepareCreate(ctx, obj)
			}
			return d.Validate(ctx, obj)
		}
		if d.PrepareUpdate != nil {
			d.PrepareUpdate(ctx, obj, object.Copy(old))
		}
		if d.ValidateUpdate == nil {
			return d.Validate(ctx, obj)
		}
		return d.ValidateUpdate(ctx, obj, old)
	}
	const label = "a-value-that-is-longer-than-the-sixty-three-characters-that-are-allowed"
	pods := func(spec string) string { return `{containers: [{name: c, image: i}], ` + spec + `}` }
	for _, c := range []struct{ what, field, object string }{
		{"a huge page that does not divide", "spec.containers[0].resources.requests[hugepages-2Mi]",
			`{apiVersion: v1, kind: Pod, spec: {containers: [{name: c, image: i, resources: {limits: {cpu: 1, hugepages-2Mi: 3Mi}}}]}}`},
		{"a sysctl of the network, on the host's", "spec.securityContext.sysctls[0].name",
			`{apiVersion: v1, kind: Pod, spec: ` + pods(`hostNetwork: true, securityContext: {sysctls: [{name: net.core.somaxconn, value: "1"}]}`) + `}`},
		{"an address with leading zeros", "spec.hostAliases[0].ip", `{apiVersion: v1, kind: Pod, spec: ` + pods(`hostAliases: [{ip: 010.0.0.1, hostnames: [h]}]`) + `}`},
		{"the cost of deletion", "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]",
			`{apiVersion: v1, kind: Pod, metadata: {annotations: {controller.kubernetes.io/pod-deletion-cost: "+5"}}, spec: ` + pods("") + `}`},
		{"a value in node affinity", "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].values[0]",
			`{apiVersion: v1, kind: Pod, spec: ` + pods(`affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: k, operator: In, values: [`+label+`]}]}]}}}`) + `}`},
		{"a selector of pod affinity", "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector.matchExpressions[0].values[0]",
			`{apiVersion: v1, kind: Pod, spec: ` + pods(`affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: k, labelSelector: {matchExpressions: [{key: k, operator: In, values: [`+label+`]}]}}]}}`) + `}`},
		{"a selector of topology spread", "spec.topologySpreadConstraints[0].labelSelector.matchLabels",
			`{apiVersion: v1, kind: Pod, spec: ` + pods(`topologySpreadConstraints: [{maxSkew: 1, topologyKey: k, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {k: `+label+`}}}]`) + `}`},
		{"the path of a token", "spec.volumes[0].projected.sources[0].serviceAccountToken.path",
			`{apiVersion: v1, kind: Pod, spec: ` + pods(`serviceAccountName: s, volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: ../t}}]}}]`) + `}`},
		{"a huge page in a template", "spec.template.spec.containers[0].resources.limits[hugepages-2Mi]",
			`{apiVersion: apps/v1, kind: Deployment, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i, resources: {limits: {cpu: 1, hugepages-2Mi: 3Mi}}}]}}}}`},
		{"a selector", "spec.selector.matchExpressions[0].values[0]",
			`{apiVersion: policy/v1, kind: PodDisruptionBudget, spec: {minAvailable: 1, selector: {matchExpressions: [{key: a, operator: NotIn, values: [` + label + `]}]}}}`},
		{"a selector of a policy", "spec.podSelector.matchExpressions[0].values[0]",
			`{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, spec: {podSelector: {matchExpressions: [{key: a, operator: NotIn, values: [` + label + `]}]}}}`},
		{"a block of a policy", "spec.ingress[0].from[0].ipBlock.cidr",
			`{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 010.0.0.0/8}}]}]}}`},
		{"a time zone in a schedule", "spec.schedule",
			`{apiVersion: batch/v1, kind: CronJob, spec: {schedule: "TZ=UTC 0 0 * * *", jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}}}`},
		{"a target without a group", "spec.scaleTargetRef.apiVersion",
			`{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, spec: {maxReplicas: 2, scaleTargetRef: {apiVersion: "", kind: Deployment, name: d}}}`},
		{"a wildcard of a rule's host", "spec.rules[0].host",
			`{apiVersion: networking.k8s.io/v1, kind: Ingress, spec: {rules: [{host: "*.a*", http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: s, port: {number: 1}}}}]}}]}}`},
		{"the name of a secret", "spec.tls[0].secretName",
			`{apiVersion: networking.k8s.io/v1, kind: Ingress, spec: {tls: [{secretName: A_B}], defaultBackend: {service: {name: s, port: {number: 1}}}}}`},
		{"an address of a slice", "endpoints[0].addresses[0]",
			`{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, endpoints: [{addresses: [010.0.0.1]}]}`},
		{"an address of endpoints", "subsets[0].addresses[0].ip",
			`{apiVersion: v1, kind: Endpoints, subsets: [{addresses: [{ip: 010.0.0.1}], ports: [{port: 1}]}]}`},
		{"an external address", "spec.externalIPs[0]",
			`{apiVersion: v1, kind: Service, spec: {externalIPs: [010.0.0.1], clusterIP: None, clusterIPs: [None], ipFamilies: [IPv4], ipFamilyPolicy: SingleStack, type: ClusterIP, ports: [{port: 1}]}}`},
		{"the name of a StatefulSet's service", "spec.serviceName",
			`{apiVersion: apps/v1, kind: StatefulSet, spec: {serviceName: A_B, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}}`},
		{"the selector of a claim", "spec.selector.matchExpressions[0].values[0]",
			`{apiVersion: v1, kind: PersistentVolumeClaim, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, selector: {matchExpressions: [{key: a, operator: In, values: [` + label + `]}]}}}`},
		{"a condition of a webhook", "webhooks[0].matchConditions[0].expression",
			`{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, webhooks: [{name: a.b.c, sideEffects: None, admissionReviewVersions: [v1], clientConfig: {url: "https://h"}, matchConditions: [{name: m, expression: "a b"}]}]}`},
		{"an expression of a policy", "spec.validations[0].expression",
			`{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, spec: {matchConstraints: {resourceRules: [{apiGroups: [""], apiVersions: [v1], resources: [pods], operations: [CREATE]}]}, validations: [{expression: "a b"}]}}`},
		{"the selector of a Deployment's pods", "spec.template.spec.topologySpreadConstraints[0].labelSelector.matchLabels",
			`{apiVersion: apps/v1, kind: Deployment, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: ` + pods(`topologySpreadConstraints: [{maxSkew: 1, topologyKey: k, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {k: `+label+`}}}]`) + `}}}`},
		{"a trust bundle", "spec.trustBundle",
			`{apiVersion: certificates.k8s.io/v1, kind: ClusterTrustBundle, spec: {trustBundle: "none"}}`},
		{"a device selector", "spec.selectors[0].cel.expression",
			`{apiVersion: resource.k8s.io/v1, kind: DeviceClass, spec: {selectors: [{cel: {expression: "a b"}}]}}`},
	} {
		t.Run(c.what, func(t *testing.T) {
			var meta metav1.TypeMeta
			if err := yaml.Unmarshal([]byte(c.object), &meta); err != nil {
				t.Fatal(err)
			}
			d := catalog.Kind(meta.GroupVersionKind())
			read := func() object.Object {
				obj := d.New()
				if err := yaml.UnmarshalStrict([]byte(c.object), obj); err != nil {
					t.Fatal(err)
				}
				obj.SetName("x")
				if d.Namespaced() {
					obj.SetNamespace("d")
				}
				if d.Default != nil {
					d.Default(obj)
				}
				return obj
			}
			var at []string
			for _, e := range errorsOf(d, read(), nil) {
				at = append(at, e.Field)
			}
			if !strings.Contains(strings.Join(at, " ")+" ", c.field+" ") {
				t.Errorf("a new object is refused for %q, want %s", at, c.field)
			}
			changed := read()
			changed.SetLabels(map[string]string{"new": "label"})
			if errs := errorsOf(d, changed, read()); len(errs) > 0 {
				t.Errorf("an update is refused: %v", errs.ToAggregate())
			}
		})
	}
}
