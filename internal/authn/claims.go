package authn

import (
	"strings"

	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/timonel/timonel/internal/user"
)

// Extras of an identity proven by a bound service account token
// (docs: "Managing Service Accounts", additional metadata in tokens).
const (
	podNameExtra  = "authentication.kubernetes.io/pod-name"
	podUIDExtra   = "authentication.kubernetes.io/pod-uid"
	nodeNameExtra = "authentication.kubernetes.io/node-name"
	nodeUIDExtra  = "authentication.kubernetes.io/node-uid"
)

// claims are what a service account token says, besides the registered ones of
// RFC 7519.
type claims struct {
	jwt.Claims
	Audience   audience          `json:"aud,omitempty"`
	Kubernetes *kubernetesClaims `json:"kubernetes.io,omitempty"`
}

// audience is written as a list, also when it is one text; both forms are read (RFC 7519, section 4.1.3).
type audience []string

func (a *audience) UnmarshalJSON(data []byte) error {
	return (*jwt.Audience)(a).UnmarshalJSON(data)
}

type kubernetesClaims struct {
	Namespace      string           `json:"namespace,omitempty"`
	Node           *reference       `json:"node,omitempty"`
	Pod            *reference       `json:"pod,omitempty"`
	Secret         *reference       `json:"secret,omitempty"`
	ServiceAccount reference        `json:"serviceaccount,omitempty"`
	WarnAfter      *jwt.NumericDate `json:"warnafter,omitempty"`
}

// reference names an object that was there when the token was made.
type reference struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

// legacyClaims are those of a token kept in a Secret.
type legacyClaims struct {
	jwt.Claims
	Namespace  string `json:"kubernetes.io/serviceaccount/namespace"`
	SecretName string `json:"kubernetes.io/serviceaccount/secret.name"`
	Name       string `json:"kubernetes.io/serviceaccount/service-account.name"`
	UID        string `json:"kubernetes.io/serviceaccount/service-account.uid"`
}

// legacyIssuer is the issuer of tokens kept in Secrets.
const legacyIssuer = "kubernetes/serviceaccount"

// user is the identity that the claims describe.
func (c *claims) user() *user.Info {
	k := c.Kubernetes
	u := serviceAccount(k.Namespace, k.ServiceAccount.Name, k.ServiceAccount.UID)
	extra := map[string][]string{}
	add := func(key, value string) {
		if value != "" {
			extra[key] = []string{value}
		}
	}
	if c.ID != "" {
		add(CredentialID, "JTI="+c.ID)
	}
	if k.Pod != nil {
		add(podNameExtra, k.Pod.Name)
		add(podUIDExtra, k.Pod.UID)
	}
	if k.Node != nil {
		add(nodeNameExtra, k.Node.Name)
		add(nodeUIDExtra, k.Node.UID)
	}
	if len(extra) > 0 {
		u.Extra = extra
	}
	return u
}

// serviceAccount is a service account's identity without system:authenticated.
func serviceAccount(namespace, name, uid string) *user.Info {
	return &user.Info{
		Name:   user.ServiceAccountPrefix + namespace + ":" + name,
		UID:    uid,
		Groups: serviceAccountGroups(namespace),
	}
}

func serviceAccountGroups(namespace string) []string {
	return []string{user.ServiceAccountsGroup, user.ServiceAccountsGroup + ":" + namespace}
}

// subjectOf splits a token's subject, "system:serviceaccount:<namespace>:<name>".
func subjectOf(subject string) (namespace, name string, ok bool) {
	rest, ok := strings.CutPrefix(subject, user.ServiceAccountPrefix)
	if !ok {
		return "", "", false
	}
	namespace, name, ok = strings.Cut(rest, ":")
	return namespace, name, ok && namespace != "" && name != "" && !strings.Contains(name, ":")
}
