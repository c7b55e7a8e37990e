package authn

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"math/big"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/timonel/timonel/internal/user"
)

// authority is a test's certificate authority.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour), KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

// client makes a client certificate that lasts an hour.
func (a *authority) client(t testing.TB, subject pkix.Name, change ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	for _, c := range change {
		c(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// call makes a request with a client certificate, or none, and headers "Name: value".
func call(cert *x509.Certificate, headers ...string) *http.Request {
	r := httptest.NewRequest("GET", "/api", nil)
	r.TLS = &tls.ConnectionState{}
	if cert != nil {
		r.TLS.PeerCertificates = []*x509.Certificate{cert}
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Add(name, value)
	}
	return r
}

func shown(u *user.Info, err error) string {
	switch {
	case err != nil:
		return "error"
	case u == nil:
		return "nobody"
	}
	return u.Name + " " + strings.Join(u.Groups, ",")
}

func TestMethodsInOrder(t *testing.T) {
	ca, front, stranger := newAuthority(t), newAuthority(t), newAuthority(t)
	jane := ca.client(t, pkix.Name{CommonName: "jane", Organization: []string{"a", "b"}})
	nameless := ca.client(t, pkix.Name{Organization: []string{"a"}})
	server := ca.client(t, pkix.Name{CommonName: "server"}, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
	expired := ca.client(t, pkix.Name{CommonName: "late"}, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	unknown := stranger.client(t, pkix.Name{CommonName: "jane"})
	proxy := front.client(t, pkix.Name{CommonName: "front-proxy-client"})
	impostor := front.client(t, pkix.Name{CommonName: "other"})
	a := New(Config{
		Loopback: "loop", ClientCA: ca.pool(), Anonymous: true, Audiences: []string{"api"},
		RequestHeader: &RequestHeader{CA: front.pool(), AllowedNames: []string{"front-proxy-client"}, UserHeaders: []string{"X-Remote-User"},
			UIDHeaders: []string{"X-Remote-Uid"}, GroupHeaders: []string{"X-Remote-Group"}, ExtraPrefixes: []string{"X-Remote-Extra-"}},
		Tokens: []TokenMethod{StaticTokens{"tok": {Name: "static", Groups: []string{"g"}}, "guest": {Name: user.Anonymous}}},
	})
	const remote = "X-Remote-User: proxied"
	for _, c := range []struct {
		name    string
		cert    *x509.Certificate
		headers []string
		want    string
	}{
		{"nothing", nil, nil, "system:anonymous system:unauthenticated"},
		{"loopback", nil, []string{"Authorization: Bearer loop"}, "system:apiserver system:masters,system:authenticated"},
		{"certificate", jane, nil, "jane a,b,system:authenticated"},
		{"certificate and token", jane, []string{"Authorization: Bearer tok"}, "jane a,b,system:authenticated"},
		{"certificate and wrong token", jane, []string{"Authorization: Bearer x"}, "jane a,b,system:authenticated"},
		{"token", nil, []string{"Authorization: Bearer tok"}, "static g,system:authenticated"},
		{"scheme in any case", nil, []string{"Authorization: bEARER tok"}, "static g,system:authenticated"},
		{"wrong token", nil, []string{"Authorization: Bearer x"}, "error"},
		{"empty token", nil, []string{"Authorization: Bearer "}, "system:anonymous system:unauthenticated"},
		{"two spaces", nil, []string{"Authorization: Bearer  tok"}, "system:anonymous system:unauthenticated"},
		{"basic", nil, []string{"Authorization: Basic YTpi"}, "system:anonymous system:unauthenticated"},
		{"token of the anonymous user", nil, []string{"Authorization: Bearer guest"}, "system:anonymous "},
		{"nameless certificate", nameless, nil, "system:anonymous system:unauthenticated"},
		{"certificate of a server", server, nil, "error"},
		{"expired certificate", expired, nil, "error"},
		{"unknown certificate", unknown, nil, "error"},
		{"unknown certificate and token", unknown, []string{"Authorization: Bearer tok"}, "static g,system:authenticated"},
		{"front proxy", proxy, []string{remote, "X-Remote-Group: x", "X-Remote-Group: y"}, "proxied x,y,system:authenticated"},
		{"front proxy for the anonymous user", proxy, []string{"X-Remote-User: system:anonymous"}, "system:anonymous "},
		{"front proxy for nobody", proxy, nil, "error"},
		{"not an allowed front proxy", impostor, []string{remote}, "error"},
		{"headers without a proxy", nil, []string{remote}, "system:anonymous system:unauthenticated"},
		{"headers from a client", jane, []string{remote}, "jane a,b,system:authenticated"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := call(c.cert, c.headers...)
			got := shown(a.Authenticate(r))
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if got != "error" && !strings.Contains(got, "unauthenticated") && (r.Header.Get("Authorization") != "" || r.Header.Get("X-Remote-User") != "") {
				t.Errorf("credentials were left in the request: %v", r.Header)
			}
		})
	}
}

func TestCertificateIdentity(t *testing.T) {
	ca := newAuthority(t)
	withUID := func(values ...string) *x509.Certificate {
		name := pkix.Name{CommonName: "jane"}
		for _, v := range values {
			name.ExtraNames = append(name.ExtraNames, pkix.AttributeTypeAndValue{Type: uidAttribute, Value: v})
		}
		return ca.client(t, name)
	}
	a := New(Config{ClientCA: ca.pool()})
	u, err := a.Authenticate(call(withUID("u-1")))
	if err != nil || u.UID != "u-1" || len(u.Extra[CredentialID]) != 1 || !strings.HasPrefix(u.Extra[CredentialID][0], "X509SHA256=") || len(u.Extra[CredentialID][0]) != 11+64 {
		t.Errorf("%+v %v", u, err)
	}
	for _, wrong := range [][]string{{"a", "b"}, {" "}} {
		if _, err := a.Authenticate(call(withUID(wrong...))); err == nil {
			t.Errorf("UIDs %q were accepted", wrong)
		}
	}
}

func TestCertificateIsVerifiedOnceUntilSomethingChanges(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	now := time.Now()
	cert := ca.client(t, pkix.Name{CommonName: "jane"})
	a := New(Config{ClientCA: ca.pool(), Now: func() time.Time { return now }})
	first, _ := a.Authenticate(call(cert))
	if second, _ := a.Authenticate(call(cert)); first == nil || second != first {
		t.Error("the identity was made twice")
	}
	a.SetClientCA(other.pool())
	if u, err := a.Authenticate(call(cert)); err == nil {
		t.Errorf("%v was accepted after its authority went", u)
	}
	a.SetClientCA(ca.pool())
	now = now.Add(2 * time.Hour)
	if u, err := a.Authenticate(call(cert)); err == nil {
		t.Errorf("%v was accepted after its end", u)
	}
}

func TestFrontProxyExtras(t *testing.T) {
	front := newAuthority(t)
	a := New(Config{RequestHeader: &RequestHeader{CA: front.pool(), UserHeaders: []string{"x-remote-user"}, UIDHeaders: []string{"X-Remote-Uid"}, ExtraPrefixes: []string{"X-Remote-Extra-"}}})
	r := call(front.client(t, pkix.Name{CommonName: "any"}), "X-Remote-User: u", "X-Remote-Uid: 7", "X-Remote-Extra-Scopes: a", "X-Remote-Extra-Scopes: b", "X-Remote-Extra-Acme.com%2Fproject: p")
	u, err := a.Authenticate(r)
	if err != nil || u.UID != "7" || !reflect.DeepEqual(u.Extra, map[string][]string{"scopes": {"a", "b"}, "acme.com/project": {"p"}}) {
		t.Errorf("%+v %v", u, err)
	}
	if len(r.Header) != 0 {
		t.Errorf("headers left: %v", r.Header)
	}
}

func TestAnonymousPaths(t *testing.T) {
	a := New(Config{Anonymous: true, AnonymousPaths: []string{"/livez"}})
	r := call(nil)
	if _, err := a.Authenticate(r); err != ErrNoCredentials {
		t.Errorf("%v", err)
	}
	r.URL.Path = "/livez"
	if u, err := a.Authenticate(r); err != nil || u.Name != user.Anonymous {
		t.Errorf("%v %v", u, err)
	}
	if _, err := New(Config{}).Authenticate(r); err != ErrNoCredentials {
		t.Errorf("%v", err)
	}
}

func TestWebSocketToken(t *testing.T) {
	a := New(Config{Anonymous: true, Tokens: []TokenMethod{StaticTokens{"tok": {Name: "static"}}}})
	token := protocolPrefix + base64.RawURLEncoding.EncodeToString([]byte("tok"))
	upgrade := []string{"Connection: keep-alive, Upgrade", "Upgrade: websocket"}
	for _, c := range []struct {
		name    string
		headers []string
		want    string
		left    string
	}{
		{"one header", append(upgrade, "Sec-WebSocket-Protocol: v4.channel.k8s.io, "+token), "static system:authenticated", "v4.channel.k8s.io"},
		{"two headers", append(upgrade, "Sec-WebSocket-Protocol: "+token, "Sec-WebSocket-Protocol: a,b"), "static system:authenticated", "a,b"},
		{"token alone", append(upgrade, "Sec-WebSocket-Protocol: "+token), "system:anonymous system:unauthenticated", token},
		{"two tokens", append(upgrade, "Sec-WebSocket-Protocol: a,"+token+","+token), "system:anonymous system:unauthenticated", "a," + token + "," + token},
		{"wrong token", append(upgrade, "Sec-WebSocket-Protocol: a, "+protocolPrefix+"eHh4"), "error", "a, " + protocolPrefix + "eHh4"},
		{"no upgrade", []string{"Sec-WebSocket-Protocol: a, " + token}, "system:anonymous system:unauthenticated", "a, " + token},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := call(nil, c.headers...)
			if got := shown(a.Authenticate(r)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if got := strings.Join(r.Header.Values("Sec-WebSocket-Protocol"), ","); got != c.left {
				t.Errorf("left %q, want %q", got, c.left)
			}
		})
	}
}

func TestStaticTokens(t *testing.T) {
	for _, c := range []struct {
		text, want string
		ok         bool
	}{
		{"t,u,1", "u 1 ", true},
		{"t,u,1,\"g,h\"\n", "u 1 g,h", true},
		{"t,u,1,\" g , \"\nx,y,z", "u 1 g", true},
		{"t,u,1\nt,v,2", "v 2 ", true},
		{",u,1\nt,v,2", "v 2 ", true},
		{"t,u", "", false},
		{"t,\"u", "", false},
	} {
		tokens, err := ParseStaticTokens(strings.NewReader(c.text))
		if (err == nil) != c.ok {
			t.Errorf("%q: %v", c.text, err)
			continue
		}
		if u := tokens["t"]; c.ok && u.Name+" "+u.UID+" "+strings.Join(u.Groups, ",") != c.want {
			t.Errorf("%q: %+v", c.text, u)
		}
	}
}

// sortOf is a token method that knows tokens by their first letter.
type sortOf struct {
	letter string
	err    error
	asked  int
	still  error
}

func (s *sortOf) Token(_ context.Context, token string, _ []string) (*Verified, error) {
	s.asked++
	if !strings.HasPrefix(token, s.letter) {
		return nil, s.err
	}
	return &Verified{User: &user.Info{Name: s.letter}, Still: func(context.Context) error { return s.still }}, nil
}

func TestAnswersAboutTokensAreRememberedWhileTheyHold(t *testing.T) {
	now := time.Now()
	m := &sortOf{letter: "a"}
	a := New(Config{Tokens: []TokenMethod{m}, Now: func() time.Time { return now }})
	ask := func(token string, asked int, ok bool) {
		t.Helper()
		_, err := a.Authenticate(call(nil, "Authorization: Bearer "+token))
		if (err == nil) != ok || m.asked != asked {
			t.Errorf("%s: %v, asked %d times, want %d", token, err, m.asked, asked)
		}
	}
	ask("a1", 1, true)
	ask("a1", 1, true)
	ask("a2", 2, true)
	ask("x", 3, false) // refusals are not remembered
	ask("x", 4, false)
	now = now.Add(tokenMemory)
	ask("a1", 5, true)
	m.still = ErrInvalidToken
	ask("a1", 6, true) // no longer holds: the method is asked again, and it says yes
	ask("a1", 7, true)
}

func TestTokenMemoryIsBounded(t *testing.T) {
	a := New(Config{Tokens: []TokenMethod{&sortOf{letter: ""}}})
	for i := range maxTokens + 100 {
		token := "t" + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + time.Duration(i).String()
		if _, err := a.Authenticate(call(nil, "Authorization: Bearer "+token)); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(a.tokens.mu.known); n > maxTokens {
		t.Errorf("%d answers are remembered", n)
	}
}

func TestReviewErrors(t *testing.T) {
	a := New(Config{Loopback: "loop", Audiences: []string{"api"}, Tokens: []TokenMethod{
		&sortOf{letter: "a", err: audienceError([]string{"https://kubernetes.default.svc"}, []string{"other"})}}})
	if _, err := a.Review(t.Context(), "b", []string{"other"}); err == nil ||
		err.Error() != `[invalid bearer token, token audiences ["https://kubernetes.default.svc"] is invalid for the target audiences ["other"]]` {
		t.Errorf("%v", err)
	}
	if _, err := New(Config{Loopback: "loop"}).Review(t.Context(), "nope", nil); err == nil || err.Error() != "invalid bearer token" {
		t.Errorf("%v", err)
	}
	if v, err := a.Review(t.Context(), "a", nil); err != nil || !slices.Equal(v.Audiences, []string{"api"}) {
		t.Errorf("%v %v", v, err)
	}
	if v, err := a.Review(t.Context(), "a", []string{"other"}); err == nil {
		t.Errorf("a token without audiences was accepted for another audience: %v", v)
	}
}

func FuzzStaticTokens(f *testing.F) {
	f.Add("t,u,1,\"g,h\"\n")
	f.Add("a,b\n\"")
	f.Fuzz(func(t *testing.T, text string) {
		tokens, err := ParseStaticTokens(strings.NewReader(text))
		if err != nil {
			return
		}
		for token, u := range tokens {
			if token == "" || u == nil || slices.Contains(u.Groups, "") {
				t.Errorf("%q: %+v", token, u)
			}
		}
	})
}

func FuzzBearer(f *testing.F) {
	f.Add("Bearer x", "a, "+protocolPrefix+"eA")
	f.Add("bearer  ", protocolPrefix)
	f.Fuzz(func(t *testing.T, authorization, protocol string) {
		if token := bearerToken(authorization); strings.ContainsAny(token, " ") {
			t.Errorf("%q gives token %q", authorization, token)
		}
		r := &http.Request{Header: http.Header{protocolHeader: {protocol}}}
		if protocolToken(r.Header[protocolHeader]) == "" {
			return
		}
		removeProtocolToken(r.Header)
		if strings.Contains(r.Header[protocolHeader][0], protocolPrefix) {
			t.Errorf("%q: the token stays in %q", protocol, r.Header[protocolHeader])
		}
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	ca := newAuthority(b)
	cert := ca.client(b, pkix.Name{CommonName: "jane", Organization: []string{"a"}})
	a := New(Config{Loopback: "loop", ClientCA: ca.pool(), Anonymous: true, Tokens: []TokenMethod{&sortOf{letter: "a"}},
		RequestHeader: &RequestHeader{CA: newAuthority(b).pool(), UserHeaders: []string{"X-Remote-User"}, GroupHeaders: []string{"X-Remote-Group"}, ExtraPrefixes: []string{"X-Remote-Extra-"}}})
	usual := []string{"User-Agent: kubectl/v1.37", "Accept: application/json", "Accept-Encoding: gzip", "Content-Length: 0"}
	token := "Bearer a" + strings.Repeat("x", 900)
	for _, bench := range []struct {
		name    string
		request *http.Request
		header  string
	}{{"certificate", call(cert, usual...), ""}, {"token", call(nil, usual...), token}, {"anonymous", call(nil, usual...), ""}} {
		b.Run(bench.name, func(b *testing.B) {
			b.ReportAllocs()
			header := []string{bench.header}
			for b.Loop() {
				if bench.header != "" {
					bench.request.Header["Authorization"] = header
				}
				if _, err := a.Authenticate(bench.request); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
