package server

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"time"

	"github.com/timonel/timonel/internal/api/apiserverinternal"
	"github.com/timonel/timonel/internal/bootstrap"
	"github.com/timonel/timonel/internal/httpapi"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	internalv1alpha1 "k8s.io/api/apiserverinternal/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// The API servers that share a store say in StorageVersions in which version each of them stores each resource (KEP-2339, feature
// gate StorageVersionAPI), so that nobody migrates what another server writes in the old version again. A server says so before it
// writes for anybody. That those of servers that are gone are removed is seen to by the controllers.

var storageVersions = schema.GroupResource{Group: internalv1alpha1.GroupName, Resource: "storageversions"}

// publishesVersions reports whether there are StorageVersions.
func (s *Server) publishesVersions() bool {
	return s.gates.Enabled("StorageVersionAPI") && s.Catalog.Catalog().Hub(storageVersions) != nil
}

// publishVersions writes in which versions this server stores the built-in resources. Its identity Lease must be there: without
// one it would be taken for a server that is gone.
func (s *Server) publishVersions(ctx context.Context) error {
	ours := versionsOf(s.Catalog.Catalog().All(), s.identity.Name())
	objects := s.Engine.Objects()
	published, err := objects.List(ctx, storageVersions, "")
	if err != nil {
		return fmt.Errorf("list storage versions: %w", err)
	}
	have := map[string]*internalv1alpha1.StorageVersionStatus{}
	for _, obj := range published {
		have[obj.GetName()] = &obj.(*internalv1alpha1.StorageVersion).Status
	}
	var missing []kind.Seed
	for name, version := range ours {
		if have[name] == nil {
			v := &internalv1alpha1.StorageVersion{ObjectMeta: metav1.ObjectMeta{Name: name}}
			putVersion(&v.Status, version)
			missing = append(missing, kind.Seed{Resource: storageVersions, Object: v})
		}
	}
	if batch, ok := objects.(bootstrap.Batch); ok && len(missing) > 0 {
		if err := batch.CreateAll(ctx, missing); err != nil {
			return fmt.Errorf("create storage versions: %w", err)
		}
	}
	for name, version := range ours { // those that were there, or that another server has just created
		if have[name] != nil && slices.ContainsFunc(have[name].StorageVersions, func(v internalv1alpha1.ServerStorageVersion) bool { return reflect.DeepEqual(v, version) }) {
			continue
		}
		_, err := objects.Change(ctx, storageVersions, "", name, func(obj object.Object) error {
			putVersion(&obj.(*internalv1alpha1.StorageVersion).Status, version)
			return nil
		}, kind.ChangeOptions{Subresource: "status"})
		if err != nil {
			return fmt.Errorf("publish storage version %s: %w", name, err)
		}
	}
	return nil
}

// putVersion makes a server's entry what it is now.
func putVersion(s *internalv1alpha1.StorageVersionStatus, version internalv1alpha1.ServerStorageVersion) {
	at := slices.IndexFunc(s.StorageVersions, func(v internalv1alpha1.ServerStorageVersion) bool { return v.APIServerID == version.APIServerID })
	if at < 0 {
		s.StorageVersions = append(s.StorageVersions, version)
	} else {
		s.StorageVersions[at] = version
	}
	apiserverinternal.Agree(s, metav1.Now())
}

// versionsOf says of each stored resource of a server in which versions it is stored, read and served, by the name of its
// StorageVersion.
func versionsOf(definitions []*kind.Definition, server string) map[string]internalv1alpha1.ServerStorageVersion {
	served := map[schema.GroupResource][]string{}
	decodable := map[*kind.Definition]map[string]bool{} // by hub: all that has been served of it is read
	for _, d := range definitions {
		hub := d.Hub()
		if !hub.Persistent() {
			continue
		}
		served[d.GroupResource()] = append(served[d.GroupResource()], d.APIVersion())
		if decodable[hub] == nil {
			decodable[hub] = map[string]bool{hub.StoredAPIVersion(): true}
			for older := range hub.Stored.Older {
				decodable[hub][older] = true
			}
		}
		decodable[hub][d.APIVersion()] = true
	}
	all := map[string]internalv1alpha1.ServerStorageVersion{}
	for _, d := range definitions {
		if hub := d.Hub(); hub.Persistent() {
			all[cmp.Or(d.Group, "core")+"."+d.Plural] = internalv1alpha1.ServerStorageVersion{
				APIServerID: server, EncodingVersion: hub.StoredAPIVersion(),
				DecodableVersions: slices.Sorted(maps.Keys(decodable[hub])), ServedVersions: served[d.GroupResource()],
			}
		}
	}
	return all
}

// afterPublishing turns writes away until the versions in which they would be stored are published.
func (s *Server) afterPublishing(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.published.Load() && r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodOptions {
			httpapi.Unavailable(w, "wait for storage version registration to complete", time.Second)
			return
		}
		next.ServeHTTP(w, r)
	})
}
