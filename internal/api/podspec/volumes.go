package podspec

import (
	"fmt"
	"net"
	"reflect"
	"regexp"
	"strings"

	"github.com/timonel/timonel/internal/api/check"
	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	volumeType   = "volume type"
	textFileMode = "must be a number between 0 and 0777 (octal), both inclusive"
	maxFileMode  = 0o777

	// minTokenSeconds is the shortest life of a service account token.
	minTokenSeconds = 600
	// maxTokenSeconds is the longest.
	maxTokenSeconds = 1 << 32

	// maxISCSIName is the longest <volume>:<portal>, which names the interface of an initiator.
	maxISCSIName  = 64
	textISCSIName = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified."
)

// ValidateISCSIInterface wants room for the names of a persistent volume and its portal.
func ValidateISCSIInterface(volume, portal string, initiator *string, at *field.Path) field.ErrorList {
	if initiator == nil || len(volume+":"+portal) <= maxISCSIName {
		return nil
	}
	return field.ErrorList{field.Invalid(at.Child("targetportal"), portal, textISCSIName)} // Parity: in lower case
}

// checkVolumes checks the volumes and remembers the valid ones by name for what refers to them.
func (c *checker) checkVolumes(path *field.Path) field.ErrorList {
	c.volumes = map[string]*corev1.Volume{}
	made := map[string]bool{} // claims that are made for the pod
	podName := ""
	if c.pod != nil && c.pod.Name != "" {
		podName = c.pod.Name
		for i := range c.spec.Volumes {
			if v := &c.spec.Volumes[i]; v.Ephemeral != nil {
				made[podName+"-"+v.Name] = true
			}
		}
	}
	var errs field.ErrorList
	for i := range c.spec.Volumes {
		v, at := &c.spec.Volumes[i], path.Index(i)
		bad := c.checkVolumeSource(v, at)
		bad = append(bad, check.RequiredForm(v.Name, at.Child("name"), check.Label)...)
		if c.volumes[v.Name] != nil {
			bad = append(bad, field.Duplicate(at.Child("name"), v.Name))
		}
		if errs = append(errs, bad...); bad == nil {
			c.volumes[v.Name] = v
		}
		if claim := v.PersistentVolumeClaim; claim != nil && made[claim.ClaimName] {
			errs = append(errs, field.Invalid(at.Child("persistentVolumeClaim", "claimName"), claim.ClaimName, "must not reference a PVC that gets created for an ephemeral volume"))
		}
	}
	for _, name := range c.Claims {
		c.volumes[name] = &corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{}}}
	}
	return errs
}

// Parity: these two are what kube-apiserver says.
var misspelt = map[string]string{"cephfs": "cephFS", "downwardAPI": "downwarAPI"}

func (c *checker) checkVolumeSource(v *corev1.Volume, at *field.Path) field.ErrorList {
	s := &check.Choice{At: at, Of: volumeType, Misspelt: misspelt}
	s.See(v.EmptyDir != nil, "emptyDir", func(at *field.Path) field.ErrorList {
		if l := v.EmptyDir.SizeLimit; l != nil && l.Sign() < 0 {
			return field.ErrorList{field.Forbidden(at.Child("sizeLimit"), "SizeLimit field must be a valid resource quantity")}
		}
		return nil
	})
	s.See(v.HostPath != nil, "hostPath", func(at *field.Path) field.ErrorList { return ValidateHostPath(v.HostPath, at) })
	s.See(v.GitRepo != nil, "gitRepo", func(at *field.Path) field.ErrorList {
		return append(check.Required(v.GitRepo.Repository, at.Child("repository")), descendingPath(v.GitRepo.Directory, at.Child("directory"))...)
	})
	s.See(v.GCEPersistentDisk != nil, "gcePersistentDisk", func(at *field.Path) field.ErrorList { return ValidateGCEDisk(v.GCEPersistentDisk, at) })
	s.See(v.AWSElasticBlockStore != nil, "awsElasticBlockStore", func(at *field.Path) field.ErrorList { return ValidateAWSDisk(v.AWSElasticBlockStore, at) })
	s.See(v.Secret != nil, "secret", func(at *field.Path) field.ErrorList {
		errs := check.Required(v.Secret.SecretName, at.Child("secretName"))
		return append(errs, checkFiles(v.Secret.DefaultMode, v.Secret.Items, at)...)
	})
	s.See(v.NFS != nil, "nfs", func(at *field.Path) field.ErrorList { return ValidateNFS(v.NFS, at) })
	s.See(v.ISCSI != nil, "iscsi", func(at *field.Path) field.ErrorList { return checkISCSI(v.ISCSI, at) })
	if i := v.ISCSI; i != nil && i.InitiatorName != nil && len(v.Name+":"+i.TargetPortal) > maxISCSIName {
		s.Errs = append(s.Errs, field.Invalid(at.Child("name"), v.Name, textISCSIName))
	}
	s.See(v.Glusterfs != nil, "glusterfs", func(at *field.Path) field.ErrorList {
		return append(check.Required(v.Glusterfs.EndpointsName, at.Child("endpoints")), check.Required(v.Glusterfs.Path, at.Child("path"))...)
	})
	s.See(v.Flocker != nil, "flocker", func(at *field.Path) field.ErrorList { return ValidateFlocker(v.Flocker, at) })
	s.See(v.PersistentVolumeClaim != nil, "persistentVolumeClaim", func(at *field.Path) field.ErrorList {
		return check.Required(v.PersistentVolumeClaim.ClaimName, at.Child("claimName"))
	})
	s.See(v.RBD != nil, "rbd", func(at *field.Path) field.ErrorList {
		return ValidateRBD(v.RBD.CephMonitors, v.RBD.RBDImage, at)
	})
	s.See(v.Cinder != nil, "cinder", func(at *field.Path) field.ErrorList {
		errs := check.Required(v.Cinder.VolumeID, at.Child("volumeID"))
		if v.Cinder.SecretRef != nil {
			errs = append(errs, check.Required(v.Cinder.SecretRef.Name, at.Child("secretRef", "name"))...)
		}
		return errs
	})
	s.See(v.CephFS != nil, "cephfs", func(at *field.Path) field.ErrorList {
		if len(v.CephFS.Monitors) == 0 {
			return field.ErrorList{field.Required(at.Child("monitors"), "")}
		}
		return nil
	})
	s.See(v.Quobyte != nil, "quobyte", func(at *field.Path) field.ErrorList { return ValidateQuobyte(v.Quobyte, at) })
	s.See(v.DownwardAPI != nil, "downwardAPI", func(at *field.Path) field.ErrorList {
		errs := checkMode(v.DownwardAPI.DefaultMode, at.Child("defaultMode"))
		for i := range v.DownwardAPI.Items {
			errs = append(errs, checkDownwardFile(&v.DownwardAPI.Items[i], at)...)
		}
		return errs
	})
	s.See(v.FC != nil, "fc", func(at *field.Path) field.ErrorList { return ValidateFC(v.FC, at) })
	s.See(v.FlexVolume != nil, "flexVolume", func(at *field.Path) field.ErrorList {
		return ValidateFlexVolume(v.FlexVolume.Driver, v.FlexVolume.Options, at)
	})
	s.See(v.ConfigMap != nil, "configMap", func(at *field.Path) field.ErrorList {
		errs := check.Required(v.ConfigMap.Name, at.Child("name"))
		return append(errs, checkFiles(v.ConfigMap.DefaultMode, v.ConfigMap.Items, at)...)
	})
	s.See(v.AzureFile != nil, "azureFile", func(at *field.Path) field.ErrorList {
		return append(check.Required(v.AzureFile.SecretName, at.Child("secretName")), check.Required(v.AzureFile.ShareName, at.Child("shareName"))...)
	})
	s.See(v.VsphereVolume != nil, "vsphereVolume", func(at *field.Path) field.ErrorList {
		return check.Required(v.VsphereVolume.VolumePath, at.Child("volumePath"))
	})
	s.See(v.PhotonPersistentDisk != nil, "photonPersistentDisk", func(at *field.Path) field.ErrorList {
		return check.Required(v.PhotonPersistentDisk.PdID, at.Child("pdID"))
	})
	s.See(v.PortworxVolume != nil, "portworxVolume", func(at *field.Path) field.ErrorList {
		return check.Required(v.PortworxVolume.VolumeID, at.Child("volumeID"))
	})
	s.See(v.AzureDisk != nil, "azureDisk", func(at *field.Path) field.ErrorList { return ValidateAzureDisk(v.AzureDisk, at) })
	s.See(v.StorageOS != nil, "storageos", func(at *field.Path) field.ErrorList {
		errs := ValidateStorageOS(v.StorageOS.VolumeName, v.StorageOS.VolumeNamespace, at)
		if r := v.StorageOS.SecretRef; r != nil {
			errs = append(errs, check.Required(r.Name, at.Child("secretRef", "name"))...)
		}
		return errs
	})
	s.See(v.Projected != nil, "projected", func(at *field.Path) field.ErrorList { return c.checkProjected(v.Projected, at) })
	s.See(v.ScaleIO != nil, "scaleIO", func(at *field.Path) field.ErrorList {
		return ValidateScaleIO(v.ScaleIO.Gateway, v.ScaleIO.System, v.ScaleIO.VolumeName, at)
	})
	s.See(v.CSI != nil, "csi", func(at *field.Path) field.ErrorList {
		errs := ValidateDriverName(v.CSI.Driver, at.Child("driver"))
		switch r := v.CSI.NodePublishSecretRef; {
		case r == nil:
		case r.Name == "":
			errs = append(errs, field.Required(at.Child("nodePublishSecretRef", "name"), ""))
		default: // Parity: the path is shorter
			errs = append(errs, check.Each(at.Child("name"), r.Name, check.Subdomain(r.Name))...)
		}
		return errs
	})
	s.See(v.Ephemeral != nil, "ephemeral", func(ephemeral *field.Path) field.ErrorList {
		return append(checkEphemeralVolume(v.Ephemeral, ephemeral), c.checkClaimName(v.Name, at.Child("name"))...)
	})
	s.See(v.Image != nil, "image", func(at *field.Path) field.ErrorList {
		var errs field.ErrorList
		if c.pod != nil {
			errs = append(errs, check.Required(v.Image.Reference, at.Child("reference"))...)
		}
		return append(errs, check.RequiredOneOf(v.Image.PullPolicy, at.Child("pullPolicy"), corev1.PullAlways, corev1.PullIfNotPresent, corev1.PullNever)...)
	})
	return s.Required()
}

func checkMode(mode *int32, at *field.Path) field.ErrorList {
	if mode != nil && (*mode < 0 || *mode > maxFileMode) {
		return field.ErrorList{field.Invalid(at, *mode, textFileMode)}
	}
	return nil
}

// checkFiles checks what becomes of the keys of a ConfigMap or Secret.
func checkFiles(mode *int32, items []corev1.KeyToPath, at *field.Path) field.ErrorList {
	errs := checkMode(mode, at.Child("defaultMode"))
	for i, item := range items {
		errs = append(errs, checkFile(&item, at.Child("items").Index(i))...)
	}
	return errs
}

func checkFile(item *corev1.KeyToPath, at *field.Path) field.ErrorList {
	errs := check.Required(item.Key, at.Child("key"))
	if item.Path == "" {
		errs = append(errs, field.Required(at.Child("path"), ""))
	} else {
		errs = append(errs, localPath(item.Path, at.Child("path"))...)
	}
	return append(errs, checkMode(item.Mode, at.Child("mode"))...)
}

// checkDownwardFile. Parity: at is the volume, the paths have no items[i].
func checkDownwardFile(f *corev1.DownwardAPIVolumeFile, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	errs = append(errs, check.Required(f.Path, at.Child("path"))...)
	if f.Path != "" {
		errs = append(errs, localPath(f.Path, at.Child("path"))...)
	}
	switch {
	case f.FieldRef != nil:
		errs = append(errs, checkFieldRef(f.FieldRef, fileFields, at.Child("fieldRef"))...)
		if f.ResourceFieldRef != nil {
			errs = append(errs, field.Invalid(at, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously"))
		}
	case f.ResourceFieldRef != nil:
		errs = append(errs, checkResourceRef(f.ResourceFieldRef, true, at.Child("resourceFieldRef"))...)
	default:
		errs = append(errs, field.Required(at, "one of fieldRef and resourceFieldRef is required"))
	}
	return append(errs, checkMode(f.Mode, at.Child("mode"))...)
}

// checkProjected checks a volume that joins several sources; their files must not meet.
func (c *checker) checkProjected(p *corev1.ProjectedVolumeSource, at *field.Path) field.ErrorList {
	errs := checkMode(p.DefaultMode, at.Child("defaultMode"))
	taken := map[string]bool{}
	claim := func(path, source string) {
		if path == "" {
			return
		}
		if taken[path] {
			text := "conflicting duplicate paths"
			errs = append(errs, field.Invalid(at, source, text))
		}
		taken[path] = true
	}
	for i := range p.Sources {
		s := &p.Sources[i]
		source := check.Choice{At: at.Child("sources").Index(i), Of: volumeType}
		source.See(s.Secret != nil, "secret", func(at *field.Path) field.ErrorList {
			e := check.Required(s.Secret.Name, at.Child("name"))
			e = append(e, checkFiles(nil, s.Secret.Items, at)...)
			for _, item := range s.Secret.Items {
				claim(item.Path, s.Secret.Name)
			}
			return e
		})
		source.See(s.ConfigMap != nil, "configMap", func(at *field.Path) field.ErrorList {
			e := check.Required(s.ConfigMap.Name, at.Child("name"))
			e = append(e, checkFiles(nil, s.ConfigMap.Items, at)...)
			for _, item := range s.ConfigMap.Items {
				claim(item.Path, s.ConfigMap.Name)
			}
			return e
		})
		source.See(s.DownwardAPI != nil, "downwardAPI", func(at *field.Path) field.ErrorList {
			var e field.ErrorList
			for j := range s.DownwardAPI.Items {
				e = append(e, checkDownwardFile(&s.DownwardAPI.Items[j], at)...)
				claim(s.DownwardAPI.Items[j].Path, s.DownwardAPI.Items[j].Path)
			}
			return e
		})
		source.See(s.ServiceAccountToken != nil, "serviceAccountToken", func(at *field.Path) field.ErrorList {
			claim(s.ServiceAccountToken.Path, s.ServiceAccountToken.Path)
			return c.checkTokenSource(s.ServiceAccountToken, at)
		})
		source.See(s.ClusterTrustBundle != nil, "clusterTrustBundle", func(at *field.Path) field.ErrorList {
			claim(s.ClusterTrustBundle.Path, s.ClusterTrustBundle.Path)
			return checkBundleSource(s.ClusterTrustBundle, at)
		})
		source.See(s.PodCertificate != nil, "podCertificate", func(at *field.Path) field.ErrorList {
			e := checkCertificateSource(s.PodCertificate, at)
			for _, f := range []string{s.PodCertificate.CredentialBundlePath, s.PodCertificate.KeyPath, s.PodCertificate.CertificateChainPath} {
				claim(f, f)
			}
			return e
		})
		errs = append(errs, source.Errs...)
	}
	return errs
}

func (c *checker) checkTokenSource(t *corev1.ServiceAccountTokenProjection, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	seconds := at.Child("expirationSeconds")
	if s := t.ExpirationSeconds; s != nil {
		if *s < minTokenSeconds {
			errs = append(errs, field.Invalid(seconds, *s, "may not specify a duration less than 10 minutes"))
		}
		if *s > maxTokenSeconds {
			errs = append(errs, field.Invalid(seconds, *s, "may not specify a duration larger than 2^32 seconds"))
		}
	}
	errs = append(errs, check.Required(t.Path, at.Child("path"))...)
	if t.Path != "" && !(c.before != nil && hasTokenPath(c.before, t.Path)) {
		errs = append(errs, localPath(t.Path, at.Child("path"))...)
	}
	return errs
}

func checkBundleSource(b *corev1.ClusterTrustBundleProjection, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	signer, name := b.SignerName != nil, b.Name != nil
	switch {
	case signer && name:
		errs = append(errs, field.Invalid(at, check.GoNames(b), "only one of name and signerName may be used"))
	case !signer && !name:
		errs = append(errs, field.Required(at, "either name or signerName must be specified"))
	case signer:
		if *b.SignerName == "" {
			errs = append(errs, field.Required(at.Child("signerName"), "must be non-empty"))
		}
		errs = append(errs, check.Selector(b.LabelSelector, nil, at.Child("labelSelector"))...)
	default:
		if b.LabelSelector != nil {
			errs = append(errs, field.Invalid(at.Child("labelSelector"), b.LabelSelector, "labelSelector must be unset if name is specified"))
		}
		if *b.Name == "" {
			errs = append(errs, field.Required(at.Child("name"), "must be non-empty"))
		}
	}
	errs = append(errs, check.Required(b.Path, at.Child("path"))...)
	if b.Path != "" {
		errs = append(errs, localPath(b.Path, at.Child("path"))...)
	}
	return errs
}

// certificateKeyTypes are the keys that a node can make for a pod (KEP-4317).
var certificateKeyTypes = []string{"RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"}

func checkCertificateSource(p *corev1.PodCertificateProjection, at *field.Path) field.ErrorList {
	errs := check.Required(p.SignerName, at.Child("signerName"))
	errs = append(errs, check.OneOf(p.KeyType, at.Child("keyType"), certificateKeyTypes...)...)
	if s := p.MaxExpirationSeconds; s != nil && *s < 3600 {
		errs = append(errs, field.Invalid(at.Child("maxExpirationSeconds"), *s, "if provided, maxExpirationSeconds must be >= 3600"))
	}
	paths := 0
	for _, f := range []struct{ name, path string }{
		{"credentialBundlePath", p.CredentialBundlePath}, {"keyPath", p.KeyPath}, {"certificateChainPath", p.CertificateChainPath},
	} {
		if f.path != "" {
			paths++
			errs = append(errs, localPath(f.path, at.Child(f.name))...)
		}
	}
	if paths == 0 {
		errs = append(errs, field.Required(at, "specify at least one of credentialBundlePath, keyPath, and certificateChainPath"))
	}
	return errs
}

func checkEphemeralVolume(e *corev1.EphemeralVolumeSource, at *field.Path) field.ErrorList {
	template := at.Child("volumeClaimTemplate")
	if e.VolumeClaimTemplate == nil {
		return field.ErrorList{field.Required(template, "")}
	}
	t, metadata := e.VolumeClaimTemplate, template.Child("metadata")
	errs := apivalidation.ValidateAnnotations(t.Annotations, metadata.Child("annotations"))
	errs = append(errs, check.Labels(t.Labels, metadata.Child("labels"))...)
	for _, name := range otherMetadata(&t.ObjectMeta) {
		errs = append(errs, field.Forbidden(metadata.Child(name), "cannot be set"))
	}
	return append(errs, ValidateClaimSpec(&t.Spec, nil, template.Child("spec"))...)
}

// otherMetadata names what is set besides labels and annotations, which are all that a claim takes over from its template.
func otherMetadata(m *metav1.ObjectMeta) []string {
	var names []string
	v := reflect.ValueOf(*m)
	for i := range v.NumField() {
		name := v.Type().Field(i).Name
		if name != "Labels" && name != "Annotations" && !v.Field(i).IsZero() {
			names = append(names, strings.ToLower(name[:1])+name[1:])
		}
	}
	return names
}

// checkClaimName wants that the claim which is made for a volume of the pod can have its name.
func (c *checker) checkClaimName(volume string, at *field.Path) field.ErrorList {
	if c.pod == nil || c.pod.Name == "" || volume == "" {
		return nil
	}
	name := c.pod.Name + "-" + volume
	var errs field.ErrorList
	for _, m := range check.Subdomain(name) {
		errs = append(errs, field.Invalid(at, volume, fmt.Sprintf("PVC name %q: %v", name, m)))
	}
	return errs
}

// ValidateDriverName wants the name of a CSI driver.
func ValidateDriverName(name string, at *field.Path) field.ErrorList {
	const max = 63
	var errs field.ErrorList
	if name == "" {
		errs = append(errs, field.Required(at, ""))
	}
	if len(name) > max {
		errs = append(errs, field.TooLong(at, name, max))
	}
	for _, m := range validation.IsDNS1123Subdomain(strings.ToLower(name)) {
		errs = append(errs, field.Invalid(at, name, m))
	}
	return errs
}

// ValidateHostPath checks a path of the host.
func ValidateHostPath(h *corev1.HostPathVolumeSource, at *field.Path) field.ErrorList {
	if h.Path == "" {
		return field.ErrorList{field.Required(at.Child("path"), "")}
	}
	errs := noBacksteps(h.Path, at.Child("path"))
	if h.Type != nil {
		errs = append(errs, check.OneOf(*h.Type, at.Child("type"), corev1.HostPathUnset, corev1.HostPathBlockDev, corev1.HostPathCharDev,
			corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate, corev1.HostPathFile, corev1.HostPathFileOrCreate, corev1.HostPathSocket)...)
	}
	return errs
}

// ValidateNFS checks an exported directory.
func ValidateNFS(n *corev1.NFSVolumeSource, at *field.Path) field.ErrorList {
	errs := check.Required(n.Server, at.Child("server"))
	errs = append(errs, check.Required(n.Path, at.Child("path"))...)
	if n.Path != "" && !strings.HasPrefix(n.Path, "/") {
		errs = append(errs, field.Invalid(at.Child("path"), n.Path, "must be an absolute path"))
	}
	return errs
}

// ValidateGCEDisk checks a disk of Google Compute Engine.
func ValidateGCEDisk(d *corev1.GCEPersistentDiskVolumeSource, at *field.Path) field.ErrorList {
	errs := check.Required(d.PDName, at.Child("pdName"))
	return append(errs, partition(d.Partition, at.Child("partition"))...)
}

// ValidateAWSDisk checks an elastic block store of Amazon.
func ValidateAWSDisk(d *corev1.AWSElasticBlockStoreVolumeSource, at *field.Path) field.ErrorList {
	errs := check.Required(d.VolumeID, at.Child("volumeID"))
	return append(errs, partition(d.Partition, at.Child("partition"))...)
}

func partition(n int32, at *field.Path) field.ErrorList {
	return check.Range(n, 0, 255, at)
}

func checkISCSI(i *corev1.ISCSIVolumeSource, at *field.Path) field.ErrorList {
	ref := ""
	if i.SecretRef != nil {
		ref = i.SecretRef.Name
	}
	return ValidateISCSI(&ISCSI{Portal: i.TargetPortal, IQN: i.IQN, LUN: i.Lun, Initiator: i.InitiatorName,
		Authenticated: i.DiscoveryCHAPAuth || i.SessionCHAPAuth, Secret: i.SecretRef != nil, SecretName: ref}, at)
}

// ISCSI is what the two kinds of iSCSI volume have in common.
type ISCSI struct {
	Portal, IQN           string
	LUN                   int32
	Initiator             *string
	Authenticated, Secret bool
	SecretName            string
}

// ValidateISCSI checks an iSCSI volume (RFC 3720, "iSCSI Names").
func ValidateISCSI(i *ISCSI, at *field.Path) field.ErrorList {
	errs := check.Required(i.Portal, at.Child("targetPortal"))
	errs = append(errs, check.Required(i.IQN, at.Child("iqn"))...)
	if i.IQN != "" {
		errs = append(errs, ValidateISCSIName(i.IQN, at.Child("iqn"))...)
	}
	errs = append(errs, check.Range(i.LUN, 0, 255, at.Child("lun"))...)
	if i.Authenticated && !i.Secret {
		errs = append(errs, field.Required(at.Child("secretRef"), ""))
	}
	if i.Initiator != nil {
		errs = append(errs, ValidateISCSIName(*i.Initiator, at.Child("initiatorname"))...)
	}
	return errs
}

// The names of initiators and targets begin with their kind (RFC 3721, "Naming and Discovery").
var iscsiNames = []struct {
	kind string
	form *regexp.Regexp
}{
	{"iqn", regexp.MustCompile(`iqn\.\d{4}-\d{2}\.[[:alnum:].-]+:[^,;*&$|\s]+$`)},
	{"eui", regexp.MustCompile(`^eui.[[:alnum:]]{16}$`)},
	{"naa", regexp.MustCompile(`^naa.[[:alnum:]]{32}$`)},
}

// ValidateISCSIName wants a name as RFC 3720 and its successors define them.
func ValidateISCSIName(name string, at *field.Path) field.ErrorList {
	for _, n := range iscsiNames {
		switch {
		case !strings.HasPrefix(name, n.kind):
		case n.form.MatchString(name):
			return nil
		default:
			return field.ErrorList{field.Invalid(at, name, "must be valid format")}
		}
	}
	return field.ErrorList{field.Invalid(at, name, "must be valid format starting with iqn, eui, or naa")}
}

// ValidateFlexVolume checks a volume of a driver that is a program on the node.
func ValidateFlexVolume(driver string, options map[string]string, at *field.Path) field.ErrorList {
	errs := check.Required(driver, at.Child("driver"))
	for _, key := range check.Sorted(options) {
		domain, _, _ := strings.Cut(key, "/")
		domain = "." + strings.ToLower(domain)
		if strings.HasSuffix(domain, ".kubernetes.io") || strings.HasSuffix(domain, ".k8s.io") {
			errs = append(errs, field.Invalid(at.Child("options").Key(key), key, "kubernetes.io and k8s.io namespaces are reserved"))
		}
	}
	return errs
}

// ValidateFC checks a Fibre Channel volume.
func ValidateFC(f *corev1.FCVolumeSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case len(f.TargetWWNs) < 1 && len(f.WWIDs) < 1:
		errs = append(errs, field.Required(at.Child("targetWWNs"), "must specify either targetWWNs or wwids, but not both"))
	case len(f.TargetWWNs) != 0 && len(f.WWIDs) != 0:
		errs = append(errs, field.Invalid(at.Child("targetWWNs"), f.TargetWWNs, "targetWWNs and wwids can not be specified simultaneously"))
	}
	if len(f.TargetWWNs) > 0 {
		if f.Lun == nil {
			errs = append(errs, field.Required(at.Child("lun"), "lun is required if targetWWNs is specified"))
		} else {
			errs = append(errs, check.Range(*f.Lun, 0, 255, at.Child("lun"))...)
		}
	}
	return errs
}

// ValidateFlocker checks a Flocker dataset.
func ValidateFlocker(f *corev1.FlockerVolumeSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	switch {
	case f.DatasetName == "" && f.DatasetUUID == "":
		errs = append(errs, field.Required(at, "one of datasetName and datasetUUID is required"))
	case f.DatasetName != "" && f.DatasetUUID != "":
		errs = append(errs, field.Invalid(at, "resource", "datasetName and datasetUUID can not be specified simultaneously"))
	}
	if strings.Contains(f.DatasetName, "/") {
		errs = append(errs, field.Invalid(at.Child("datasetName"), f.DatasetName, "must not contain '/'"))
	}
	return errs
}

// ValidateRBD checks a Ceph block device.
func ValidateRBD(monitors []string, image string, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if len(monitors) == 0 {
		errs = append(errs, field.Required(at.Child("monitors"), ""))
	}
	return append(errs, check.Required(image, at.Child("image"))...)
}

// ValidateQuobyte checks a Quobyte volume.
func ValidateQuobyte(q *corev1.QuobyteVolumeSource, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	registry := at.Child("registry")
	switch {
	case q.Registry == "":
		errs = append(errs, field.Required(registry, "must be a host:port pair or multiple pairs separated by commas"))
	case len(q.Tenant) >= 65:
		errs = append(errs, field.Required(at.Child("tenant"), "must be a UUID and may not exceed a length of 64 characters"))
	default:
		for _, pair := range strings.Split(q.Registry, ",") {
			if _, _, err := net.SplitHostPort(pair); err != nil {
				errs = append(errs, field.Invalid(registry, q.Registry, "must be a host:port pair or multiple pairs separated by commas"))
			}
		}
	}
	return append(errs, check.Required(q.Volume, at.Child("volume"))...)
}

// ValidateAzureDisk checks a disk of Azure.
func ValidateAzureDisk(d *corev1.AzureDiskVolumeSource, at *field.Path) field.ErrorList {
	errs := check.Required(d.DiskName, at.Child("diskName"))
	errs = append(errs, check.Required(d.DataDiskURI, at.Child("diskURI"))...)
	if d.CachingMode != nil {
		errs = append(errs, check.OneOf(*d.CachingMode, at.Child("cachingMode"), corev1.AzureDataDiskCachingNone, corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite)...)
	}
	if d.Kind != nil {
		errs = append(errs, check.OneOf(*d.Kind, at.Child("kind"), corev1.AzureDedicatedBlobDisk, corev1.AzureManagedDisk, corev1.AzureSharedBlobDisk)...)
		managed := *d.Kind == corev1.AzureManagedDisk
		if managed && !strings.HasPrefix(d.DataDiskURI, "/subscriptions/") {
			errs = append(errs, field.NotSupported(at.Child("diskURI"), d.DataDiskURI, []string{"/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"}))
		}
		if !managed && !strings.HasPrefix(d.DataDiskURI, "https://") {
			errs = append(errs, field.NotSupported(at.Child("diskURI"), d.DataDiskURI, []string{"https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"}))
		}
	}
	return errs
}

// ValidateStorageOS checks a StorageOS volume.
func ValidateStorageOS(name, namespace string, at *field.Path) field.ErrorList {
	errs := check.RequiredForm(name, at.Child("volumeName"), check.Label)
	return append(errs, check.Form(namespace, at.Child("volumeNamespace"), check.Label)...)
}

// ValidateScaleIO checks a ScaleIO volume.
func ValidateScaleIO(gateway, system, volume string, at *field.Path) field.ErrorList {
	errs := check.Required(gateway, at.Child("gateway"))
	errs = append(errs, check.Required(system, at.Child("system"))...)
	return append(errs, check.Required(volume, at.Child("volumeName"))...)
}
