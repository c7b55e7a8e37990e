package core

import (
	"path"

	"github.com/timonel/timonel/internal/api/check"
	"github.com/timonel/timonel/internal/api/podspec"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// validateVolumeSpec checks a volume; old is the one that it replaces, if any.
func validateVolumeSpec(v, old *corev1.PersistentVolume) field.ErrorList {
	s, at := &v.Spec, field.NewPath("spec")
	modes, capacity := at.Child("accessModes"), at.Child("capacity")
	var errs field.ErrorList
	if len(s.AccessModes) == 0 {
		errs = append(errs, field.Required(modes, ""))
	}
	errs = append(errs, podspec.ValidateAccessModes(s.AccessModes, modes)...)
	if len(s.Capacity) == 0 {
		errs = append(errs, field.Required(capacity, ""))
	}
	if _, ok := s.Capacity[corev1.ResourceStorage]; !ok || len(s.Capacity) > 1 {
		errs = append(errs, field.NotSupported(capacity, s.Capacity, []corev1.ResourceName{corev1.ResourceStorage}))
	}
	for _, name := range check.Sorted(s.Capacity) {
		q := s.Capacity[name]
		errs = append(errs, check.SaneQuantity(q, capacity.Key(string(name)))...)
		errs = append(errs, check.PositiveQuantity(q, capacity.Key(string(name)))...)
	}
	errs = append(errs, check.OneOf(s.PersistentVolumeReclaimPolicy, at.Child("persistentVolumeReclaimPolicy"),
		corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain)...)
	before := old != nil && old.Spec.NodeAffinity != nil && podspec.BadNodeValues(old.Spec.NodeAffinity.Required)
	errs = append(errs, validateVolumeAffinity(s.NodeAffinity, before, at.Child("nodeAffinity"))...)
	errs = append(errs, validateVolumeSource(v, at)...)
	if s.HostPath != nil && path.Clean(s.HostPath.Path) == "/" && s.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		errs = append(errs, field.Forbidden(at.Child("persistentVolumeReclaimPolicy"), "may not be 'recycle' for a hostPath mount of '/'"))
	}
	errs = append(errs, check.Form(s.StorageClassName, at.Child("storageClassName"), check.Subdomain)...)
	if s.VolumeMode != nil {
		errs = append(errs, check.OneOf(*s.VolumeMode, at.Child("volumeMode"), corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)...)
	}
	if name := s.VolumeAttributesClassName; name != nil {
		class := at.Child("volumeAttributesClassName")
		if *name == "" {
			errs = append(errs, field.Required(class, "an empty string is disallowed"))
		} else {
			errs = append(errs, check.Each(class, *name, check.Subdomain(*name))...)
		}
		if s.CSI == nil {
			errs = append(errs, field.Required(at.Child("csi"), "has to be specified when using volumeAttributesClassName"))
		}
	}
	return errs
}

func validateVolumeAffinity(a *corev1.VolumeNodeAffinity, anyValue bool, at *field.Path) field.ErrorList {
	switch {
	case a == nil:
		return nil
	case a.Required == nil:
		return field.ErrorList{field.Required(at.Child("required"), "must specify required node constraints")}
	}
	return podspec.ValidateNodeSelector(a.Required, anyValue, at.Child("required"))
}

// validateVolumeSource wants exactly one source and checks it.
func validateVolumeSource(v *corev1.PersistentVolume, at *field.Path) field.ErrorList {
	s := &v.Spec
	one := check.Choice{At: at, Of: "volume type", Misspelt: map[string]string{"cephfs": "cephFS"}} // Parity: only here
	one.See(s.HostPath != nil, "hostPath", func(at *field.Path) field.ErrorList { return podspec.ValidateHostPath(s.HostPath, at) })
	one.See(s.GCEPersistentDisk != nil, "gcePersistentDisk", func(at *field.Path) field.ErrorList { return podspec.ValidateGCEDisk(s.GCEPersistentDisk, at) })
	one.See(s.AWSElasticBlockStore != nil, "awsElasticBlockStore", func(at *field.Path) field.ErrorList {
		return podspec.ValidateAWSDisk(s.AWSElasticBlockStore, at)
	})
	one.See(s.Glusterfs != nil, "glusterfs", func(at *field.Path) field.ErrorList {
		errs := check.Required(s.Glusterfs.EndpointsName, at.Child("endpoints"))
		errs = append(errs, check.Required(s.Glusterfs.Path, at.Child("path"))...)
		if n := s.Glusterfs.EndpointsNamespace; n != nil {
			if *n == "" {
				errs = append(errs, field.Invalid(at.Child("endpointsNamespace"), *n, "if the endpointnamespace is set, it must be a valid namespace name"))
			} else {
				errs = append(errs, check.Each(at.Child("endpointsNamespace"), *n, check.Label(*n))...)
			}
		}
		return errs
	})
	one.See(s.Flocker != nil, "flocker", func(at *field.Path) field.ErrorList { return podspec.ValidateFlocker(s.Flocker, at) })
	one.See(s.NFS != nil, "nfs", func(at *field.Path) field.ErrorList { return podspec.ValidateNFS(s.NFS, at) })
	one.See(s.RBD != nil, "rbd", func(at *field.Path) field.ErrorList {
		return podspec.ValidateRBD(s.RBD.CephMonitors, s.RBD.RBDImage, at)
	})
	one.See(s.Quobyte != nil, "quobyte", func(at *field.Path) field.ErrorList { return podspec.ValidateQuobyte(s.Quobyte, at) })
	one.See(s.CephFS != nil, "cephfs", func(at *field.Path) field.ErrorList {
		if len(s.CephFS.Monitors) == 0 {
			return field.ErrorList{field.Required(at.Child("monitors"), "")}
		}
		return nil
	})
	one.See(s.ISCSI != nil, "iscsi", func(at *field.Path) field.ErrorList {
		return append(podspec.ValidateISCSIInterface(v.Name, s.ISCSI.TargetPortal, s.ISCSI.InitiatorName, at), validateVolumeISCSI(s.ISCSI, at)...)
	})
	one.See(s.Cinder != nil, "cinder", func(at *field.Path) field.ErrorList {
		return append(check.Required(s.Cinder.VolumeID, at.Child("volumeID")), secretReference(s.Cinder.SecretRef, at.Child("secretRef"))...)
	})
	one.See(s.FC != nil, "fc", func(at *field.Path) field.ErrorList { return podspec.ValidateFC(s.FC, at) })
	one.See(s.FlexVolume != nil, "flexVolume", func(at *field.Path) field.ErrorList {
		return podspec.ValidateFlexVolume(s.FlexVolume.Driver, s.FlexVolume.Options, at)
	})
	one.See(s.AzureFile != nil, "azureFile", func(at *field.Path) field.ErrorList { return validateAzureFile(s.AzureFile, at) })
	one.See(s.VsphereVolume != nil, "vsphereVolume", func(at *field.Path) field.ErrorList {
		return check.Required(s.VsphereVolume.VolumePath, at.Child("volumePath"))
	})
	one.See(s.PhotonPersistentDisk != nil, "photonPersistentDisk", func(at *field.Path) field.ErrorList {
		return check.Required(s.PhotonPersistentDisk.PdID, at.Child("pdID"))
	})
	one.See(s.PortworxVolume != nil, "portworxVolume", func(at *field.Path) field.ErrorList {
		return check.Required(s.PortworxVolume.VolumeID, at.Child("volumeID"))
	})
	one.See(s.AzureDisk != nil, "azureDisk", func(at *field.Path) field.ErrorList { return podspec.ValidateAzureDisk(s.AzureDisk, at) })
	one.See(s.ScaleIO != nil, "scaleIO", func(at *field.Path) field.ErrorList {
		return podspec.ValidateScaleIO(s.ScaleIO.Gateway, s.ScaleIO.System, s.ScaleIO.VolumeName, at)
	})
	one.See(s.Local != nil, "local", func(at *field.Path) field.ErrorList { return validateLocal(s, at) })
	one.See(s.StorageOS != nil, "storageos", func(at *field.Path) field.ErrorList {
		errs := podspec.ValidateStorageOS(s.StorageOS.VolumeName, s.StorageOS.VolumeNamespace, at)
		if r := s.StorageOS.SecretRef; r != nil {
			errs = append(errs, check.Required(r.Name, at.Child("secretRef", "name"))...)
			errs = append(errs, check.Required(r.Namespace, at.Child("secretRef", "namespace"))...)
		}
		return errs
	})
	one.See(s.CSI != nil, "csi", func(at *field.Path) field.ErrorList { return validateCSI(s.CSI, at) })
	return one.Required()
}

func validateVolumeISCSI(i *corev1.ISCSIPersistentVolumeSource, at *field.Path) field.ErrorList {
	name := ""
	if i.SecretRef != nil {
		name = i.SecretRef.Name
	}
	errs := podspec.ValidateISCSI(&podspec.ISCSI{Portal: i.TargetPortal, IQN: i.IQN, LUN: i.Lun, Initiator: i.InitiatorName,
		Authenticated: i.DiscoveryCHAPAuth || i.SessionCHAPAuth, Secret: i.SecretRef != nil, SecretName: name}, at)
	if i.SecretRef != nil && i.SecretRef.Name == "" {
		errs = append(errs, field.Required(at.Child("secretRef", "name"), ""))
	}
	return errs
}

func validateAzureFile(a *corev1.AzureFilePersistentVolumeSource, at *field.Path) field.ErrorList {
	errs := check.Required(a.SecretName, at.Child("secretName"))
	errs = append(errs, check.Required(a.ShareName, at.Child("shareName"))...)
	if n := a.SecretNamespace; n != nil && *n == "" {
		errs = append(errs, field.Required(at.Child("secretNamespace"), ""))
	}
	return errs
}

// validateLocal checks a directory of one node, which must be named. Parity: the paths differ from other sources'.
func validateLocal(s *corev1.PersistentVolumeSpec, at *field.Path) field.ErrorList {
	var errs field.ErrorList
	if s.Local.Path == "" {
		errs = append(errs, field.Required(at.Child("path"), ""))
	} else {
		errs = append(errs, podspec.NoBacksteps(s.Local.Path, at.Child("path"))...)
	}
	if s.NodeAffinity == nil {
		errs = append(errs, field.Required(field.NewPath("spec", "nodeAffinity"), "Local volume requires node affinity"))
	}
	return errs
}

func validateCSI(c *corev1.CSIPersistentVolumeSource, at *field.Path) field.ErrorList {
	errs := podspec.ValidateDriverName(c.Driver, at.Child("driver"))
	errs = append(errs, check.Required(c.VolumeHandle, at.Child("volumeHandle"))...)
	for _, r := range []struct {
		name string
		ref  *corev1.SecretReference
	}{
		{"controllerPublishSecretRef", c.ControllerPublishSecretRef}, {"controllerExpandSecretRef", c.ControllerExpandSecretRef},
		{"nodePublishSecretRef", c.NodePublishSecretRef}, {"nodeExpandSecretRef", c.NodeExpandSecretRef}, {"nodeStageSecretRef", c.NodeStageSecretRef},
	} {
		errs = append(errs, driverSecret(r.ref, at.Child(r.name))...)
	}
	return errs
}

// driverSecret wants both names of a Secret for a driver, in the form that names have.
func driverSecret(r *corev1.SecretReference, at *field.Path) field.ErrorList {
	if r == nil {
		return nil
	}
	return append(check.RequiredForm(r.Name, at.Child("name"), check.Subdomain), check.RequiredForm(r.Namespace, at.Child("namespace"), check.Label)...)
}

// secretReference wants both names of a Secret in any namespace.
func secretReference(r *corev1.SecretReference, at *field.Path) field.ErrorList {
	if r == nil {
		return nil
	}
	return append(check.Required(r.Name, at.Child("name")), check.Required(r.Namespace, at.Child("namespace"))...)
}
