package node

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/timonel/timonel/internal/node/cri"
)

// health registers the Node and keeps its status true: written when something
// changed, and every reportPeriod so that all can see it is alive (the Lease
// says that more often and cheaper).
type health struct {
	a    *Agent
	wake chan struct{}

	mu struct {
		sync.Mutex
		up         bool // the runtime answers
		err        error
		status     *runtimeapi.StatusResponse
		version    *runtimeapi.VersionResponse
		images     []v1.ContainerImage
		imagesRead bool
		node       *v1.Node // newest known
	}

	// The loop's own.
	registered bool
	reported   time.Time
	told       map[v1.NodeConditionType]v1.ConditionStatus
}

const (
	// reportPeriod is how often an unchanged node status is written.
	reportPeriod = 5 * time.Minute
	// checkPeriod is how often the machine and the runtime are looked at for
	// what no event tells: memory, disk, the network plug-in.
	checkPeriod = 10 * time.Second
	// registerRetryMax bounds the pause between attempts to register.
	registerRetryMax = 7 * time.Second
	// nodeImages bounds the images listed in the node's status, and imageNames
	// the names of each.
	nodeImages = 50
	imageNames = 5
)

func newHealth(a *Agent) *health {
	return &health{a: a, wake: make(chan struct{}, 1), told: map[v1.NodeConditionType]v1.ConditionStatus{}}
}

func (h *health) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func (h *health) runtimeUp() {
	h.mu.Lock()
	h.mu.up, h.mu.err, h.mu.imagesRead = true, nil, false
	h.mu.Unlock()
	h.poke()
}

func (h *health) runtimeDown(err error) {
	h.mu.Lock()
	h.mu.up, h.mu.err = false, err
	h.mu.Unlock()
	h.poke()
}

// imagesChanged has the list of images in the node's status renewed.
func (h *health) imagesChanged() {
	h.mu.Lock()
	h.mu.imagesRead = false
	h.mu.Unlock()
	h.poke()
}

// runtimeName prefixes container ids in the API. Before the runtime ever
// answered nobody has one to show.
func (h *health) runtimeName() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.version.GetRuntimeName()
}

// learnRuntime asks the runtime for its name, the first time.
func (h *health) learnRuntime(ctx context.Context) error {
	if h.runtimeName() != "" {
		return nil
	}
	version, err := h.a.runtime.Version(ctx)
	if err != nil {
		return err
	}
	h.mu.Lock()
	h.mu.version = version
	h.mu.Unlock()
	return nil
}

// supplementalGroups tells whether the runtime knows supplementalGroupsPolicy.
func (h *health) supplementalGroups() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mu.status.GetFeatures().GetSupplementalGroupsPolicy()
}

func (h *health) run(ctx context.Context) {
	a := h.a
	a.events.node(v1.EventTypeNormal, eventNodeStarting, "Starting kubelet.")
	pause := 200 * time.Millisecond
	for !h.registered {
		h.check(ctx)
		err := h.register(ctx)
		if err == nil {
			h.registered = true
			break
		}
		if ctx.Err() != nil {
			return
		}
		a.log.Warn("node not registered; will retry", "err", err)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-h.wake:
			timer.Stop()
		}
		pause = min(2*pause, registerRetryMax)
	}
	a.log.Info("node is registered")
	stop := h.watchNode(ctx)
	defer stop()

	ticker := time.NewTicker(checkPeriod)
	defer ticker.Stop()
	for {
		h.check(ctx)
		if err := h.report(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("node status not written; will retry", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-h.wake:
		case <-ticker.C:
		}
	}
}

// watchNode follows this node's object: others write to it too, such as the
// controller that calls a silent node unknown.
func (h *health) watchNode(ctx context.Context) (stop func()) {
	factory := informers.NewSharedInformerFactoryWithOptions(h.a.client, 0, informers.WithTransform(stripManagedFields),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector("metadata.name", h.a.cfg.NodeName).String()
		}))
	seen := func(object any) {
		node, ok := object.(*v1.Node)
		if !ok || node.Name != h.a.cfg.NodeName {
			return
		}
		h.setNode(node)
		h.poke()
	}
	_, err := factory.Core().V1().Nodes().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    seen,
		UpdateFunc: func(_, object any) { seen(object) },
		DeleteFunc: func(any) {
			// Parity: a kubelet does not come back either until it is restarted.
			h.a.log.Error("the Node object of this node was deleted; restart the agent to register again")
		},
	})
	if err != nil {
		h.a.log.Error("own node cannot be watched", "err", err)
	}
	factory.Start(ctx.Done())
	return factory.Shutdown
}

// setNode notes the newest version of the Node.
func (h *health) setNode(node *v1.Node) {
	h.mu.Lock()
	h.mu.node = node
	h.mu.Unlock()
}

// check asks the runtime how it is.
func (h *health) check(ctx context.Context) {
	h.mu.Lock()
	up, read := h.mu.up, h.mu.imagesRead
	h.mu.Unlock()
	if !up {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, checkPeriod)
	defer cancel()
	status, err := h.a.runtime.Status(ctx)
	var version *runtimeapi.VersionResponse
	if err == nil {
		version, err = h.a.runtime.Version(ctx)
	}
	var images []v1.ContainerImage
	if err == nil && !read {
		images, err = h.listImages(ctx)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if err != nil {
		h.mu.err = err
		return
	}
	h.mu.err, h.mu.status, h.mu.version = nil, status, version
	if !read {
		h.mu.images, h.mu.imagesRead = images, true
	}
}

func (h *health) listImages(ctx context.Context) ([]v1.ContainerImage, error) {
	list, err := h.a.runtime.Images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil, err
	}
	var images []v1.ContainerImage
	for _, image := range list.Images {
		names := append(slices.Clone(image.RepoDigests), image.RepoTags...)
		if len(names) == 0 {
			continue
		}
		images = append(images, v1.ContainerImage{Names: names[:min(len(names), imageNames)], SizeBytes: int64(image.GetSize())})
	}
	slices.SortFunc(images, func(a, b v1.ContainerImage) int {
		return cmp.Or(cmp.Compare(b.SizeBytes, a.SizeBytes), strings.Compare(a.Names[0], b.Names[0]))
	})
	return images[:min(len(images), nodeImages)], nil
}

// register creates the Node, or brings the one that is there up to date.
func (h *health) register(ctx context.Context) error {
	cfg := &h.a.cfg
	node := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: cfg.NodeName, Labels: h.labels(), Annotations: map[string]string{
			"volumes.kubernetes.io/controller-managed-attach-detach": "true",
		}},
		Spec: v1.NodeSpec{ProviderID: cfg.ProviderID, Taints: cfg.Taints},
	}
	node.Status = h.status(node, time.Now())
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	nodes := h.a.client.CoreV1().Nodes()
	created, err := nodes.Create(ctx, node, metav1.CreateOptions{})
	if err == nil {
		h.setNode(created)
		h.reported = time.Now()
		h.tell(created.Status.Conditions)
		return nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("create node %s: %w", cfg.NodeName, err)
	}
	have, err := nodes.Get(ctx, cfg.NodeName, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("get node %s: %w", cfg.NodeName, err)
	}
	want := have.DeepCopy()
	for _, set := range []struct{ into, from map[string]string }{{want.Labels, node.Labels}, {want.Annotations, node.Annotations}} {
		for k, v := range set.from {
			if set.into == nil {
				break
			}
			set.into[k] = v
		}
	}
	if want.Labels == nil {
		want.Labels = node.Labels
	}
	if want.Annotations == nil {
		want.Annotations = node.Annotations
	}
	if want.Spec.ProviderID == "" {
		want.Spec.ProviderID = cfg.ProviderID
	}
	if have.Status.NodeInfo.BootID != "" && have.Status.NodeInfo.BootID != h.a.machine.info.BootID {
		h.a.events.node(v1.EventTypeWarning, eventNodeRebooted, "Node %s has been rebooted, boot id: %s", cfg.NodeName, h.a.machine.info.BootID)
	}
	if !apiequality.Semantic.DeepEqual(have.ObjectMeta, want.ObjectMeta) || have.Spec.ProviderID != want.Spec.ProviderID {
		if have, err = h.patch(ctx, have, want, ""); err != nil {
			return err
		}
	}
	h.setNode(have)
	return nil
}

func (h *health) labels() map[string]string {
	labels := map[string]string{
		v1.LabelHostname:   h.a.cfg.NodeName,
		v1.LabelOSStable:   h.a.machine.info.OperatingSystem,
		v1.LabelArchStable: h.a.machine.info.Architecture,
	}
	for k, v := range h.a.cfg.Labels {
		labels[k] = v
	}
	return labels
}

// report writes the node's status if it changed or is due.
func (h *health) report(ctx context.Context) error {
	h.mu.Lock()
	base := h.mu.node
	h.mu.Unlock()
	now := time.Now()
	want := base.DeepCopy()
	want.Status = h.status(base, now)
	if now.Sub(h.reported) < reportPeriod && sameStatus(&base.Status, &want.Status) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, apiTimeout)
	defer cancel()
	written, err := h.patch(ctx, base, want, "status")
	if err != nil {
		return err
	}
	h.setNode(written)
	h.reported = now
	h.tell(want.Status.Conditions)
	return nil
}

// sameStatus compares statuses without the times of the last sign of life.
func sameStatus(a, b *v1.NodeStatus) bool {
	a, b = a.DeepCopy(), b.DeepCopy()
	for _, conditions := range [][]v1.NodeCondition{a.Conditions, b.Conditions} {
		for i := range conditions {
			conditions[i].LastHeartbeatTime = metav1.Time{}
		}
	}
	return apiequality.Semantic.DeepEqual(a, b)
}

func (h *health) patch(ctx context.Context, from, to *v1.Node, subresource string) (*v1.Node, error) {
	before, err := json.Marshal(from)
	if err != nil {
		return nil, err
	}
	after, err := json.Marshal(to)
	if err != nil {
		return nil, err
	}
	patch, err := strategicpatch.CreateTwoWayMergePatch(before, after, v1.Node{})
	if err != nil {
		return nil, fmt.Errorf("compute patch of node: %w", err)
	}
	var subresources []string
	if subresource != "" {
		subresources = []string{subresource}
	}
	written, err := h.a.client.CoreV1().Nodes().Patch(ctx, to.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, subresources...)
	if err != nil {
		return nil, fmt.Errorf("patch node %s: %w", to.Name, err)
	}
	return written, nil
}

// status is the node's status now, on top of what the object has.
func (h *health) status(base *v1.Node, now time.Time) v1.NodeStatus {
	a := h.a
	status := *base.Status.DeepCopy()
	status.Capacity = a.machine.capacity.DeepCopy()
	status.Allocatable = a.machine.allocatable.DeepCopy()
	status.Addresses = nil
	for _, ip := range a.cfg.hostIPs() {
		status.Addresses = append(status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: ip})
	}
	status.Addresses = append(status.Addresses, v1.NodeAddress{Type: v1.NodeHostName, Address: a.cfg.NodeName})
	status.DaemonEndpoints.KubeletEndpoint.Port = a.cfg.KubeletPort
	status.NodeInfo = a.machine.info

	h.mu.Lock()
	if h.mu.version != nil {
		status.NodeInfo.ContainerRuntimeVersion = h.mu.version.RuntimeName + "://" + h.mu.version.RuntimeVersion
	} else {
		status.NodeInfo.ContainerRuntimeVersion = base.Status.NodeInfo.ContainerRuntimeVersion
	}
	if h.mu.imagesRead {
		status.Images = h.mu.images
	}
	if h.mu.status != nil {
		status.RuntimeHandlers = nil
		for _, handler := range h.mu.status.RuntimeHandlers {
			no := false
			rro := handler.GetFeatures().GetRecursiveReadOnlyMounts()
			status.RuntimeHandlers = append(status.RuntimeHandlers, v1.NodeRuntimeHandler{Name: handler.Name, Features: &v1.NodeRuntimeHandlerFeatures{
				RecursiveReadOnlyMounts: &rro, UserNamespaces: &no,
			}})
		}
		slices.SortFunc(status.RuntimeHandlers, func(x, y v1.NodeRuntimeHandler) int { return strings.Compare(x.Name, y.Name) })
		groups := h.mu.status.GetFeatures().GetSupplementalGroupsPolicy()
		status.Features = &v1.NodeFeatures{SupplementalGroupsPolicy: &groups}
	}
	trouble := runtimeTrouble(h.mu.up, h.mu.err, h.mu.status)
	h.mu.Unlock()

	p := readPressure(a.cfg.DataDir)
	set := func(kind v1.NodeConditionType, bad bool, goodReason, goodMessage, badReason, badMessage string) {
		condition := v1.NodeCondition{Type: kind, Status: v1.ConditionFalse, Reason: goodReason, Message: goodMessage}
		if bad {
			condition.Status, condition.Reason, condition.Message = v1.ConditionTrue, badReason, badMessage
		}
		setNodeCondition(&status, condition, now)
	}
	set(v1.NodeMemoryPressure, p.memory, "KubeletHasSufficientMemory", "kubelet has sufficient memory available", "KubeletHasInsufficientMemory", "kubelet has insufficient memory available")
	set(v1.NodeDiskPressure, p.disk, "KubeletHasNoDiskPressure", "kubelet has no disk pressure", "KubeletHasDiskPressure", "kubelet has disk pressure")
	set(v1.NodePIDPressure, p.pids, "KubeletHasSufficientPID", "kubelet has sufficient PID available", "KubeletHasInsufficientPID", "kubelet has insufficient PID available")
	ready := v1.NodeCondition{Type: v1.NodeReady, Status: v1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status"}
	if trouble != "" {
		ready.Status, ready.Reason, ready.Message = v1.ConditionFalse, "KubeletNotReady", trouble
	}
	setNodeCondition(&status, ready, now)
	return status
}

// runtimeTrouble says why pods cannot run; nothing if they can.
func runtimeTrouble(up bool, err error, status *runtimeapi.StatusResponse) string {
	if !up || status == nil {
		return "container runtime is down"
	}
	if err != nil {
		return fmt.Sprintf("container runtime status check may not have completed yet: %v", err)
	}
	var troubles []string
	for _, required := range []struct{ kind, text string }{
		{cri.RuntimeReady, "container runtime not ready"},
		{cri.NetworkReady, "container runtime network not ready"},
	} {
		found := false
		for _, condition := range status.GetStatus().GetConditions() {
			if condition.Type != required.kind {
				continue
			}
			found = true
			if !condition.Status {
				troubles = append(troubles, fmt.Sprintf("%s: %s=false reason:%s message:%s", required.text, condition.Type, condition.Reason, condition.Message))
			}
		}
		if !found {
			troubles = append(troubles, fmt.Sprintf("%s: %s not reported", required.text, required.kind))
		}
	}
	if len(troubles) > 1 {
		return "[" + strings.Join(troubles, ", ") + "]"
	}
	return strings.Join(troubles, "")
}

func setNodeCondition(status *v1.NodeStatus, condition v1.NodeCondition, now time.Time) {
	stamp := metav1.NewTime(now).Rfc3339Copy()
	condition.LastHeartbeatTime, condition.LastTransitionTime = stamp, stamp
	for i := range status.Conditions {
		if have := &status.Conditions[i]; have.Type == condition.Type {
			if have.Status == condition.Status {
				condition.LastTransitionTime = have.LastTransitionTime
			}
			*have = condition
			return
		}
	}
	status.Conditions = append(status.Conditions, condition)
}

// tell records the Events of conditions that turned.
func (h *health) tell(conditions []v1.NodeCondition) {
	for _, condition := range conditions {
		if h.told[condition.Type] == condition.Status {
			continue
		}
		h.told[condition.Type] = condition.Status
		reason := ""
		good := condition.Status == v1.ConditionFalse
		switch condition.Type {
		case v1.NodeReady:
			reason = eventNodeReady
			if good = condition.Status == v1.ConditionTrue; !good {
				reason = eventNodeNotReady
			}
		case v1.NodeMemoryPressure:
			reason = pick(good, "NodeHasSufficientMemory", "NodeHasInsufficientMemory")
		case v1.NodeDiskPressure:
			reason = pick(good, "NodeHasNoDiskPressure", "NodeHasDiskPressure")
		case v1.NodePIDPressure:
			reason = pick(good, "NodeHasSufficientPID", "NodeHasInsufficientPID")
		default:
			continue
		}
		h.a.events.node(v1.EventTypeNormal, reason, "Node %s status is now: %s", h.a.cfg.NodeName, reason)
	}
}

func pick(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}
