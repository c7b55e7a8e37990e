package kind

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// compatibleMinor is the version of Kubernetes, 1.x, that is compatible with what is served.
const compatibleMinor = 37

// deprecation is what users of the definition's version are told if k8s.io/api says that it is deprecated by now; "" if it is not.
func (d *Definition) deprecation(obj any) string {
	life, ok := obj.(interface{ APILifecycleDeprecated() (int, int) })
	if !ok {
		return ""
	}
	major, minor := life.APILifecycleDeprecated()
	if minor > compatibleMinor {
		return ""
	}
	text := fmt.Sprintf("%s %s is deprecated in v%d.%d+", d.APIVersion(), d.Kind, major, minor)
	if life, ok := obj.(interface{ APILifecycleRemoved() (int, int) }); ok {
		major, minor := life.APILifecycleRemoved()
		text += fmt.Sprintf(", unavailable in v%d.%d+", major, minor)
	}
	if life, ok := obj.(interface {
		APILifecycleReplacement() schema.GroupVersionKind
	}); ok {
		use := life.APILifecycleReplacement()
		text += fmt.Sprintf("; use %s %s", use.GroupVersion(), use.Kind)
	}
	return text
}
