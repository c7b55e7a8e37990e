package controller

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// Each controller acts as a service account of its own in kube-system, with the role that the
// bootstrap policy gives to it and no other (kube-controller-manager's
// --use-service-account-credentials). The manager's own rights suffice to make these accounts and their tokens.

// tokenLife is how long a token is asked for; it is replaced after four fifths of that.
const tokenLife = time.Hour

// identity adds the bearer token of a service account to requests.
type identity struct {
	name    string
	manager kubernetes.Interface // asks for tokens
	next    http.RoundTripper

	mu      sync.Mutex
	token   string
	renewAt time.Time
}

// RoundTrip implements http.RoundTripper.
func (i *identity) RoundTrip(r *http.Request) (*http.Response, error) {
	token, err := i.current(r.Context())
	if err != nil {
		// In words only: that something is not there must not look like the answer to the request itself.
		return nil, fmt.Errorf("get a token of service account %s: %v", i.name, err)
	}
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := i.next.RoundTrip(r)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		i.mu.Lock()
		if i.token == token { // the account was made anew: so must the token be
			i.token = ""
		}
		i.mu.Unlock()
	}
	return resp, err
}

func (i *identity) current(ctx context.Context) (string, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.token != "" && time.Now().Before(i.renewAt) {
		return i.token, nil
	}
	accounts := i.manager.CoreV1().ServiceAccounts(metav1.NamespaceSystem)
	life := int64(tokenLife / time.Second)
	ask := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &life}}
	answer, err := accounts.CreateToken(ctx, i.name, ask, metav1.CreateOptions{})
	if apierrors.IsNotFound(err) {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: i.name, Namespace: metav1.NamespaceSystem}}
		if _, err := accounts.Create(ctx, account, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return "", fmt.Errorf("make the account: %w", err)
		}
		answer, err = accounts.CreateToken(ctx, i.name, ask, metav1.CreateOptions{})
	}
	if err != nil {
		return "", err
	}
	i.token = answer.Status.Token
	i.renewAt = time.Now().Add(time.Until(answer.Status.ExpirationTimestamp.Time) * 4 / 5)
	return i.token, nil
}

// configAs is a client configuration that acts as a service account of kube-system.
func (c *Controllers) configAs(name string) *rest.Config {
	config := rest.AnonymousClientConfig(c.config)
	config.ContentType, config.AcceptContentTypes = c.config.ContentType, c.config.AcceptContentTypes
	config.UserAgent = c.config.UserAgent + "/" + name
	config.QPS = -1
	config.WarningHandler = rest.NoWarnings{}
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &identity{name: name, manager: c.client, next: next}
	})
	return config
}

// as is a client that acts as a service account of kube-system.
func (c *Controllers) as(name string) kubernetes.Interface {
	if c.config == nil {
		return c.client
	}
	client, err := kubernetes.NewForConfig(c.configAs(name))
	if err != nil {
		panic(err) // the manager's own client was made of the same configuration
	}
	return client
}

// metadataAs is as for resources that are not known by type.
func (c *Controllers) metadataAs(name string) metadata.Interface {
	if c.config == nil {
		return c.objects
	}
	client, err := metadata.NewForConfig(metadata.ConfigFor(c.configAs(name)))
	if err != nil {
		panic(err) // as above
	}
	return client
}
