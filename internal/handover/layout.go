package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/timonel/timonel/internal/api/core"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// resources are definitions by the prefix under which their objects are stored.
type resources map[string]*kind.Definition

// of returns the prefix and the definition that a key belongs to. Prefixes have one part ("pods") or two ("services/specs").
func (r resources) of(key string) (prefix string, d *kind.Definition) {
	first := strings.IndexByte(key, '/')
	if first < 0 {
		return "", nil
	}
	if second := strings.IndexByte(key[first+1:], '/'); second >= 0 {
		if d := r[key[:first+1+second]]; d != nil {
			return key[:first+1+second], d
		}
	}
	return key[:first], r[key[:first]]
}

// serverLeases are stored by servers for each other. They are not among the definitions of kinds.
func serverLeases() []*kind.Definition {
	return []*kind.Definition{core.ServerLease(core.MasterLeases), core.ServerLease(core.PeerServerLeases)}
}

// customResources is where the definitions of custom resources are stored.
const customResources = "apiextensions.k8s.io/customresourcedefinitions/"

func layout(ctx context.Context, store storage.Store, prefix string, definitions []*kind.Definition) (resources, error) {
	r := resources{}
	for _, d := range kind.NewCatalog(slices.Concat(definitions, serverLeases())...).Stored() {
		r[d.Stored.Prefix] = d
	}
	page, err := store.List(ctx, prefix+"/"+customResources, storage.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("read the definitions of custom resources: %w", err)
	}
	for _, e := range page.Entries {
		d, err := custom(e.Value)
		if err != nil {
			continue // a finding of its own, in its place
		}
		r[d.Stored.Prefix] = d
	}
	return r, nil
}

var errNoStorageVersion = errors.New("no version is the stored one")

// custom is as much of a custom resource's definition as its stored form depends on.
func custom(value []byte) (*kind.Definition, error) {
	var crd struct {
		Spec struct {
			Group    string
			Scope    string
			Names    struct{ Plural, Kind string }
			Version  string
			Versions []struct {
				Name    string
				Storage bool
			}
		}
	}
	if err := json.Unmarshal(value, &crd); err != nil {
		return nil, err
	}
	s := crd.Spec
	d := &kind.Definition{
		Group: s.Group, Version: s.Version, Kind: s.Names.Kind, Plural: s.Names.Plural, Scope: kind.Cluster,
		New:    func() object.Object { return &unstructured.Unstructured{} },
		Stored: kind.Stored{Prefix: s.Group + "/" + s.Names.Plural, Encoding: kind.JSON},
	}
	if s.Scope == "Namespaced" {
		d.Scope = kind.Namespaced
	}
	for _, v := range s.Versions {
		if v.Storage {
			d.Version = v.Name
		}
	}
	if d.Version == "" || d.Group == "" || d.Plural == "" {
		return nil, errNoStorageVersion
	}
	d.Complete()
	return d, nil
}
