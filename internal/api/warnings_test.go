package api

import (
	"maps"
	"slices"
	"testing"

	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/user"
	"sigs.k8s.io/yaml"
)

// TestDeprecatedVersions: whoever uses a version that is deprecated by now is told so, until when, and what to use.
func TestDeprecatedVersions(t *testing.T) {
	texts := map[string]string{}
	for _, d := range kind.NewCatalog(Groups(testOptions())...).All() {
		if d.Deprecated != "" {
			texts[d.APIVersion()+" "+d.Kind] = d.Deprecated
		}
	}
	for of, want := range map[string]string{
		"v1 Endpoints":                          "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
		"v1 ComponentStatus":                    "v1 ComponentStatus is deprecated in v1.19+",
		"resource.k8s.io/v1beta1 ResourceClaim": "resource.k8s.io/v1beta1 ResourceClaim is deprecated in v1.35+, unavailable in v1.38+",
		"resource.k8s.io/v1 ResourceClaim":      "",
		"storagemigration.k8s.io/v1beta1 StorageVersionMigration": "storagemigration.k8s.io/v1beta1 StorageVersionMigration is deprecated in v1.37+, unavailable in v1.40+; " +
			"use storagemigration.k8s.io/v1 StorageVersionMigration",
	} {
		if texts[of] != want {
			t.Errorf("%s: %q is said, want %q", of, texts[of], want)
		}
	}
	if len(texts) != 20 {
		t.Errorf("%d versions are deprecated: %q", len(texts), slices.Sorted(maps.Keys(texts)))
	}
}

// TestWarningsAreSaidOnce holds for every object in the archives, new and changed.
func TestWarningsAreSaidOnce(t *testing.T) {
	ctx := user.With(t.Context(), &user.Info{Name: "admin"})
	known, said := examples(t), 0
	for _, d := range kind.NewCatalog(Groups(testOptions())...).All() {
		if d.Warnings == nil || d.Convert != nil {
			continue
		}
		for _, text := range known[d.GroupVersionKind()] {
			obj := d.New()
			if err := yaml.Unmarshal(text, obj); err != nil {
				t.Fatal(err)
			}
			if d.Default != nil {
				d.Default(obj)
			}
			warnings := d.Warnings(ctx, obj, nil)
			said += len(warnings)
			slices.Sort(warnings)
			if once := slices.Compact(slices.Clone(warnings)); len(once) != len(warnings) {
				t.Errorf("%s %s: %q", d.Kind, obj.GetName(), warnings)
			}
		}
	}
	if said < 70 {
		t.Errorf("only %d warnings were said", said)
	}
}
