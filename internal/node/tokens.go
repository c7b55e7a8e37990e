package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

const (
	// tokenMaxAge renews even long-lived tokens daily, as Kubernetes promises.
	tokenMaxAge = 24 * time.Hour
	// tokenRenewTenths of its life after which a token is renewed.
	tokenRenewTenths = 8
	// tokenDefaultLife applies when the projection names none.
	tokenDefaultLife = int64(3600)
	// tokenRetry is the pause after a failed renewal of a token still valid.
	tokenRetry = time.Minute
)

type tokenKey struct {
	pod      types.UID
	audience string
	life     int64
}

type token struct {
	value   string
	renewAt time.Time
	expires time.Time
}

// tokenSource obtains service account tokens bound to pods by TokenRequest
// and keeps them until it is time to renew.
type tokenSource struct {
	client kubernetes.Interface

	mu struct {
		sync.Mutex
		tokens map[tokenKey]token
	}
}

func newTokenSource(client kubernetes.Interface) *tokenSource {
	s := &tokenSource{client: client}
	s.mu.tokens = map[tokenKey]token{}
	return s
}

// get returns the token of a projection and when it wants to be asked again.
func (s *tokenSource) get(ctx context.Context, pod *v1.Pod, projection *v1.ServiceAccountTokenProjection) (value string, renewAt time.Time, err error) {
	life := tokenDefaultLife
	if projection.ExpirationSeconds != nil {
		life = *projection.ExpirationSeconds
	}
	key := tokenKey{pod.UID, projection.Audience, life}
	s.mu.Lock()
	have, ok := s.mu.tokens[key]
	s.mu.Unlock()
	now := time.Now()
	if ok && now.Before(have.renewAt) {
		return have.value, have.renewAt, nil
	}

	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: &life,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
	}}
	if projection.Audience != "" {
		request.Spec.Audiences = []string{projection.Audience}
	}
	answer, err := s.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, account, request, metav1.CreateOptions{})
	if err != nil {
		if ok && now.Before(have.expires) {
			return have.value, now.Add(tokenRetry), nil
		}
		return "", time.Time{}, fmt.Errorf("failed to fetch token: %w", err)
	}
	fresh := token{value: answer.Status.Token, expires: answer.Status.ExpirationTimestamp.Time}
	if !fresh.expires.After(now) {
		fresh.expires = now.Add(time.Duration(life) * time.Second)
	}
	fresh.renewAt = renewTime(now, fresh.expires)
	s.mu.Lock()
	s.mu.tokens[key] = fresh
	s.mu.Unlock()
	return fresh.value, fresh.renewAt, nil
}

// renewTime is when a token issued now is to be replaced.
func renewTime(now, expires time.Time) time.Time {
	at := now.Add(expires.Sub(now) / 10 * tokenRenewTenths)
	if latest := now.Add(tokenMaxAge); latest.Before(at) {
		return latest
	}
	return at
}

// forget drops the tokens of a pod that is gone.
func (s *tokenSource) forget(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.mu.tokens {
		if key.pod == uid {
			delete(s.mu.tokens, key)
		}
	}
}
