package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// file is a path that a volume makes, and what it comes from where that is not the volume as a whole.
type file struct{ path, source string }

func (f file) String() string {
	if f.source == "" {
		return fmt.Sprintf("%q", f.path)
	}
	return fmt.Sprintf("%q (%s)", f.path, f.source)
}

// overlaps tells of volumes that make a file twice, or a file where they make a directory.
func (w *warner) overlaps() {
	for i := range w.spec.Volumes {
		v := &w.spec.Volumes[i]
		if c := v.ConfigMap; c != nil {
			w.overlapping(v.Name, fmt.Sprintf("ConfigMap %q", c.Name), keyFiles(c.Items, ""))
		}
		if s := v.Secret; s != nil {
			w.overlapping(v.Name, fmt.Sprintf("Secret %q", s.SecretName), keyFiles(s.Items, ""))
		}
		if d := v.DownwardAPI; d != nil {
			w.overlapping(v.Name, "DownwardAPI", fieldFiles(d.Items, ""))
		}
		if p := v.Projected; p != nil {
			w.projected(v.Name, p)
		}
	}
}

func (w *warner) projected(name string, p *corev1.ProjectedVolumeSource) {
	none := func() { w.say("volume %q (Projected) has no sources provided", name) }
	if len(p.Sources) == 0 {
		none()
	}
	var files []file
	for i := range p.Sources {
		if p.Sources[i] == (corev1.VolumeProjection{}) {
			none()
			continue
		}
		files = append(files, projectedFiles(&p.Sources[i])...)
	}
	w.overlapping(name, "Projected", files)
}

func projectedFiles(s *corev1.VolumeProjection) []file {
	switch {
	case s.ConfigMap != nil:
		return keyFiles(s.ConfigMap.Items, fmt.Sprintf("ConfigMap %q", s.ConfigMap.Name))
	case s.Secret != nil:
		return keyFiles(s.Secret.Items, fmt.Sprintf("Secret %q", s.Secret.Name))
	case s.DownwardAPI != nil:
		return fieldFiles(s.DownwardAPI.Items, "DownwardAPI")
	case s.ServiceAccountToken != nil:
		return []file{{s.ServiceAccountToken.Path, "ServiceAccountToken"}}
	case s.ClusterTrustBundle != nil:
		b := s.ClusterTrustBundle
		return []file{{b.Path, fmt.Sprintf("ClusterTrustBundle %q", ptr.Deref(b.Name, ptr.Deref(b.SignerName, "")))}}
	case s.PodCertificate != nil:
		c, source := s.PodCertificate, "PodCertificate"
		return []file{{c.CredentialBundlePath, source}, {c.KeyPath, source}, {c.CertificateChainPath, source}}
	}
	return nil
}

func keyFiles(items []corev1.KeyToPath, source string) []file {
	var files []file
	for _, item := range items {
		files = append(files, file{item.Path, source})
	}
	return files
}

func fieldFiles(items []corev1.DownwardAPIVolumeFile, source string) []file {
	var files []file
	for _, item := range items {
		files = append(files, file{item.Path, source})
	}
	return files
}

// overlapping says which of the files of a volume lie at or below one another.
func (w *warner) overlapping(volume, what string, files []file) {
	for i := range files {
		files[i].path = strings.TrimRight(files[i].path, "/")
		for _, earlier := range files[:i] {
			a, b := files[i].path, earlier.path
			if a != "" && b != "" && (strings.HasPrefix(a+"/", b+"/") || strings.HasPrefix(b+"/", a+"/")) {
				w.say("volume %q (%s): overlapping paths: %s with %s", volume, what, files[i], earlier)
			}
		}
	}
}
