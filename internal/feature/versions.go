package feature

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Pairs is a flag whose values are lists of key=value; later ones replace earlier ones.
type Pairs map[string]string

// Set, String and Type make it a flag.
func (p *Pairs) Set(value string) error {
	if *p == nil {
		*p = Pairs{}
	}
	for pair := range strings.SplitSeq(value, ",") {
		if pair == "" {
			continue
		}
		key, text, ok := strings.Cut(pair, "=")
		if !ok {
			return errors.New("malformed pair, expect string=string")
		}
		(*p)[strings.TrimSpace(key)] = strings.TrimSpace(text)
	}
	return nil
}

func (p *Pairs) String() string {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(*p)) {
		pairs = append(pairs, key+"="+(*p)[key])
	}
	return strings.Join(pairs, ",")
}

func (p *Pairs) Type() string { return "mapStringString" }

// APIs says which group versions and resources are served. The zero value is the default: those that are GA.
type APIs struct {
	stages    map[Stage]bool
	versions  map[schema.GroupVersion]bool
	resources map[schema.GroupVersionResource]bool
}

// Keys of --runtime-config that stand for many versions.
const keyAll, keyGA, keyBeta, keyAlpha = "api/all", "api/ga", "api/beta", "api/alpha"

// ParseAPIs reads the pairs of --runtime-config. has reports what there is: of a group with an empty version whether there is
// any version of it.
func ParseAPIs(pairs Pairs, has func(schema.GroupVersion) bool) (APIs, error) {
	a := APIs{stages: map[Stage]bool{}, versions: map[schema.GroupVersion]bool{}, resources: map[schema.GroupVersionResource]bool{}}
	if len(pairs) == 1 && pairs[keyAll] == "false" {
		return a, errors.New("invalid key with only api/all=false")
	}
	var unknown []string
	keys := slices.Sorted(maps.Keys(pairs))
	for _, key := range keys {
		on, err := strconv.ParseBool(pairs[key])
		if pairs[key] == "" || err != nil {
			return a, fmt.Errorf("invalid value %s=%s", key, pairs[key])
		}
		switch key {
		case keyAll, keyGA, keyBeta, keyAlpha:
			continue // below, in the order of their weight
		}
		r, err := parseAPI(key)
		switch {
		case err != nil:
			return a, err
		case !has(schema.GroupVersion{Group: r.Group}):
			unknown = append(unknown, r.Group)
		case !has(r.GroupVersion()):
			return a, fmt.Errorf("group version %s that has not been registered", r.GroupVersion())
		case r.Resource != "":
			a.resources[r] = on
		default:
			a.versions[r.GroupVersion()] = on
		}
	}
	if len(unknown) > 0 {
		return a, fmt.Errorf("unknown api groups %s", strings.Join(slices.Compact(unknown), ","))
	}
	for _, k := range []struct {
		key    string
		stages []Stage
	}{{keyAll, []Stage{GA, Beta, Alpha}}, {keyGA, []Stage{GA}}, {keyBeta, []Stage{Beta}}, {keyAlpha, []Stage{Alpha}}} {
		if text, given := pairs[k.key]; given {
			on, _ := strconv.ParseBool(text) // was read above
			for _, s := range k.stages {
				a.stages[s] = on
			}
		}
	}
	return a, nil
}

// parseAPI reads "v1", "group/version" or "group/version/resource".
func parseAPI(key string) (r schema.GroupVersionResource, err error) {
	parts := strings.Split(key, "/")
	switch {
	case key == "v1":
		return schema.GroupVersionResource{Version: "v1"}, nil
	case len(parts) == 2 && parts[0] == "api":
		return schema.GroupVersionResource{Version: parts[1]}, nil
	case len(parts) == 2:
		return schema.GroupVersionResource{Group: parts[0], Version: parts[1]}, nil
	case len(parts) == 3:
		return schema.GroupVersionResource{Group: parts[0], Version: parts[1], Resource: parts[2]}, nil
	}
	return r, fmt.Errorf("runtime-config invalid key %s", key)
}

// Serves reports whether a resource is served, as far as its feature gate has nothing against it.
func (a APIs) Serves(r schema.GroupVersionResource) bool {
	if on, given := a.resources[r]; given {
		return on
	}
	if on, given := a.versions[r.GroupVersion()]; given {
		return on
	}
	stage := StageOf(r.Version)
	if on, given := a.stages[stage]; given {
		return on
	}
	return stage == GA
}

var betaVersion, alphaVersion = regexp.MustCompile(`^v[0-9]+beta[0-9]+$`), regexp.MustCompile(`^v[0-9]+alpha[0-9]+$`)

// StageOf is the stage of an API version, by its name.
func StageOf(version string) Stage {
	switch {
	case alphaVersion.MatchString(version):
		return Alpha
	case betaVersion.MatchString(version):
		return Beta
	}
	return GA
}
