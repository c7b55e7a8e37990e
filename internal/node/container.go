package node

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	pathrs "github.com/cyphar/filepath-securejoin/pathrs-lite"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// containerSpec is what a container is made of besides its pod.
type containerSpec struct {
	kind      kindOf
	container *v1.Container
	attempt   int
	image     *runtimeapi.Image // resolved
	podIPs    []string
	target    string // id of the container an ephemeral one joins
}

// containerConfig turns a container of the pod into the runtime's terms. It
// writes the files the container gets mounted: its hosts file and the file of
// its termination message.
func (w *podWorker) containerConfig(spec containerSpec) (*runtimeapi.ContainerConfig, error) {
	pod, c, cfg := w.pod, spec.container, &w.agent.cfg
	services, err := w.agent.services()
	if err != nil {
		return nil, configError{err}
	}
	facts := w.facts()
	facts.podIPs = spec.podIPs
	warn := func(reason, message string) {
		w.agent.events.container(pod, spec.kind, c.Name, v1.EventTypeWarning, reason, message)
	}
	env, err := environment(pod, c, facts, services, w.agent.objects, w.envFile, warn)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for _, e := range env {
		values[e.Key] = string(e.Value)
	}
	variable := func(name string) (string, bool) { v, ok := values[name]; return v, ok }
	expandAll := func(words []string) []string {
		out := make([]string, 0, len(words))
		for _, word := range words {
			out = append(out, expand(word, variable))
		}
		return out
	}

	mounts, messageFile, err := w.mounts(spec, variable)
	if err != nil {
		return nil, err
	}
	security, err := linuxSecurity(pod, c, spec.image, spec.target, filepath.Join(cfg.DataDir, "seccomp"))
	if err != nil {
		return nil, err
	}

	config := &runtimeapi.ContainerConfig{
		Metadata:    &runtimeapi.ContainerMetadata{Name: c.Name, Attempt: uint32(spec.attempt)},
		Image:       &runtimeapi.ImageSpec{Image: spec.image.Id, UserSpecifiedImage: c.Image},
		Command:     expandAll(c.Command),
		Args:        expandAll(c.Args),
		WorkingDir:  c.WorkingDir,
		Envs:        env,
		Mounts:      mounts,
		Labels:      containerLabels(cfg.NodeName, pod, c),
		Annotations: containerAnnotations(pod, c, spec.attempt, messageFile),
		LogPath:     containerLogPath(c.Name, spec.attempt),
		Stdin:       c.Stdin,
		StdinOnce:   c.StdinOnce,
		Tty:         c.TTY,
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       linuxResources(pod, c, w.agent.machine.memory, w.agent.machine.cgroup2),
			SecurityContext: security,
		},
	}
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		config.StopSignal = runtimeapi.Signal(runtimeapi.Signal_value["SIGNAL_"+string(*c.Lifecycle.StopSignal)])
	}
	// The runtime makes the log file, not its directory.
	if err := os.MkdirAll(filepath.Join(cfg.podLogDir(pod.Namespace, pod.Name, pod.UID), c.Name), 0o755); err != nil {
		return nil, fmt.Errorf("create log directory: %w", err)
	}
	return config, nil
}

// mounts lists what a container has mounted: its volumes, the hosts file, its
// termination message.
func (w *podWorker) mounts(spec containerSpec, variable func(string) (string, bool)) (mounts []*runtimeapi.Mount, messageFile string, err error) {
	pod, c := w.pod, spec.container
	dir := w.agent.cfg.podDir(pod.UID)
	hosts := false
	for i, m := range c.VolumeMounts {
		path, ok := w.volumes.paths[m.Name]
		if !ok {
			return nil, "", fmt.Errorf("volume %q of container %s is not mounted", m.Name, c.Name)
		}
		if m.MountPath == "/etc/hosts" {
			hosts = true
		}
		sub := m.SubPath
		if m.SubPathExpr != "" {
			if sub, err = expandStrictly(m.SubPathExpr, variable); err != nil {
				return nil, "", configErrorf("failed to expand subPath %q: %w", m.SubPathExpr, err)
			}
		}
		if sub != "" {
			if filepath.IsAbs(sub) || !filepath.IsLocal(sub) {
				return nil, "", configErrorf("subPath %q must be a path within the volume", sub)
			}
			if path, err = w.volumes.subPath(m.Name, path, c.Name, i, sub); err != nil {
				return nil, "", configErrorf("failed to prepare subPath for volumeMount %q of container %q: %w", m.Name, c.Name, err)
			}
		} else if hostPath(pod, m.Name) {
			// A runtime would make a missing source as a directory; Kubernetes too.
			if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
				if err := os.MkdirAll(path, 0o755); err != nil {
					return nil, "", fmt.Errorf("create host path: %w", err)
				}
			}
		}
		target := m.MountPath
		if !filepath.IsAbs(target) {
			target = "/" + target
		}
		mounts = append(mounts, &runtimeapi.Mount{
			ContainerPath: target, HostPath: path,
			Readonly:    m.ReadOnly || alwaysReadOnly(pod, m.Name),
			Propagation: propagation(m.MountPropagation),
		})
	}

	if !hosts {
		file, err := writeHosts(dir, pod, spec.podIPs, w.agent.cfg.ClusterDomain)
		if err != nil {
			return nil, "", err
		}
		mounts = append(mounts, &runtimeapi.Mount{ContainerPath: "/etc/hosts", HostPath: file})
	}
	if c.TerminationMessagePath != "" {
		own := filepath.Join(dir, "containers", c.Name)
		if err := os.MkdirAll(own, 0o755); err != nil {
			return nil, "", fmt.Errorf("create container directory: %w", err)
		}
		messageFile = filepath.Join(own, rand.String(8))
		if err := os.WriteFile(messageFile, nil, 0o644); err != nil {
			return nil, "", fmt.Errorf("create termination message file: %w", err)
		}
		// Writable for whoever the container runs as.
		if err := os.Chmod(messageFile, 0o666); err != nil {
			return nil, "", err
		}
		mounts = append(mounts, &runtimeapi.Mount{ContainerPath: c.TerminationMessagePath, HostPath: messageFile})
	}
	return mounts, messageFile, nil
}

func volumeOf(pod *v1.Pod, name string) *v1.Volume {
	for i := range pod.Spec.Volumes {
		if pod.Spec.Volumes[i].Name == name {
			return &pod.Spec.Volumes[i]
		}
	}
	return nil
}

func hostPath(pod *v1.Pod, name string) bool {
	volume := volumeOf(pod, name)
	return volume != nil && volume.HostPath != nil
}

// alwaysReadOnly tells volumes whose content the agent replaces.
func alwaysReadOnly(pod *v1.Pod, name string) bool {
	volume := volumeOf(pod, name)
	return volume != nil && (volume.ConfigMap != nil || volume.Secret != nil || volume.DownwardAPI != nil || volume.Projected != nil)
}

func propagation(mode *v1.MountPropagationMode) runtimeapi.MountPropagation {
	if mode == nil {
		return runtimeapi.MountPropagation_PROPAGATION_PRIVATE
	}
	switch *mode {
	case v1.MountPropagationHostToContainer:
		return runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
	case v1.MountPropagationBidirectional:
		return runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
	}
	return runtimeapi.MountPropagation_PROPAGATION_PRIVATE
}

// expandStrictly is expand for paths: a name without value is an error.
func expandStrictly(s string, variable func(string) (string, bool)) (string, error) {
	var missing []string
	out := expand(s, func(name string) (string, bool) {
		value, ok := variable(name)
		if !ok {
			missing = append(missing, name)
		}
		return value, ok
	})
	if len(missing) > 0 {
		return "", fmt.Errorf("missing value for %s", strings.Join(missing, ", "))
	}
	return out, nil
}

// envFile reads a fileKeyRef from the volume it names, resolving its path
// inside the volume whatever links a container put there.
func (w *podWorker) envFile(ref *v1.FileKeySelector) (string, bool, error) {
	root, ok := w.volumes.paths[ref.VolumeName]
	if !ok {
		return "", false, fmt.Errorf("volume %q is not mounted", ref.VolumeName)
	}
	handle, err := pathrs.OpenInRoot(root, ref.Path)
	if errors.Is(err, os.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("open env file %q: %w", ref.Path, err)
	}
	defer handle.Close()
	info, err := handle.Stat()
	if err != nil {
		return "", false, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxEnvFile {
		return "", false, fmt.Errorf("env file %q is not a file of at most %d bytes", ref.Path, maxEnvFile)
	}
	file, err := pathrs.Reopen(handle, os.O_RDONLY)
	if err != nil {
		return "", false, fmt.Errorf("open env file %q: %w", ref.Path, err)
	}
	defer file.Close()
	content, err := io.ReadAll(io.LimitReader(file, maxEnvFile))
	if err != nil {
		return "", false, err
	}
	return envFile(content, ref.Path, ref.Key)
}

// Bounds of termination messages.
const (
	maxTerminationMessage = 4096
	maxTerminationLog     = 2048
	maxTerminationLines   = 80
	maxTerminationTotal   = 12 << 10 // of all containers of a pod
)

// terminationMessage is what an ended container left to say: its message
// file, or the end of its log if its policy says so.
func terminationMessage(c *container) string {
	return strings.ToValidUTF8(lastWords(c), "\uFFFD")
}

func lastWords(c *container) string {
	if file := c.annotations[annotationTerminationMessageFile]; file != "" {
		if b, err := readTail(file, maxTerminationMessage, false); err == nil && len(b) > 0 {
			return string(b)
		}
	}
	if c.annotations[annotationTerminationPolicy] != string(v1.TerminationMessageFallbackToLogsOnError) || c.exitCode == 0 {
		return ""
	}
	b, err := readTail(c.logPath, 4*maxTerminationLog, true)
	if err != nil {
		return ""
	}
	return logTail(string(b))
}

// readTail reads at most n bytes of a file: its beginning or its end.
func readTail(file string, n int64, end bool) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	offset := int64(0)
	if end && info.Size() > n {
		offset = info.Size() - n
	}
	b := make([]byte, min(n, info.Size()-offset))
	read, err := f.ReadAt(b, offset)
	if read == 0 && err != nil {
		return nil, err
	}
	return b[:read], nil
}

// logTail strips the CRI log format (time, stream, tag) off the end of a log.
func logTail(log string) string {
	lines := strings.Split(strings.TrimRight(log, "\n"), "\n")
	lines = lines[max(0, len(lines)-maxTerminationLines):]
	var b strings.Builder
	for _, line := range lines {
		parts := strings.SplitN(line, " ", 4)
		if len(parts) < 4 {
			continue // the first may be cut
		}
		b.WriteString(parts[3])
		if parts[2] == "F" {
			b.WriteByte('\n')
		}
	}
	s := b.String()
	return s[max(0, len(s)-maxTerminationLog):]
}
