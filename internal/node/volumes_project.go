package node

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
)

// volumeFile is one file of a projected volume.
type volumeFile struct {
	data  []byte
	mode  int32
	owner *int64 // user id; nil leaves root
}

// projection collects the files of ConfigMaps, Secrets, the downward API and
// service account tokens for one volume.
type projection struct {
	pod     *v1.Pod
	facts   podFacts
	objects objectReader
	tokens  *tokenSource
	mode    int32

	files   map[string]volumeFile
	renewAt time.Time // of the token that wants to be renewed first
}

func (p *projection) collect(ctx context.Context, sources []v1.VolumeProjection) (map[string]volumeFile, error) {
	p.files = map[string]volumeFile{}
	var failed []error
	for i := range sources {
		source := &sources[i]
		var err error
		switch {
		case source.ConfigMap != nil:
			err = p.addConfigMap(source.ConfigMap)
		case source.Secret != nil:
			err = p.addSecret(source.Secret)
		case source.DownwardAPI != nil:
			err = p.addDownward(source.DownwardAPI)
		case source.ServiceAccountToken != nil:
			err = p.addToken(ctx, source.ServiceAccountToken)
		case source.ClusterTrustBundle != nil:
			err = unsupportedVolume{"projected clusterTrustBundle"}
		case source.PodCertificate != nil:
			err = unsupportedVolume{"projected podCertificate"}
		}
		if err != nil {
			failed = append(failed, err)
		}
	}
	return p.files, errors.Join(failed...)
}

func (p *projection) add(name string, file volumeFile) error {
	clean := path.Clean(name)
	if name == "" || path.IsAbs(name) || clean == "." || strings.HasPrefix(clean, "..") {
		return fmt.Errorf("invalid path %q", name)
	}
	p.files[clean] = file
	return nil
}

func (p *projection) addConfigMap(source *v1.ConfigMapProjection) error {
	configMap, err := p.objects.configMap(p.pod.Namespace, source.Name)
	if isMissing(err) && isTrue(source.Optional) {
		return nil
	}
	if err != nil {
		return err
	}
	data := make(map[string][]byte, len(configMap.Data)+len(configMap.BinaryData))
	for k, v := range configMap.Data {
		data[k] = []byte(v)
	}
	for k, v := range configMap.BinaryData {
		data[k] = v
	}
	return p.addKeys(data, source.Items, isTrue(source.Optional), "config")
}

func (p *projection) addSecret(source *v1.SecretProjection) error {
	secret, err := p.objects.secret(p.pod.Namespace, source.Name)
	if isMissing(err) && isTrue(source.Optional) {
		return nil
	}
	if err != nil {
		return err
	}
	return p.addKeys(secret.Data, source.Items, isTrue(source.Optional), "secret")
}

func (p *projection) addKeys(data map[string][]byte, items []v1.KeyToPath, optional bool, what string) error {
	if len(items) == 0 {
		for key, value := range data {
			if err := p.add(key, volumeFile{data: value, mode: p.mode}); err != nil {
				return err
			}
		}
		return nil
	}
	for _, item := range items {
		value, ok := data[item.Key]
		if !ok {
			if optional {
				continue
			}
			return fmt.Errorf("references non-existent %s key: %s", what, item.Key)
		}
		if err := p.add(item.Path, volumeFile{data: value, mode: modeOr(item.Mode, p.mode)}); err != nil {
			return err
		}
	}
	return nil
}

func (p *projection) addDownward(source *v1.DownwardAPIProjection) error {
	for i := range source.Items {
		item := &source.Items[i]
		var value string
		ok := false
		switch {
		case item.FieldRef != nil:
			value, ok = fieldValue(p.pod, item.FieldRef.FieldPath, p.facts)
			if !ok {
				return fmt.Errorf("unsupported fieldPath: %s", item.FieldRef.FieldPath)
			}
		case item.ResourceFieldRef != nil:
			_, c := findContainer(p.pod, item.ResourceFieldRef.ContainerName)
			if c == nil {
				return fmt.Errorf("container %s not found", item.ResourceFieldRef.ContainerName)
			}
			value, ok = resourceField(c, item.ResourceFieldRef, p.facts.allocatable)
			if !ok {
				return fmt.Errorf("unsupported container resource: %s", item.ResourceFieldRef.Resource)
			}
		}
		if err := p.add(item.Path, volumeFile{data: []byte(value), mode: modeOr(item.Mode, p.mode), owner: item.User}); err != nil {
			return err
		}
	}
	return nil
}

// addToken adds a service account token, readable by the pod's user alone
// where the pod has one: by its fsGroup, or by the one user all containers run
// as.
func (p *projection) addToken(ctx context.Context, source *v1.ServiceAccountTokenProjection) error {
	value, renewAt, err := p.tokens.get(ctx, p.pod, source)
	if err != nil {
		return err
	}
	if p.renewAt.IsZero() || renewAt.Before(p.renewAt) {
		p.renewAt = renewAt
	}
	file := volumeFile{data: []byte(value), mode: p.mode, owner: source.User}
	if file.owner == nil {
		file.owner = commonUser(p.pod)
	}
	if fsGroupOf(p.pod) != nil || file.owner != nil {
		file.mode = 0o600
	}
	return p.add(source.Path, file)
}

// commonUser is the user all containers of a pod run as, where they say so.
func commonUser(pod *v1.Pod) *int64 {
	var common *int64
	same, seen := true, false
	everyContainer(pod, func(_ kindOf, c *v1.Container) {
		user := runAsUser(pod, c)
		if user == nil || (seen && *user != *common) {
			same = false
			return
		}
		common, seen = user, true
	})
	if !same || !seen {
		return nil
	}
	return common
}

func modeOr(mode *int32, otherwise int32) int32 {
	if mode != nil {
		return *mode
	}
	return otherwise
}
