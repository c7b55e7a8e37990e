// Package handover says whether an etcd can change hands between kube-apiserver and Timonel: it reads
// every key and finds those that Timonel would not write back byte for byte.
//
// Promises: it writes nothing; one bad key hides no other; each finding names its key and one reason.
//
// Does not know: how the store was opened, HTTP. It knows kinds through their definitions, and custom
// resources through the definitions that lie in the store. Start reading at Check.
package handover

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/timonel/timonel/internal/codec"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	"github.com/timonel/timonel/internal/storage"
)

// The reasons why a key is reported.
var (
	// ErrUnknownResource: no kind of this server is stored under such a key. Timonel leaves it as it is and does not serve it.
	ErrUnknownResource = errors.New("no resource is stored here")
	// ErrUndecodable: the value is not an object of the resource's kind. Reading it answers StorageReadError.
	ErrUndecodable = errors.New("value does not decode")
	// ErrEncrypted: the value is encrypted at rest, and the keys are not at hand.
	ErrEncrypted = errors.New("value is encrypted")
	// ErrMisplaced: the object bears another name, namespace or kind than its key.
	ErrMisplaced = errors.New("object does not belong under its key")
	// ErrDifferent: the next write of the object would store other bytes than are there now, even if it changes nothing.
	ErrDifferent = errors.New("would be written back differently")
)

// Finding is a key that would not come back as it is. Err is one of the errors above, with the details.
type Finding struct {
	Key      string
	Resource string // "deployments.apps"; "" if unknown
	Err      error
}

// Summary counts what was read.
type Summary struct {
	Revision  storage.Revision
	Keys      int // all under the prefix
	Same      int // would be written back byte for byte
	Findings  int
	Resources int // with at least one object
}

// pageSize is how many keys are in memory at once.
const pageSize = 500

// Check reads everything under prefix (as "/registry", without a slash at the end) at one revision and reports the findings
// in the order of keys. It fails only if the store cannot be read.
func Check(ctx context.Context, store storage.Store, prefix string, definitions []*kind.Definition, report func(Finding)) (Summary, error) {
	resources, err := layout(ctx, store, prefix, definitions)
	if err != nil {
		return Summary{}, err
	}
	var sum Summary
	seen := map[string]bool{}
	options := storage.ListOptions{Limit: pageSize}
	for {
		page, err := store.List(ctx, prefix+"/", options)
		if errors.Is(err, storage.ErrCompacted) && options.After != "" {
			options.At = 0 // the rest is read as it is now
			continue
		}
		if err != nil {
			return sum, fmt.Errorf("read %s: %w", prefix, err)
		}
		sum.Revision = page.Revision
		for _, e := range page.Entries {
			sum.Keys++
			relative := strings.TrimPrefix(e.Key, prefix+"/")
			resource, d := resources.of(relative)
			if d != nil {
				seen[resource] = true
			}
			if err := inspect(d, strings.TrimPrefix(relative, resource+"/"), e); err != nil {
				sum.Findings++
				report(Finding{Key: e.Key, Resource: name(d), Err: err})
				continue
			}
			sum.Same++
		}
		if !page.More || len(page.Entries) == 0 {
			sum.Resources = len(seen)
			return sum, nil
		}
		options.After, options.At = page.Entries[len(page.Entries)-1].Key, page.Revision
	}
}

func name(d *kind.Definition) string {
	if d == nil {
		return ""
	}
	return d.GroupResource().String()
}

// inspect says what is wrong with an entry of a resource; key is the part of its key after the resource's prefix.
func inspect(d *kind.Definition, key string, e storage.Entry) error {
	value := e.Value
	switch {
	case d == nil, key == "":
		return ErrUnknownResource
	case bytes.HasPrefix(value, []byte("k8s:enc:")):
		provider, _, _ := strings.Cut(string(value[len("k8s:enc:"):min(len(value), 64)]), ":")
		if e.Err != nil {
			return fmt.Errorf("%w with provider %q: %w", ErrEncrypted, provider, e.Err)
		}
		return fmt.Errorf("%w with provider %q", ErrEncrypted, provider)
	case e.Err != nil:
		return fmt.Errorf("%w: %w", ErrUndecodable, e.Err)
	}
	apiVersion, kindName, err := codec.StoredType(value)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUndecodable, err)
	}
	if kindName != d.Kind || group(apiVersion) != d.Group {
		return fmt.Errorf("%w: it says that it is kind %q of %q", ErrMisplaced, kindName, apiVersion)
	}
	obj, again, err := codec.Rewrite(d, value)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUndecodable, err)
	}
	if at := object.Key(obj.GetNamespace(), obj.GetName()); at != key && !d.Private {
		return fmt.Errorf("%w: it is named %s", ErrMisplaced, at)
	}
	if !bytes.Equal(value, again) {
		return fmt.Errorf("%w: %s", ErrDifferent, explain(d, apiVersion, value, again))
	}
	return nil
}

func group(apiVersion string) string {
	g, _, ok := strings.Cut(apiVersion, "/")
	if !ok {
		return ""
	}
	return g
}
