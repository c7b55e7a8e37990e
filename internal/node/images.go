package node

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/timonel/timonel/internal/node/cri"
)

// imageStore pulls images and knows what is on the machine. Pulls of all pods
// share pullsAtOnce places.
type imageStore struct {
	client *cri.Client
	places chan struct{}
}

// pullsAtOnce bounds how many images are pulled at the same time.
const pullsAtOnce = 3

func newImageStore(client *cri.Client) *imageStore {
	return &imageStore{client: client, places: make(chan struct{}, pullsAtOnce)}
}

// imageReference is the grammar of an image name (distribution/reference),
// as far as a mistake in it can be told without a registry.
var imageReference = regexp.MustCompile(`^(?:[a-zA-Z0-9][a-zA-Z0-9.-]*(?::[0-9]+)?/|\[[0-9a-fA-F:]+\](?::[0-9]+)?/)?` +
	`[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*` +
	`(?::[\w][\w.-]{0,127})?(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?$`)

// normalizeImage checks an image name and gives one without tag or digest
// the tag latest.
func normalizeImage(image string) (string, error) {
	if strings.HasPrefix(image, "sha256:") {
		return image, nil
	}
	if !imageReference.MatchString(image) {
		return "", fmt.Errorf("couldn't parse image name %q: invalid reference format", image)
	}
	last := image[strings.LastIndexByte(image, '/')+1:]
	if !strings.ContainsAny(last, ":@") {
		image += ":latest"
	}
	return image, nil
}

// pullPolicy is the container's policy, or the default of its tag.
func pullPolicy(c *v1.Container) v1.PullPolicy {
	if c.ImagePullPolicy != "" {
		return c.ImagePullPolicy
	}
	image, err := normalizeImage(c.Image)
	if err == nil && strings.HasSuffix(image, ":latest") {
		return v1.PullAlways
	}
	return v1.PullIfNotPresent
}

// find returns the image if the machine has it, else nil.
func (s *imageStore) find(ctx context.Context, image, handler string) (*runtimeapi.Image, error) {
	ctx, cancel := context.WithTimeout(ctx, cri.CallTimeout)
	defer cancel()
	answer, err := s.client.Images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: image, RuntimeHandler: handler}})
	if err != nil {
		return nil, err
	}
	return answer.Image, nil
}

// pulled is the end of a pull.
type pulled struct {
	image    *runtimeapi.Image
	took     time.Duration // downloading
	waited   time.Duration // with the wait for a place
	err      error
	password bool // credentials were tried
}

// pull fetches an image, trying each set of credentials that fits its
// registry, then none.
func (s *imageStore) pull(ctx context.Context, image, handler string, sandbox *runtimeapi.PodSandboxConfig, secrets []*v1.Secret) pulled {
	begin := time.Now()
	select {
	case s.places <- struct{}{}:
		defer func() { <-s.places }()
	case <-ctx.Done():
		return pulled{err: ctx.Err()}
	}
	started := time.Now()
	spec := &runtimeapi.ImageSpec{Image: image, RuntimeHandler: handler}
	auths := credentialsFor(image, secrets)
	result := pulled{password: len(auths) > 0}
	if len(auths) == 0 {
		auths = []*runtimeapi.AuthConfig{nil}
	}
	var errs []error
	for _, auth := range auths {
		_, err := s.client.Images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: spec, Auth: auth, SandboxConfig: sandbox})
		if err == nil {
			errs = nil
			break
		}
		errs = append(errs, err)
	}
	result.took, result.waited = time.Since(started), time.Since(begin)
	if result.err = errors.Join(errs...); result.err != nil {
		return result
	}
	found, err := s.find(ctx, image, handler)
	if err == nil && found == nil {
		err = fmt.Errorf("image %q is not there after it was pulled", image)
	}
	result.image, result.err = found, err
	return result
}

// credentialsFor picks from pull secrets what fits the image's registry, the
// longest matching path first.
func credentialsFor(image string, secrets []*v1.Secret) []*runtimeapi.AuthConfig {
	type match struct {
		at   string
		auth *runtimeapi.AuthConfig
	}
	var matches []match
	for _, secret := range secrets {
		for registry, auth := range dockerConfig(secret) {
			at := registryPath(registry)
			if credentialFits(at, imagePath(image)) {
				matches = append(matches, match{at, auth})
			}
		}
	}
	slices.SortStableFunc(matches, func(a, b match) int {
		if n := len(b.at) - len(a.at); n != 0 {
			return n
		}
		return strings.Compare(a.at, b.at)
	})
	var out []*runtimeapi.AuthConfig
	for _, m := range matches {
		out = append(out, m.auth)
	}
	return out
}

// dockerConfig reads the credentials of a pull secret by registry.
func dockerConfig(secret *v1.Secret) map[string]*runtimeapi.AuthConfig {
	type entry struct {
		Username      string `json:"username"`
		Password      string `json:"password"`
		Auth          string `json:"auth"`
		IdentityToken string `json:"identitytoken"`
		RegistryToken string `json:"registrytoken"`
	}
	entries := map[string]entry{}
	switch secret.Type {
	case v1.SecretTypeDockerConfigJson:
		var config struct {
			Auths map[string]entry `json:"auths"`
		}
		if json.Unmarshal(secret.Data[v1.DockerConfigJsonKey], &config) != nil {
			return nil
		}
		entries = config.Auths
	case v1.SecretTypeDockercfg:
		if json.Unmarshal(secret.Data[v1.DockerConfigKey], &entries) != nil {
			return nil
		}
	}
	out := map[string]*runtimeapi.AuthConfig{}
	for registry, e := range entries {
		if e.Username == "" && e.Auth != "" {
			if b, err := base64.StdEncoding.DecodeString(e.Auth); err == nil {
				e.Username, e.Password, _ = strings.Cut(strings.TrimRight(string(b), "\x00"), ":")
			}
		}
		out[registry] = &runtimeapi.AuthConfig{Username: e.Username, Password: e.Password, IdentityToken: e.IdentityToken, RegistryToken: e.RegistryToken}
	}
	return out
}

// registryPath strips what people write around a registry in a config.json.
func registryPath(registry string) string {
	registry = strings.TrimPrefix(strings.TrimPrefix(registry, "https://"), "http://")
	registry = strings.TrimSuffix(registry, "/")
	for _, suffix := range []string{"/v1", "/v2"} {
		registry = strings.TrimSuffix(registry, suffix)
	}
	if registry == "docker.io" || registry == "registry-1.docker.io" || registry == "registry.hub.docker.com" {
		return "index.docker.io"
	}
	return registry
}

// imagePath is registry/repository of an image, with Docker Hub spelled out.
func imagePath(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if colon := strings.LastIndexByte(image, ':'); colon > strings.LastIndexByte(image, '/') {
		image = image[:colon]
	}
	host, rest, ok := strings.Cut(image, "/")
	if !ok || !strings.ContainsAny(host, ".:") && host != "localhost" {
		if !ok {
			image = "library/" + image
		}
		return "index.docker.io/" + image
	}
	if host == "docker.io" {
		return "index.docker.io/" + rest
	}
	return image
}

// credentialFits matches a credential's registry, with * for a part of a host
// name, and its path as a prefix.
func credentialFits(at, image string) bool {
	atHost, atPath, _ := strings.Cut(at, "/")
	host, path, _ := strings.Cut(image, "/")
	a, b := strings.Split(atHost, "."), strings.Split(host, ".")
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !globPart(a[i], b[i]) {
			return false
		}
	}
	return atPath == "" || path == atPath || strings.HasPrefix(path, atPath+"/")
}

func globPart(pattern, s string) bool {
	before, after, ok := strings.Cut(pattern, "*")
	if !ok {
		return pattern == s
	}
	return len(s) >= len(before)+len(after) && strings.HasPrefix(s, before) && strings.HasSuffix(s, after)
}

// pullReason is the waiting reason of a failed pull. CRI runtimes may name a
// more precise one at the start of their error.
func pullReason(err error) string {
	text := status.Convert(err).Message()
	for _, reason := range []string{"RegistryUnavailable", "SignatureValidationFailed"} {
		if strings.HasPrefix(text, reason) {
			return reason
		}
	}
	return reasonErrImagePull
}

// isUnavailable tells an absent runtime from one that refuses.
func isUnavailable(err error) bool {
	return status.Code(err) == codes.Unavailable
}
