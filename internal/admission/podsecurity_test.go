package admission

import (
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/timonel/timonel/internal/object"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

const (
	bareDetail = `allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")`
	goodSpec   = "containers: [{name: c, image: x, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}], securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}"
	bareSpec   = "containers: [{name: c, image: x}]"
)

func secured(labels ...string) *store {
	for i := 0; i < len(labels); i += 2 {
		labels[i] = "pod-security.kubernetes.io/" + labels[i]
	}
	return newStore(map[schema.GroupResource][]object.Object{namespaces: {namespaceObject("ns", corev1.NamespaceActive, labels...)}})
}

// The refusals are those of corpus admission/podsecurity.
func TestPodSecurity(t *testing.T) {
	baseline := secured("enforce", "baseline")
	p := (&cluster{Reader: baseline}).podSecurity()
	for spec, want := range map[string]string{
		bareSpec: "",
		"hostNetwork: true, hostPID: true, " + bareSpec:                                "host namespaces (hostNetwork=true, hostPID=true)",
		"containers: [{name: c, securityContext: {privileged: true}}]":                 `privileged (container "c" must not set securityContext.privileged=true)`,
		"volumes: [{name: v, hostPath: {path: /x}}], " + bareSpec:                      `hostPath volumes (volume "v")`,
		"containers: [{name: c, securityContext: {capabilities: {add: [SYS_ADMIN]}}}]": `non-default capabilities (container "c" must not include "SYS_ADMIN" in securityContext.capabilities.add)`,
		"containers: [{name: c, ports: [{hostPort: 1, containerPort: 1}]}]":            `hostPort (container "c" uses hostPort 1)`,
		"securityContext: {sysctls: [{name: kernel.msgmax, value: '1'}]}, " + bareSpec: "forbidden sysctls (kernel.msgmax)",
		"securityContext: {seccompProfile: {type: Unconfined}}, " + bareSpec:           `seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")`,
		"securityContext: {seLinuxOptions: {type: odd}}, " + bareSpec:                  `seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "odd")`,
	} {
		if want != "" {
			want = `pods "p" is forbidden: violates PodSecurity "baseline:latest": ` + want
		}
		r := on(Create, "pods", pod(t, spec), nil)
		same(t, spec, admit(t, p, r), want)
		same(t, "warnings", r.Warnings(), []string(nil))
	}
	bad := pod(t, "hostPID: true, "+bareSpec)
	same(t, "status", admit(t, p, on(Update, "pods/status", bad, bad)), "")
	same(t, "insignificant update", admit(t, p, on(Update, "pods", pod(t, "hostPID: true, containers: [{name: c, image: y}]"), bad)), "")
	if admit(t, p, on(Update, "pods/ephemeralcontainers", pod(t, "ephemeralContainers: [{name: e, securityContext: {privileged: true}}], "+bareSpec), pod(t, bareSpec))) == "" {
		t.Error("a privileged ephemeral container is admitted")
	}
	deployment := as[appsv1.Deployment](t, "{metadata: {namespace: ns, name: d}, spec: {template: {spec: {hostPID: true, "+bareSpec+"}}}}")
	r := on(Create, "apps:deployments", deployment, nil)
	same(t, "deployment", admit(t, p, r), "")
	same(t, "warning", r.Warnings(), []string{`would violate PodSecurity "baseline:latest": host namespaces (hostPID=true)`})

	warned := on(Create, "pods", pod(t, bareSpec), nil)
	same(t, "warn only", admit(t, (&cluster{Reader: secured("enforce", "privileged", "warn", "restricted")}).podSecurity(), warned), "")
	same(t, "warning", warned.Warnings(), []string{`would violate PodSecurity "restricted:latest": ` + bareDetail})

	audited := on(Create, "pods", pod(t, bareSpec), nil)
	same(t, "audit only", admit(t, (&cluster{Reader: secured("audit", "restricted")}).podSecurity(), audited), "")
	same(t, "annotations", audited.annotations, map[string]string{
		"pod-security.kubernetes.io/enforce-policy": "privileged:latest", "pod-security.kubernetes.io/audit-violations": `would violate PodSecurity "restricted:latest": ` + bareDetail,
	})

	restricted := (&cluster{Reader: secured("enforce", "restricted", "enforce-version", "v1.25")}).podSecurity()
	same(t, "restricted", admit(t, restricted, on(Create, "pods", pod(t, bareSpec), nil)), `pods "p" is forbidden: violates PodSecurity "restricted:v1.25": `+bareDetail)
	same(t, "good", admit(t, restricted, on(Create, "pods", pod(t, goodSpec), nil)), "")
	exempt := (&cluster{Reader: secured("enforce", "restricted"), BuiltinOptions: BuiltinOptions{PodSecurity: PodSecurityOptions{Users: []string{"jane"}}}}).podSecurity()
	same(t, "exempt", admit(t, exempt, on(Create, "pods", pod(t, bareSpec), nil)), "")
	defaults := (&cluster{Reader: secured(), BuiltinOptions: BuiltinOptions{PodSecurity: PodSecurityOptions{Defaults: map[string]string{"enforce": "baseline"}}}}).podSecurity()
	same(t, "default", admit(t, defaults, on(Create, "pods", bad, nil)), `pods "p" is forbidden: violates PodSecurity "baseline:latest": host namespaces (hostPID=true)`)
}

func TestPodSecurityOfNamespaces(t *testing.T) {
	s := newStore(nil)
	p := (&cluster{Reader: s}).podSecurity()
	labeled := func(labels ...string) *corev1.Namespace {
		for i := 0; i < len(labels); i += 2 {
			labels[i] = "pod-security.kubernetes.io/" + labels[i]
		}
		return namespaceObject("ns", corev1.NamespaceActive, labels...)
	}
	const odd = `Namespace "ns" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "odd": must be one of privileged, baseline, restricted`
	same(t, "level", admit(t, p, on(Create, "namespaces", labeled("enforce", "odd"), nil)), odd)
	same(t, "level in an update", admit(t, p, on(Update, "namespaces", labeled("enforce", "odd"), labeled())), odd)
	same(t, "level that was odd before", admit(t, p, on(Update, "namespaces", labeled("enforce", "odd"), labeled("enforce", "odd"))), "")
	same(t, "version", admit(t, p, on(Create, "namespaces", labeled("enforce-version", "v9.9x"), nil)),
		`Namespace "ns" is invalid: metadata.labels[pod-security.kubernetes.io/enforce-version]: Invalid value: "v9.9x": must be "latest" or "v1.x"`)

	add := func(name, spec string) {
		o := pod(t, spec)
		o.Name = name
		s.objects[key(pods, "ns", name)] = o
	}
	update := func(now, old *corev1.Namespace) []string {
		r := on(Update, "namespaces", now, old)
		same(t, "update", admit(t, p, r), "")
		return r.Warnings()
	}
	add("a", bareSpec)
	add("good", goodSpec)
	same(t, "stricter", update(labeled("enforce", "restricted"), labeled()), []string{
		`existing pods in namespace "ns" violate the new PodSecurity enforce level "restricted:latest"`,
		"a: allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile",
	})
	add("b", bareSpec)
	add("host", "hostPID: true, "+goodSpec)
	same(t, "several", update(labeled("enforce", "restricted"), labeled()), []string{
		`existing pods in namespace "ns" violate the new PodSecurity enforce level "restricted:latest"`,
		"a (and 1 other pod): allowPrivilegeEscalation != false, unrestricted capabilities, runAsNonRoot != true, seccompProfile",
		"host: host namespaces",
	})
	same(t, "laxer", update(labeled("enforce", "baseline"), labeled("enforce", "restricted")), []string(nil))
	same(t, "only warn", update(labeled("warn", "restricted"), labeled()), []string(nil))
	good := s.objects[key(pods, "ns", "good")].(*corev1.Pod)
	for i := range maxPodsChecked {
		o := *good
		o.Name = fmt.Sprintf("z%04d", i)
		s.objects[key(pods, "ns", o.Name)] = &o
	}
	synctest.Test(t, func(t *testing.T) { // no time passes
		same(t, "too many", update(labeled("enforce", "baseline"), labeled())[0], "new PodSecurity enforce level only checked against the first 3000 of 3004 existing pods")
	})
}
