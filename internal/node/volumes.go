package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
)

// volumeSet materializes the volumes of one pod below its directory, in the
// kubelet's layout: volumes/kubernetes.io~<plug-in>/<name>. Mounting is
// idempotent: it runs again whenever an object behind a volume changed or a
// token wants to be renewed, and after an agent restart.
//
// Used by the pod's worker alone.
type volumeSet struct {
	dir     string // the pod's directory
	pod     func() *v1.Pod
	facts   func() podFacts
	objects objectReader
	tokens  *tokenSource

	paths map[string]string // volume name to host path, of those that are ready
}

// unsupportedVolume is a kind of volume this agent cannot provide. The pod
// waits, saying so.
type unsupportedVolume struct{ kind string }

func (e unsupportedVolume) Error() string {
	return fmt.Sprintf("volume type %s is not supported by this node agent", e.kind)
}

// volumeError is the failure of one volume.
type volumeError struct {
	name string
	err  error
}

func (e volumeError) Error() string {
	return fmt.Sprintf("MountVolume.SetUp failed for volume %q : %v", e.name, e.err)
}

func (e volumeError) Unwrap() error { return e.err }

// referredVolumes are the pod's volumes that some container mounts, or reads
// an env file of.
func referredVolumes(pod *v1.Pod) []*v1.Volume {
	used := map[string]bool{}
	everyContainer(pod, func(_ kindOf, c *v1.Container) {
		for _, m := range c.VolumeMounts {
			used[m.Name] = true
		}
		for _, d := range c.VolumeDevices {
			used[d.Name] = true
		}
		for _, e := range c.Env {
			if e.ValueFrom != nil && e.ValueFrom.FileKeyRef != nil {
				used[e.ValueFrom.FileKeyRef.VolumeName] = true
			}
		}
	})
	var out []*v1.Volume
	for i := range pod.Spec.Volumes {
		if used[pod.Spec.Volumes[i].Name] {
			out = append(out, &pod.Spec.Volumes[i])
		}
	}
	return out
}

// mount makes all volumes ready. renewAt, when not zero, is when it wants to
// be called again. The errors of single volumes are joined volumeErrors; those
// that could be made are ready all the same.
func (s *volumeSet) mount(ctx context.Context) (renewAt time.Time, err error) {
	if s.paths == nil {
		s.paths = map[string]string{}
	}
	var failed []error
	for _, volume := range referredVolumes(s.pod()) {
		path, again, err := s.mountOne(ctx, volume)
		if err != nil {
			failed = append(failed, volumeError{volume.Name, err})
			continue
		}
		s.paths[volume.Name] = path
		if !again.IsZero() && (renewAt.IsZero() || again.Before(renewAt)) {
			renewAt = again
		}
	}
	return renewAt, errors.Join(failed...)
}

func (s *volumeSet) mountOne(ctx context.Context, volume *v1.Volume) (path string, renewAt time.Time, err error) {
	source := &volume.VolumeSource
	in := func(plugin string) string {
		return filepath.Join(s.dir, "volumes", "kubernetes.io~"+plugin, volume.Name)
	}
	switch {
	case source.HostPath != nil:
		return source.HostPath.Path, time.Time{}, checkHostPath(source.HostPath)
	case source.EmptyDir != nil:
		path = in("empty-dir")
		return path, time.Time{}, s.mountEmptyDir(path, source.EmptyDir)
	case source.ConfigMap != nil:
		path = in("configmap")
		err = s.project(ctx, path, false, source.ConfigMap.DefaultMode, []v1.VolumeProjection{{ConfigMap: &v1.ConfigMapProjection{
			LocalObjectReference: source.ConfigMap.LocalObjectReference, Items: source.ConfigMap.Items, Optional: source.ConfigMap.Optional,
		}}}, &renewAt)
	case source.Secret != nil:
		path = in("secret")
		err = s.project(ctx, path, true, source.Secret.DefaultMode, []v1.VolumeProjection{{Secret: &v1.SecretProjection{
			LocalObjectReference: v1.LocalObjectReference{Name: source.Secret.SecretName}, Items: source.Secret.Items, Optional: source.Secret.Optional,
		}}}, &renewAt)
	case source.DownwardAPI != nil:
		path = in("downward-api")
		err = s.project(ctx, path, true, source.DownwardAPI.DefaultMode, []v1.VolumeProjection{{DownwardAPI: &v1.DownwardAPIProjection{
			Items: source.DownwardAPI.Items,
		}}}, &renewAt)
	case source.Projected != nil:
		path = in("projected")
		err = s.project(ctx, path, true, source.Projected.DefaultMode, source.Projected.Sources, &renewAt)
	default:
		return "", time.Time{}, unsupportedVolume{volumeKind(source)}
	}
	return path, renewAt, err
}

// project writes the files of some projections into a volume, on tmpfs where
// they may be secret.
func (s *volumeSet) project(ctx context.Context, path string, inMemory bool, defaultMode *int32, sources []v1.VolumeProjection, renewAt *time.Time) error {
	mode := int32(0o644)
	if defaultMode != nil {
		mode = *defaultMode
	}
	p := projection{pod: s.pod(), facts: s.facts(), objects: s.objects, tokens: s.tokens, mode: mode}
	files, err := p.collect(ctx, sources)
	if err != nil {
		return err
	}
	*renewAt = p.renewAt
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if inMemory {
		if err := mountTmpfs(path, 0, 0o755); err != nil {
			return err
		}
	}
	// The directory itself is open to all: its files carry the modes.
	if err := os.Chmod(path, 0o777); err != nil {
		return err
	}
	return writeAtomically(path, files, fsGroupOf(s.pod()))
}

func (s *volumeSet) mountEmptyDir(path string, source *v1.EmptyDirVolumeSource) error {
	mode := os.FileMode(0o777)
	if source.Mode != nil {
		mode = unixMode(*source.Mode)
	}
	_, err := os.Stat(path)
	fresh := errors.Is(err, os.ErrNotExist)
	switch source.Medium {
	case v1.StorageMediumDefault:
	case v1.StorageMediumMemory:
		if err := os.MkdirAll(path, 0o755); err != nil {
			return err
		}
		if mounted, err := isMountPoint(path); err != nil {
			return err
		} else if !mounted {
			fresh = true
			if err := requireTmpfs(path, memoryVolumeSize(s.pod(), source), uint32(mode.Perm())); err != nil {
				return err
			}
		}
	default:
		return unsupportedVolume{fmt.Sprintf("emptyDir with medium %s", source.Medium)}
	}
	if !fresh {
		return nil
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(path, mode); err != nil {
		return err
	}
	return giveToGroup(path, fsGroupOf(s.pod()), false)
}

// memoryVolumeSize is the most a memory volume may take: its size limit, and
// no more than the pod's memory limit, where there are any. 0 is no bound.
func memoryVolumeSize(pod *v1.Pod, source *v1.EmptyDirVolumeSource) int64 {
	size := int64(0)
	if limit, ok := podLimits(pod)[v1.ResourceMemory]; ok {
		size = limit.Value()
	}
	if source.SizeLimit != nil && source.SizeLimit.Value() > 0 && (size == 0 || source.SizeLimit.Value() < size) {
		size = source.SizeLimit.Value()
	}
	return size
}

// unmount gives back everything of the pod: mounts first, then, once nothing
// is mounted there any more, the files. What the volumes held is lost, as it
// is for a pod that ended.
func (s *volumeSet) unmount() error {
	s.paths = nil
	if err := unmountBelow(s.dir); err != nil {
		return err
	}
	for _, part := range []string{"volumes", "volume-subpaths"} {
		if err := os.RemoveAll(filepath.Join(s.dir, part)); err != nil {
			return err
		}
	}
	return nil
}

// volumeKind names the source that is set, as in the API.
func volumeKind(source *v1.VolumeSource) string {
	for _, k := range []struct {
		name string
		set  bool
	}{
		{"persistentVolumeClaim", source.PersistentVolumeClaim != nil},
		{"ephemeral", source.Ephemeral != nil},
		{"csi", source.CSI != nil},
		{"nfs", source.NFS != nil},
		{"image", source.Image != nil},
		{"iscsi", source.ISCSI != nil},
		{"fc", source.FC != nil},
		{"rbd", source.RBD != nil},
		{"cephfs", source.CephFS != nil},
		{"glusterfs", source.Glusterfs != nil},
		{"gitRepo", source.GitRepo != nil},
		{"flexVolume", source.FlexVolume != nil},
		{"flocker", source.Flocker != nil},
		{"cinder", source.Cinder != nil},
		{"awsElasticBlockStore", source.AWSElasticBlockStore != nil},
		{"gcePersistentDisk", source.GCEPersistentDisk != nil},
		{"azureDisk", source.AzureDisk != nil},
		{"azureFile", source.AzureFile != nil},
		{"vsphereVolume", source.VsphereVolume != nil},
		{"photonPersistentDisk", source.PhotonPersistentDisk != nil},
		{"portworxVolume", source.PortworxVolume != nil},
		{"quobyte", source.Quobyte != nil},
		{"scaleIO", source.ScaleIO != nil},
		{"storageos", source.StorageOS != nil},
	} {
		if k.set {
			return k.name
		}
	}
	return "unknown"
}

// checkHostPath verifies, or makes, what a hostPath promises to be.
func checkHostPath(source *v1.HostPathVolumeSource) error {
	if slices.Contains(strings.Split(source.Path, "/"), "..") {
		return fmt.Errorf("path %q must not contain '..'", source.Path)
	}
	kind := v1.HostPathUnset
	if source.Type != nil {
		kind = *source.Type
	}
	switch kind {
	case v1.HostPathUnset:
		return nil
	case v1.HostPathDirectoryOrCreate:
		if err := os.MkdirAll(source.Path, 0o755); err != nil {
			return err
		}
	case v1.HostPathFileOrCreate:
		f, err := os.OpenFile(source.Path, os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			return err
		}
		_ = f.Close()
	}
	info, err := os.Stat(source.Path)
	fits, what := false, ""
	switch kind {
	case v1.HostPathDirectoryOrCreate, v1.HostPathDirectory:
		what, fits = "a directory", err == nil && info.IsDir()
	case v1.HostPathFileOrCreate, v1.HostPathFile:
		what, fits = "a file", err == nil && info.Mode().IsRegular()
	case v1.HostPathSocket:
		what, fits = "a socket file", err == nil && info.Mode()&os.ModeSocket != 0
	case v1.HostPathCharDev:
		what, fits = "a character device", err == nil && info.Mode()&os.ModeCharDevice != 0
	case v1.HostPathBlockDev:
		what, fits = "a block device", err == nil && info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0
	default:
		return fmt.Errorf("hostPath type %q is not known", kind)
	}
	if !fits {
		return fmt.Errorf("hostPath type check failed: %s is not %s", source.Path, what)
	}
	return nil
}

// unixMode turns mode bits as the API writes them into Go's.
func unixMode(bits int32) os.FileMode {
	mode := os.FileMode(bits) & os.ModePerm
	if bits&0o1000 != 0 {
		mode |= os.ModeSticky
	}
	if bits&0o2000 != 0 {
		mode |= os.ModeSetgid
	}
	if bits&0o4000 != 0 {
		mode |= os.ModeSetuid
	}
	return mode
}
