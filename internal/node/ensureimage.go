package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// pullErrorShown is how long a failed pull shows as ErrImagePull before it
// shows as the back-off until the next one.
const pullErrorShown = 3 * time.Second

// ensureImage returns the container's image once it is on the machine, by its
// pull policy. Else it sees to the pull and says why the container waits.
func (w *podWorker) ensureImage(ctx context.Context, s start, m *memory) (image *runtimeapi.Image, ok bool) {
	if m.image != nil {
		return m.image, true
	}
	c, now := s.container, time.Now()
	name, err := normalizeImage(c.Image)
	if err != nil {
		message := fmt.Sprintf("Failed to apply default image tag %q: %v", c.Image, err)
		w.imageWaits(s, m, waiting{reasonInvalidImageName, message}, eventInspectFailed, message)
		return nil, false
	}
	handler, err := w.agent.runtimeHandler(ctx, w.pod)
	if err != nil {
		w.startFailed(s, m, waiting{reasonConfigError, err.Error()})
		return nil, false
	}
	found, err := w.agent.images.find(ctx, name, handler)
	switch {
	case err != nil && (isUnavailable(err) || ctx.Err() != nil):
		w.dirty = true
		w.at(now.Add(time.Second))
		return nil, false
	case err != nil:
		message := fmt.Sprintf("Failed to inspect image %q: %v", name, err)
		w.imageWaits(s, m, waiting{reasonImageInspect, message}, eventInspectFailed, message)
		m.retry.failed(now)
		w.at(m.retry.at)
		return nil, false
	}
	policy := pullPolicy(c)
	switch {
	case found != nil && policy != v1.PullAlways:
		w.agent.events.container(w.pod, s.kind, c.Name, v1.EventTypeNormal, eventPulled, fmt.Sprintf("Container image %q already present on machine", c.Image))
		m.image = found
		return found, true
	case policy == v1.PullNever:
		message := fmt.Sprintf("Container image %q is not present with pull policy of Never", c.Image)
		w.imageWaits(s, m, waiting{reasonErrImageNeverPull, message}, eventNeverPull, message)
		m.retry.failed(now)
		w.at(m.retry.at)
		return nil, false
	}

	if !m.pullAt.IsZero() {
		if at := m.pull.readyAt(m.pullAt); now.Before(at) {
			if shown := m.pullAt.Add(pullErrorShown); now.Before(shown) {
				w.at(shown)
				return nil, false
			}
			w.at(at)
			message := fmt.Sprintf("Back-off pulling image %q", c.Image)
			w.imageWaits(s, m, waiting{reasonImagePullBackOff, message + ": " + m.pullBy.reason + ": " + m.pullBy.message}, eventBackOff, message)
			return nil, false
		}
	}
	w.pull(ctx, s, m, name, handler)
	return nil, false
}

// imageWaits says once why the image is not there.
func (w *podWorker) imageWaits(s start, m *memory, why waiting, eventReason, message string) {
	m.waits = &why
	told := why.reason + m.pullAt.String()
	if m.told == told {
		return
	}
	m.told = told
	kind := v1.EventTypeWarning
	if eventReason == eventBackOff {
		kind = v1.EventTypeNormal
	}
	w.agent.events.container(w.pod, s.kind, s.container.Name, kind, eventReason, message)
	w.agent.events.container(w.pod, s.kind, s.container.Name, v1.EventTypeWarning, eventFailed, "Error: "+why.reason)
}

// pull fetches the image beside the loop.
func (w *podWorker) pull(ctx context.Context, s start, m *memory, name, handler string) {
	c := s.container
	secrets, err := w.pullSecrets()
	if errors.Is(err, errNotSynced) {
		return
	}
	if err != nil {
		w.agent.events.pod(w.pod, v1.EventTypeWarning, "FailedToRetrieveImagePullSecret", err.Error())
	}
	config, err := sandboxConfig(w.pod, &w.agent.cfg, w.seen.current().attempt, nil, w.agent.cgroups.path(w.pod))
	if err != nil {
		w.startFailed(s, m, waiting{reasonConfigError, err.Error()})
		return
	}
	pod, image := w.pod, c.Image
	w.agent.events.container(pod, s.kind, c.Name, v1.EventTypeNormal, eventPulling, fmt.Sprintf("Pulling image %q", image))
	w.begin(ctx, "pull/"+c.Name, func(ctx context.Context) func() {
		result := w.agent.images.pull(ctx, name, handler, config, secrets)
		return func() {
			if ctx.Err() != nil && result.err != nil && w.ending != nil {
				return
			}
			if result.err == nil {
				w.agent.health.imagesChanged()
				w.agent.events.container(pod, s.kind, c.Name, v1.EventTypeNormal, eventPulled, fmt.Sprintf(
					"Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.",
					image, result.took.Truncate(time.Millisecond), result.waited.Truncate(time.Millisecond), result.image.GetSize()))
				m.image, m.pullAt, m.pull = result.image, time.Time{}, backoff{}
				return
			}
			now := time.Now()
			m.pull.attempt(now, now)
			m.pullAt = now
			m.pullBy = waiting{pullReason(result.err), result.err.Error()}
			m.waits, m.told = &waiting{m.pullBy.reason, m.pullBy.message}, ""
			w.agent.events.container(pod, s.kind, c.Name, v1.EventTypeWarning, eventFailed, fmt.Sprintf("Failed to pull image %q: %v", image, result.err))
			w.agent.events.container(pod, s.kind, c.Name, v1.EventTypeWarning, eventFailed, "Error: "+m.pullBy.reason)
		}
	})
}

// pullSecrets are the pod's image pull secrets; missing ones are named in err.
func (w *podWorker) pullSecrets() (secrets []*v1.Secret, err error) {
	var missing []string
	for _, ref := range w.pod.Spec.ImagePullSecrets {
		if ref.Name == "" {
			continue
		}
		secret, err := w.agent.objects.secret(w.pod.Namespace, ref.Name)
		if errors.Is(err, errNotSynced) {
			return nil, err
		}
		if err != nil {
			missing = append(missing, ref.Name)
			continue
		}
		secrets = append(secrets, secret)
	}
	if len(missing) > 0 {
		err = fmt.Errorf("Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", strings.Join(missing, ", "))
	}
	return secrets, err
}
