package server

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// BenchmarkWrite is what a write costs the whole server, but for the wire: CPU time of the process, with the store's and the watch
// cache's share and that of all who follow. As many clients write at a time as in scripts/bench.
func BenchmarkWrite(b *testing.B) {
	s := startServer(b, DefaultConfig()).server
	const pods, leases = "/api/v1/namespaces/bench/pods", "/apis/coordination.k8s.io/v1/namespaces/bench/leases"
	const json, merge, strategic, apply = "application/json", "application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"
	ask(b, s, "POST", "/api/v1/namespaces", json, `{"metadata":{"name":"bench"}}`)
	ask(b, s, "POST", "/api/v1/namespaces/bench/serviceaccounts", json, `{"metadata":{"name":"default"}}`)

	var made atomic.Int64 // pods
	some := func(i int64) string { return fmt.Sprintf("web-%d", i%made.Load()+1) }
	benchWrites(b, "create-pod", func(int64) { ask(b, s, "POST", pods, json, benchPod(made.Add(1))) })
	benchWrites(b, "patch-status", func(i int64) {
		ask(b, s, "PATCH", pods+"/"+some(i)+"/status", strategic, fmt.Sprintf(`{"status":{"phase":"Running","podIP":"10.0.%d.%d","conditions":[{"type":"Ready","status":"True","lastTransitionTime":"2026-11-23T00:00:%02dZ"}]}}`, i/250%250, i%250, i%60))
	})
	benchWrites(b, "patch-merge-label", func(i int64) {
		ask(b, s, "PATCH", pods+"/"+some(i), merge, fmt.Sprintf(`{"metadata":{"labels":{"rev":"r%d"}}}`, i))
	})
	benchWrites(b, "apply-ssa-pod", func(i int64) {
		ask(b, s, "PATCH", pods+"/"+some(i)+"?fieldManager=bench&force=true", apply, fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":%q,"annotations":{"note":"n%d"}}}`, some(i), i))
	})
	var renewed [200]struct {
		sync.Mutex
		body string
	}
	for i := range renewed {
		renewed[i].body = ask(b, s, "POST", leases, json, fmt.Sprintf(`{"metadata":{"name":"node-%d"},"spec":{"holderIdentity":"node-%d","leaseDurationSeconds":40,"renewTime":"2026-11-23T00:00:00.000000Z"}}`, i, i))
	}
	renewTime := regexp.MustCompile(`"renewTime":"[^"]*"`)
	benchWrites(b, "lease-renew", func(i int64) {
		l := &renewed[i%int64(len(renewed))]
		l.Lock()
		defer l.Unlock()
		now := time.Now().UTC().Format(`"renewTime":"2006-01-02T15:04:05.000000Z"`)
		l.body = ask(b, s, "PUT", fmt.Sprintf("%s/node-%d", leases, i%int64(len(renewed))), json, renewTime.ReplaceAllLiteralString(l.body, now))
	})
	var gone atomic.Int64
	benchWrites(b, "delete-pod", func(int64) {
		if i := gone.Add(1); i <= made.Load() {
			ask(b, s, "DELETE", fmt.Sprintf("%s/web-%d?gracePeriodSeconds=0", pods, i), "", "")
		}
	})
	var defined atomic.Int64
	benchWrites(b, "create-crd", func(int64) {
		ask(b, s, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json, benchDefinition(defined.Add(1)))
	})
}

// benchWrites runs one kind of write from several goroutines; write gets the number of the turn.
func benchWrites(b *testing.B, name string, write func(i int64)) {
	const writers = 16
	b.Run(name, func(b *testing.B) {
		b.ReportAllocs()
		var turns atomic.Int64
		var group sync.WaitGroup
		before := cpuTime()
		for range writers {
			group.Go(func() {
				for i := turns.Add(1); i <= int64(b.N); i = turns.Add(1) {
					write(i)
				}
			})
		}
		group.Wait()
		b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N), "cpu-µs/op")
	})
}

// ask has a server answer one request, and returns the body.
func ask(b *testing.B, s *Server, method, path, contentType, body string) string {
	r := httptest.NewRequestWithContext(b.Context(), method, path, bytes.NewReader([]byte(body)))
	r.Header = http.Header{"Authorization": {"Bearer " + s.Credentials.loopbackToken}, "Accept": {"application/json"}, "Content-Type": {contentType}}
	w := httptest.NewRecorder()
	s.front.ServeHTTP(w, r)
	if w.Code >= 300 {
		b.Errorf("%s %s: %s", method, path, w.Body)
	}
	return w.Body.String()
}

// cpuTime is what the process has used so far.
func cpuTime() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func benchPod(i int64) string {
	app := i % 50
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-%d","namespace":"%s","labels":{"app":"app-%d","tier":"backend","pod-template-hash":"6d4b75cb6d","release":"stable","shard":"s%d"},"annotations":{"prometheus.io/scrape":"true","prometheus.io/port":"9090","checksum/config":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","cluster-autoscaler.kubernetes.io/safe-to-evict":"true"},"ownerReferences":[{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-6d4b75cb6d","uid":"3e1f7a9e-0d0c-4f0e-9f6d-5d9bbd1c7f%02d","controller":true,"blockOwnerDeletion":true}]},"spec":{"nodeName":"node-%d","serviceAccountName":"default","automountServiceAccountToken":false,"containers":[{"name":"main","image":"registry.example.com/team/app:1.2.3","args":["--listen=:8080","--config=/etc/app/config.yaml","--log-level=info"],"ports":[{"name":"http","containerPort":8080},{"name":"metrics","containerPort":9090}],"env":[{"name":"POD_NAME","valueFrom":{"fieldRef":{"fieldPath":"metadata.name"}}},{"name":"POD_IP","valueFrom":{"fieldRef":{"fieldPath":"status.podIP"}}},{"name":"REGION","value":"eu-west-1"},{"name":"DB_PASSWORD","valueFrom":{"secretKeyRef":{"name":"db","key":"password"}}}],"resources":{"requests":{"cpu":"100m","memory":"128Mi"},"limits":{"cpu":"500m","memory":"512Mi"}},"livenessProbe":{"httpGet":{"path":"/healthz","port":"http"},"initialDelaySeconds":5},"readinessProbe":{"httpGet":{"path":"/readyz","port":"http"},"periodSeconds":5},"volumeMounts":[{"name":"config","mountPath":"/etc/app"},{"name":"tmp","mountPath":"/tmp"}],"securityContext":{"runAsNonRoot":true,"readOnlyRootFilesystem":true,"allowPrivilegeEscalation":false,"capabilities":{"drop":["ALL"]}}},{"name":"sidecar","image":"registry.example.com/mesh/proxy:2.0.1","args":["proxy"],"ports":[{"containerPort":15001}],"resources":{"requests":{"cpu":"10m","memory":"32Mi"}}}],"volumes":[{"name":"config","configMap":{"name":"app-config"}},{"name":"tmp","emptyDir":{}}],"tolerations":[{"key":"dedicated","operator":"Equal","value":"web","effect":"NoSchedule"}],"nodeSelector":{"kubernetes.io/os":"linux"},"affinity":{"podAntiAffinity":{"preferredDuringSchedulingIgnoredDuringExecution":[{"weight":100,"podAffinityTerm":{"topologyKey":"kubernetes.io/hostname","labelSelector":{"matchLabels":{"app":"app-%d"}}}}]}}}}`, i, "bench", app, i%1000, i%100, i%200, app)
}

func benchDefinition(i int64) string {
	return fmt.Sprintf(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"widgets%d.bench%d.example.com"},"spec":{"group":"bench%d.example.com","scope":"Namespaced","names":{"plural":"widgets%d","singular":"widget%d","kind":"Widget%d","listKind":"Widget%dList"},"versions":[{"name":"v1","served":true,"storage":true,"subresources":{"status":{}},"schema":{"openAPIV3Schema":{"type":"object","properties":{"spec":{"type":"object","required":["size"],"properties":{"size":{"type":"integer","minimum":1,"default":3},"color":{"type":"string","enum":["red","green","blue"]},"items":{"type":"array","items":{"type":"object","properties":{"name":{"type":"string"},"weight":{"type":"number"}}}},"template":{"type":"object","x-kubernetes-preserve-unknown-fields":true}},"x-kubernetes-validations":[{"rule":"self.size < 100"}]},"status":{"type":"object","properties":{"ready":{"type":"boolean"},"count":{"type":"integer"}}}}}}}]}}`, i, i%50, i%50, i, i, i, i)
}
