// Package show makes the texts in table cells that several kinds share.
package show

import (
	"fmt"
	"sort"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Texts for what is not there.
const (
	None    = "<none>"
	Unset   = "<unset>"
	Unknown = "<unknown>"
	Pending = "<pending>"
)

// Or returns s, or instead when s is empty.
func Or(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}

// Some joins the first max items with commas and counts the others; empty is shown when there are none.
func Some(items []string, max int, empty string) string {
	switch n := len(items); {
	case n == 0:
		return empty
	case n > max:
		return fmt.Sprintf("%s + %d more...", strings.Join(items[:max], ","), n-max)
	}
	return strings.Join(items, ",")
}

// Labels shows a label map, "a=b,c=d", or "<none>".
func Labels(m map[string]string) string {
	return Or(labels.FormatLabels(m), None)
}

// Containers returns the names and the images of containers, each joined by commas.
func Containers(containers []corev1.Container) (names, images string) {
	var n, i []string
	for _, c := range containers {
		n = append(n, c.Name)
		i = append(i, c.Image)
	}
	return strings.Join(n, ","), strings.Join(i, ",")
}

// AccessModes shows the access modes of a volume in short, each once: "RWO,ROX".
func AccessModes(modes []corev1.PersistentVolumeAccessMode) string {
	var shown []string
	for _, m := range []struct {
		mode  corev1.PersistentVolumeAccessMode
		short string
	}{
		{corev1.ReadWriteOnce, "RWO"}, {corev1.ReadOnlyMany, "ROX"}, {corev1.ReadWriteMany, "RWX"}, {corev1.ReadWriteOncePod, "RWOP"},
	} {
		for _, have := range modes {
			if have == m.mode {
				shown = append(shown, m.short)
				break
			}
		}
	}
	return strings.Join(shown, ",")
}

// Distinct returns the items sorted, each once.
func Distinct(items []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, s := range items {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	sort.Strings(out)
	return out
}

// The descriptions of the columns that show the containers of a template.
const (
	ContainersText = "Names of each container in the template."
	ImagesText     = "Images referenced by each container in the template."
)
