package scheduler

import (
	"fmt"
	"testing"
)

func TestPodRequests(t *testing.T) {
	for _, c := range []struct{ name, pod, want, scoring string }{
		{"nothing", "spec: {containers: [{name: c}]}", "0m 0 0 map[]", "100m 209715200"},
		{"containers add up", "spec: {containers: [{name: a, resources: {requests: {cpu: 100m, memory: '10', nvidia.com/gpu: '1'}}}, {name: b, resources: {requests: {cpu: '1', ephemeral-storage: '7', nvidia.com/gpu: '2'}}}]}",
			"1100m 10 7 map[nvidia.com/gpu:3]", "1100m 209715210"},
		{"an explicit zero stays", "spec: {containers: [{name: a, resources: {requests: {cpu: '0', memory: '0'}}}]}", "0m 0 0 map[]", "0m 0"},
		{"init containers run alone", "spec: {initContainers: [{name: i, resources: {requests: {cpu: '2'}}}, {name: j, resources: {requests: {cpu: '3'}}}], containers: [{name: c, resources: {requests: {cpu: '1', memory: '5'}}}]}",
			"3000m 5 0 map[]", "3000m 209715200"},
		{"sidecars run beside", "spec: {initContainers: [{name: s, restartPolicy: Always, resources: {requests: {cpu: '1'}}}], containers: [{name: c, resources: {requests: {cpu: '1', memory: '5'}}}]}",
			"2000m 5 0 map[]", "2000m 209715205"},
		{"an init container runs beside earlier sidecars only", "spec: {initContainers: [{name: s, restartPolicy: Always, resources: {requests: {cpu: '1'}}}, {name: i, resources: {requests: {cpu: '3'}}}, {name: s2, restartPolicy: Always, resources: {requests: {cpu: '1'}}}], containers: [{name: c, resources: {requests: {cpu: '1', memory: '1'}}}]}",
			"4000m 1 0 map[]", "4000m 419430401"},
		{"overhead comes on top", "spec: {overhead: {cpu: 250m, memory: '3'}, containers: [{name: c, resources: {requests: {cpu: '1', memory: '1'}}}]}",
			"1250m 4 0 map[]", "1250m 4"},
		{"the pod's own requests win", "spec: {resources: {requests: {cpu: '3'}}, overhead: {cpu: 100m}, containers: [{name: c, resources: {requests: {cpu: '1', memory: '1'}}}, {name: d, resources: {requests: {memory: '1'}}}]}",
			"3100m 2 0 map[]", "3100m 2"},
		{"a resize of the pod's own holds what it has", "spec: {resources: {requests: {cpu: '1'}}, containers: [{name: c, resources: {requests: {memory: '1'}}}]}\nstatus: {allocatedResources: {cpu: '2', memory: '9'}}",
			"2000m 1 0 map[]", "2000m 1"},
		{"a resize down holds what it has", "spec: {containers: [{name: c, resources: {requests: {cpu: '1', memory: '1'}}}]}\nstatus: {containerStatuses: [{name: c, allocatedResources: {cpu: '1'}, resources: {requests: {cpu: '2', memory: '1'}}}]}",
			"2000m 1 0 map[]", "2000m 1"},
		{"an infeasible resize wants nothing", "spec: {containers: [{name: c, resources: {requests: {cpu: '8', memory: '1'}}}]}\nstatus: {conditions: [{type: PodResizePending, status: 'True', reason: Infeasible}], containerStatuses: [{name: c, allocatedResources: {cpu: '2', memory: '1'}}]}",
			"2000m 1 0 map[]", "2000m 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := newPod(t, "p", c.pod)
			r := podRequests(pod, false)
			if got := fmt.Sprintf("%dm %d %d %v", r.MilliCPU, r.Memory, r.Ephemeral, r.Scalar); got != c.want {
				t.Errorf("requests %s, want %s", got, c.want)
			}
			r = podRequests(pod, true)
			if got := fmt.Sprintf("%dm %d", r.MilliCPU, r.Memory); got != c.scoring {
				t.Errorf("for scoring %s, want %s", got, c.scoring)
			}
		})
	}
}
