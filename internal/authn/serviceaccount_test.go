package authn

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/timonel/timonel/internal/kind"
	"github.com/timonel/timonel/internal/object"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

const issuerURL = "https://kubernetes.default.svc"

// cluster is a few objects, as a reader.
type cluster struct {
	kind.Objects
	objects map[string]object.Object
}

func (c *cluster) Get(_ context.Context, r schema.GroupResource, namespace, name string) (object.Object, error) {
	if o := c.objects[r.Resource+"/"+object.Key(namespace, name)]; o != nil {
		return object.Copy(o), nil
	}
	return nil, apierrors.NewNotFound(r, name)
}

func (c *cluster) put(resource string, o object.Object) {
	c.objects[resource+"/"+object.Key(o.GetNamespace(), o.GetName())] = o
}

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(name + "-uid")}
}

func newCluster() *cluster {
	c := &cluster{objects: map[string]object.Object{}}
	c.put("serviceaccounts", &corev1.ServiceAccount{ObjectMeta: meta("ns", "sa")})
	c.put("pods", &corev1.Pod{ObjectMeta: meta("ns", "pod"), Spec: corev1.PodSpec{ServiceAccountName: "sa", NodeName: "node"}})
	c.put("pods", &corev1.Pod{ObjectMeta: meta("ns", "foreign"), Spec: corev1.PodSpec{ServiceAccountName: "other"}})
	c.put("nodes", &corev1.Node{ObjectMeta: meta("", "node")})
	c.put("secrets", &corev1.Secret{ObjectMeta: meta("ns", "secret")})
	return c
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newIssuer(t testing.TB, key crypto.Signer) (*Issuer, PublicKey) {
	t.Helper()
	issuer, err := NewIssuer(issuerURL, key)
	if err != nil {
		t.Fatal(err)
	}
	issuer.Audiences = []string{issuerURL}
	public, err := NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return issuer, public
}

func issue(t testing.TB, issuer *Issuer, spec TokenSpec) (token, id string) {
	t.Helper()
	token, id, err := issuer.IssueToken(spec)
	if err != nil {
		t.Fatal(err)
	}
	return token, id
}

// ofPod is a token as pods get them.
func ofPod() TokenSpec {
	return TokenSpec{Namespace: "ns", Name: "sa", UID: "sa-uid", Audiences: []string{issuerURL}, Lifetime: time.Hour,
		Pod: &Bound{"pod", "pod-uid"}, Node: &Bound{"node", "node-uid"}}
}

func TestTokenRoundTrip(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"ES256": newKey(t), "RS256": rsaKey} {
		t.Run(name, func(t *testing.T) {
			issuer, public := newIssuer(t, key)
			token, id := issue(t, issuer, ofPod())
			parsed, err := jwt.ParseSigned(token, algorithms)
			if err != nil || parsed.Headers[0].Algorithm != name || parsed.Headers[0].KeyID != public.ID {
				t.Errorf("header %+v %v", parsed.Headers, err)
			}
			a := New(Config{Audiences: []string{issuerURL}, Tokens: []TokenMethod{&ServiceAccountTokens{
				Issuers: []string{issuerURL}, Keys: []PublicKey{public}, Accounts: FromReader(newCluster())}}})
			u, err := a.Authenticate(call(nil, "Authorization: Bearer "+token))
			if err != nil {
				t.Fatal(err)
			}
			if got := shown(u, nil); got != "system:serviceaccount:ns:sa system:serviceaccounts,system:serviceaccounts:ns,system:authenticated" || u.UID != "sa-uid" {
				t.Errorf("%s %s", got, u.UID)
			}
			if want := map[string][]string{CredentialID: {"JTI=" + id}, podNameExtra: {"pod"}, podUIDExtra: {"pod-uid"}, nodeNameExtra: {"node"}, nodeUIDExtra: {"node-uid"}}; !reflect.DeepEqual(u.Extra, want) {
				t.Errorf("%v", u.Extra)
			}
		})
	}
}

func TestTokenClaimsAsKubernetesWritesThem(t *testing.T) {
	issuer, _ := newIssuer(t, newKey(t))
	issuer.Now = func() time.Time { return time.Unix(1000, 0) }
	spec := ofPod()
	spec.WarnAfter = 3607 * time.Second
	token, id := issue(t, issuer, spec)
	data, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	want := `{"aud":["https://kubernetes.default.svc"],"exp":4600,"iat":1000,"iss":"https://kubernetes.default.svc","jti":"` + id +
		`","kubernetes.io":{"namespace":"ns","node":{"name":"node","uid":"node-uid"},"pod":{"name":"pod","uid":"pod-uid"},"serviceaccount":{"name":"sa","uid":"sa-uid"},"warnafter":4607},"nbf":1000,"sub":"system:serviceaccount:ns:sa"}`
	var a, b any
	if json.Unmarshal(data, &a) != nil || json.Unmarshal([]byte(want), &b) != nil || !reflect.DeepEqual(a, b) {
		t.Errorf("got  %s\nwant %s", data, want)
	}
}

func TestTokenRefusals(t *testing.T) {
	key := newKey(t)
	issuer, public := newIssuer(t, key)
	stranger, _ := newIssuer(t, newKey(t))
	now := time.Now()
	verifier := &ServiceAccountTokens{Issuers: []string{issuerURL}, Keys: []PublicKey{public}, Now: func() time.Time { return now }}
	sign := func(c any) string {
		signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
		if err != nil {
			t.Fatal(err)
		}
		token, err := jwt.Signed(signer).Claims(c).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	good, _ := issue(t, issuer, ofPod())
	foreign, _ := issue(t, stranger, ofPod())
	wrongSubject := claims{Claims: jwt.Claims{Issuer: issuerURL, Subject: "system:serviceaccount:ns:other"}, Audience: audience{issuerURL},
		Kubernetes: &kubernetesClaims{Namespace: "ns", ServiceAccount: reference{"sa", "sa-uid"}}}
	none := strings.Join([]string{base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)), strings.Split(good, ".")[1], ""}, ".")
	other := ofPod()
	other.Audiences = []string{"other"}
	forOthers, _ := issue(t, issuer, other)
	deleted := metav1.NewTime(now.Add(-deletedGrace - time.Second))
	going := metav1.NewTime(now.Add(-time.Second))
	for _, c := range []struct {
		name, token string
		after       time.Duration
		change      func(*cluster)
		want        string // a part of the error; "not mine" for another method's token
	}{
		{"good", good, 0, nil, ""},
		{"no token of this sort", "abc", 0, nil, "not mine"},
		{"another issuer", sign(map[string]any{"iss": "https://example.com"}), 0, nil, "not mine"},
		{"another key", foreign, 0, nil, "error in cryptographic primitive"},
		{"a changed signature", good[:len(good)-4] + "AAAA", 0, nil, "error in cryptographic primitive"},
		{"no signature", none, 0, nil, "unexpected signature algorithm"},
		{"expired", good, 2 * time.Hour, nil, "service account token has expired"},
		{"a little late is fine", good, time.Hour + clockLeeway/2, nil, ""},
		{"not yet", good, -time.Hour, nil, "service account token is not valid yet"},
		{"no claims", sign(map[string]any{"iss": issuerURL}), 0, nil, "unexpected private claim"},
		{"another subject", sign(wrongSubject), 0, nil, "subject does not match"},
		{"another audience", forOthers, 0, nil, `token audiences ["other"] is invalid for the target audiences ["https://kubernetes.default.svc"]`},
		{"account gone", good, 0, func(c *cluster) { delete(c.objects, "serviceaccounts/ns/sa") }, "invalidated"},
		{"account made again", good, 0, func(c *cluster) { c.objects["serviceaccounts/ns/sa"].SetUID("new") }, "service account UID (new) does not match claim (sa-uid)"},
		{"pod gone", good, 0, func(c *cluster) { delete(c.objects, "pods/ns/pod") }, "invalidated"},
		{"pod made again", good, 0, func(c *cluster) { c.objects["pods/ns/pod"].SetUID("new") }, "pod UID (new) does not match"},
		{"pod is being deleted", good, 0, func(c *cluster) { c.objects["pods/ns/pod"].SetDeletionTimestamp(&going) }, ""},
		{"pod was deleted long ago", good, 0, func(c *cluster) { c.objects["pods/ns/pod"].SetDeletionTimestamp(&deleted) }, "invalidated"},
	} {
		t.Run(c.name, func(t *testing.T) {
			objects := newCluster()
			if c.change != nil {
				c.change(objects)
			}
			verifier.Accounts = FromReader(objects)
			verifier.Now = func() time.Time { return now.Add(c.after) }
			v, err := verifier.Token(t.Context(), c.token, []string{issuerURL})
			switch {
			case c.want == "" && err != nil, c.want == "not mine" && (v != nil || err != nil):
				t.Errorf("%v %v", v, err)
			case c.want != "" && c.want != "not mine" && (err == nil || v != nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestTokenStopsWithItsPod(t *testing.T) {
	issuer, public := newIssuer(t, newKey(t))
	objects := newCluster()
	a := New(Config{Audiences: []string{issuerURL}, Anonymous: true, Tokens: []TokenMethod{
		&ServiceAccountTokens{Issuers: []string{issuerURL}, Keys: []PublicKey{public}, Accounts: FromReader(objects)}}})
	token, _ := issue(t, issuer, ofPod())
	if _, err := a.Authenticate(call(nil, "Authorization: Bearer "+token)); err != nil {
		t.Fatal(err)
	}
	delete(objects.objects, "pods/ns/pod")
	if u, err := a.Authenticate(call(nil, "Authorization: Bearer "+token)); err == nil {
		t.Errorf("%v is still accepted", u)
	}
}

func TestLegacyToken(t *testing.T) {
	key := newKey(t)
	_, public := newIssuer(t, key)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(map[string]any{"iss": legacyIssuer, "sub": "system:serviceaccount:ns:sa",
		"kubernetes.io/serviceaccount/namespace": "ns", "kubernetes.io/serviceaccount/secret.name": "tok",
		"kubernetes.io/serviceaccount/service-account.name": "sa", "kubernetes.io/serviceaccount/service-account.uid": "sa-uid"}).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	used := 0
	check := func(want string, change func(*cluster)) {
		t.Helper()
		objects := newCluster()
		objects.put("secrets", &corev1.Secret{ObjectMeta: meta("ns", "tok"), Data: map[string][]byte{corev1.ServiceAccountTokenKey: []byte(token)}})
		change(objects)
		m := &LegacyTokens{Keys: []PublicKey{public}, Objects: objects, Used: func(*corev1.Secret) { used++ }}
		v, err := m.Token(t.Context(), token, nil)
		if want == "" && (err != nil || v.User.Name != "system:serviceaccount:ns:sa") || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("got %v %v, want %q", v, err, want)
		}
	}
	check("", func(*cluster) {})
	check("invalidated", func(c *cluster) { delete(c.objects, "secrets/ns/tok") })
	check("invalidated", func(c *cluster) { c.objects["secrets/ns/tok"].(*corev1.Secret).Data = nil })
	check("invalidated", func(c *cluster) { delete(c.objects, "serviceaccounts/ns/sa") })
	check("marked invalid on 2026-01-01", func(c *cluster) {
		c.objects["secrets/ns/tok"].SetLabels(map[string]string{legacyTokenInvalid: "2026-01-01"})
	})
	if used != 1 {
		t.Errorf("%d uses were told", used)
	}
	if v, err := (&LegacyTokens{}).Token(t.Context(), "x.y.z", nil); v != nil || err != nil {
		t.Errorf("%v %v", v, err)
	}
}

func TestBootstrapTokens(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	const token = "abcdef.0123456789abcdef"
	for _, c := range []struct {
		name, token, want string
		change            func(*corev1.Secret)
	}{
		{"good", token, "system:bootstrap:abcdef system:bootstrappers,system:bootstrappers:kubeadm:default-node-token", nil},
		{"another secret", "abcdef.0123456789abcdee", "", nil},
		{"another id", "abcdeg.0123456789abcdef", "", nil},
		{"no such form", "ABCDEF.0123456789abcdef", "", nil},
		{"expired", token, "", func(s *corev1.Secret) { s.Data["expiration"] = []byte("2025-12-31T23:59:59Z") }},
		{"not expired", token, "system:bootstrap:abcdef system:bootstrappers,system:bootstrappers:kubeadm:default-node-token",
			func(s *corev1.Secret) { s.Data["expiration"] = []byte("2026-01-01T00:00:01Z") }},
		{"unreadable expiration", token, "", func(s *corev1.Secret) { s.Data["expiration"] = []byte("soon") }},
		{"for signing only", token, "", func(s *corev1.Secret) { delete(s.Data, "usage-bootstrap-authentication") }},
		{"another type", token, "", func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque }},
		{"a group that may not be", token, "", func(s *corev1.Secret) { s.Data["auth-extra-groups"] = []byte("system:masters") }},
		{"being deleted", token, "", func(s *corev1.Secret) { s.DeletionTimestamp = &metav1.Time{Time: now} }},
	} {
		t.Run(c.name, func(t *testing.T) {
			secret := &corev1.Secret{ObjectMeta: meta("kube-system", "bootstrap-token-abcdef"), Type: bootstrapSecretType, Data: map[string][]byte{
				"token-id": []byte("abcdef"), "token-secret": []byte("0123456789abcdef"), "usage-bootstrap-authentication": []byte("true"),
				"auth-extra-groups": []byte("system:bootstrappers:kubeadm:default-node-token")}}
			if c.change != nil {
				c.change(secret)
			}
			objects := newCluster()
			objects.put("secrets", secret)
			v, err := (&BootstrapTokens{Secrets: objects, Now: func() time.Time { return now }}).Token(t.Context(), c.token, nil)
			got := ""
			if v != nil {
				got = shown(v.User, nil)
			}
			if err != nil || got != c.want {
				t.Errorf("got %q %v", got, err)
			}
		})
	}
}

// TestTokenJob is corpus verbs/tokens, and what documentation says besides.
func TestTokenJob(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 500, time.UTC)
	type request = authenticationv1.TokenRequest
	seconds := func(s int64) func(*request) { return func(r *request) { r.Spec.ExpirationSeconds = &s } }
	bound := func(kindName, name string, uid types.UID) func(*request) {
		return func(r *request) {
			r.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: kindName, Name: name, UID: uid}
		}
	}
	for _, c := range []struct {
		name, account string
		change        []func(*request)
		want          string // the error
		check         func(t *testing.T, r *request, k *claims, warnings []string)
	}{
		{"default", "sa", nil, "", func(t *testing.T, r *request, k *claims, _ []string) {
			if *r.Spec.ExpirationSeconds != 3600 || !reflect.DeepEqual(r.Spec.Audiences, []string{issuerURL}) || r.Name != "sa" || r.Namespace != "ns" || r.UID != "sa-uid" ||
				!r.Status.ExpirationTimestamp.Time.Equal(now.Truncate(time.Second).Add(time.Hour)) || r.CreationTimestamp.IsZero() {
				t.Errorf("%+v", r)
			}
			if k.Kubernetes.Pod != nil || k.Kubernetes.Node != nil || k.ID == "" {
				t.Errorf("%+v", k)
			}
		}},
		{"absent account", "zz", nil, `serviceaccounts "zz" not found`, nil},
		{"too short", "sa", []func(*request){seconds(5)}, `TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes`, nil},
		{"too long", "sa", []func(*request){seconds(99999999999)}, `TokenRequest.authentication.k8s.io "" is invalid: spec.expirationSeconds: Invalid value: 99999999999: may not specify a duration larger than 2^32 seconds`, nil},
		{"capped", "sa", []func(*request){seconds(100 * 3600)}, "", func(t *testing.T, r *request, _ *claims, warnings []string) {
			if *r.Spec.ExpirationSeconds != 48*3600 || len(warnings) != 1 {
				t.Errorf("%d %v", *r.Spec.ExpirationSeconds, warnings)
			}
		}},
		{"bound to absent pod", "sa", []func(*request){bound("Pod", "zz", "")}, `pods "zz" not found`, nil},
		{"bound to other kind", "sa", []func(*request){bound("ConfigMap", "zz", "")}, "cannot bind token to object of type /v1, Kind=ConfigMap", nil},
		{"bound to another account's pod", "sa", []func(*request){bound("Pod", "foreign", "")}, `cannot bind token for serviceaccount "sa" to pod running with different serviceaccount name.`, nil},
		{"bound to a pod that was made again", "sa", []func(*request){bound("Pod", "pod", "old")},
			`Operation cannot be fulfilled on pods "pod": the UID in the bound object reference (old) does not match the UID in record. The object might have been deleted and then recreated`, nil},
		{"bound to a pod", "sa", []func(*request){bound("Pod", "pod", "pod-uid")}, "", func(t *testing.T, _ *request, k *claims, _ []string) {
			if *k.Kubernetes.Pod != (reference{"pod", "pod-uid"}) || *k.Kubernetes.Node != (reference{"node", "node-uid"}) {
				t.Errorf("%+v", k.Kubernetes)
			}
		}},
		{"bound to a secret", "sa", []func(*request){bound("Secret", "secret", "secret-uid")}, "", func(t *testing.T, _ *request, k *claims, _ []string) {
			if *k.Kubernetes.Secret != (reference{"secret", "secret-uid"}) {
				t.Errorf("%+v", k.Kubernetes)
			}
		}},
		{"bound to a node", "sa", []func(*request){bound("Node", "node", "node-uid")}, "", func(t *testing.T, _ *request, k *claims, _ []string) {
			if *k.Kubernetes.Node != (reference{"node", "node-uid"}) || k.Kubernetes.Pod != nil {
				t.Errorf("%+v", k.Kubernetes)
			}
		}},
		{"another account's uid", "sa", []func(*request){func(r *request) { r.UID = "x" }},
			`Operation cannot be fulfilled on serviceaccounts "sa": the UID in the token request (x) does not match the UID of the service account (sa-uid)`, nil},
		{"as pods ask", "sa", []func(*request){bound("Pod", "pod", "pod-uid"), seconds(3607)}, "", func(t *testing.T, r *request, k *claims, _ []string) {
			if k.Kubernetes.WarnAfter == nil || k.Expiry.Time().Sub(now) < 47*time.Hour || !r.Status.ExpirationTimestamp.Time.Equal(now.Truncate(time.Second).Add(3607*time.Second)) {
				t.Errorf("%+v %v", k, r.Status.ExpirationTimestamp)
			}
		}},
		{"as pods ask, for others", "sa", []func(*request){bound("Pod", "pod", "pod-uid"), seconds(3607), func(r *request) { r.Spec.Audiences = []string{"vault"} }}, "",
			func(t *testing.T, _ *request, k *claims, _ []string) {
				if k.Kubernetes.WarnAfter != nil {
					t.Errorf("%+v", k)
				}
			}},
		{"refused by admission", "sa", []func(*request){func(r *request) { r.Labels = map[string]string{"refuse": ""} }}, "refused", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			issuer, _ := newIssuer(t, newKey(t))
			issuer.Extend, issuer.MaxExpiration, issuer.Now = true, 48*time.Hour, func() time.Time { return now }
			body := &request{}
			for _, change := range c.change {
				change(body)
			}
			var warnings []string
			annotations := map[string]string{}
			job := TokenJob(issuer, TokenOptions{
				Warn:     func(_ context.Context, text string) { warnings = append(warnings, text) },
				Annotate: func(_ context.Context, key, value string) { annotations[key] = value },
			})
			answer, err := job(t.Context(), kind.JobCall{Objects: newCluster(), Namespace: "ns", Name: c.account, Body: body, Check: func(context.Context) error {
				if _, refuse := body.Labels["refuse"]; refuse {
					return errors.New("refused")
				}
				return nil
			}})
			if c.want != "" {
				if err == nil || err.Error() != c.want {
					t.Errorf("got  %v\nwant %s", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			r := answer.(*request)
			parsed, err := jwt.ParseSigned(r.Status.Token, algorithms)
			if err != nil {
				t.Fatal(err)
			}
			var k claims
			if err := parsed.UnsafeClaimsWithoutVerification(&k); err != nil {
				t.Fatal(err)
			}
			if annotations[IssuedCredential] != "JTI="+k.ID {
				t.Errorf("%v", annotations)
			}
			c.check(t, r, &k, warnings)
		})
	}
}

func TestKeysAndDocuments(t *testing.T) {
	key := newKey(t)
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	data := append(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private}), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})...)
	keys, err := ParsePublicKeys(data)
	if err != nil || len(keys) != 2 || keys[0].ID != keys[1].ID || keys[0].Algorithm != jose.ES256 {
		t.Fatalf("%v %v", keys, err)
	}
	if _, err := ParsePublicKeys([]byte("x")); err == nil {
		t.Error("no key was accepted")
	}
	document, err := DiscoveryDocument(issuerURL, "192.0.2.1:6443", "", keys[:1])
	want := `{"issuer":"https://kubernetes.default.svc","jwks_uri":"https://192.0.2.1:6443/openid/v1/jwks","response_types_supported":["id_token"],"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256"]}`
	if err != nil || string(document) != want {
		t.Errorf("%s %v", document, err)
	}
	for _, issuer := range []string{"http://x", "https://x?a=b", "https://x#f", "x"} {
		if _, err := DiscoveryDocument(issuer, "", "", keys); err == nil {
			t.Errorf("issuer %s was accepted", issuer)
		}
	}
	set, err := KeySetDocument(keys[:1])
	var parsed jose.JSONWebKeySet
	if err != nil || json.Unmarshal(set, &parsed) != nil || len(parsed.Keys) != 1 || parsed.Keys[0].KeyID != keys[0].ID || !parsed.Keys[0].IsPublic() {
		t.Errorf("%s %v", set, err)
	}
}

func FuzzServiceAccountToken(f *testing.F) {
	issuer, public := newIssuer(f, newKey(f))
	token, _ := issue(f, issuer, ofPod())
	f.Add(token)
	f.Add("a.eyJpc3MiOiJodHRwczovL2t1YmVybmV0ZXMuZGVmYXVsdC5zdmMifQ.c")
	f.Add("..")
	verifier := &ServiceAccountTokens{Issuers: []string{issuerURL}, Keys: []PublicKey{public}}
	head, _, _ := strings.Cut(token, ".")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := verifier.Token(t.Context(), text, []string{issuerURL})
		if err == nil && v != nil && !strings.HasPrefix(text, head) {
			t.Errorf("%q was accepted as %v", text, v.User)
		}
	})
}
