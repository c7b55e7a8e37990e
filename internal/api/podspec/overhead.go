package podspec

import (
	"github.com/timonel/timonel/internal/api/check"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidateOverhead checks the resources that a runtime takes beside the containers. Parity: the
// answer calls them limits, because they are checked as the limits of a container are.
func ValidateOverhead(overhead corev1.ResourceList, path *field.Path) field.ErrorList {
	return check.ContainerResources(&corev1.ResourceRequirements{Limits: overhead}, path, nil, false)
}
